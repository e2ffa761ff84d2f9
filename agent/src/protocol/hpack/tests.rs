use super::*;

type Fields = Vec<(Option<Name>, String)>;

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Invalid> {
    let mut fields = Vec::new();
    decoder.read(block, |field| {
        fields.push(match field {
            Field::Wanted(name, value) => (Some(name), String::from_utf8_lossy(value).into_owned()),
            Field::Unknown => (None, String::new()),
        });
    })?;
    Ok(fields)
}

fn wanted(fields: &[(Name, &str)]) -> Result<Fields, Invalid> {
    let field = |&(name, value): &(Name, &str)| (Some(name), value.to_owned());
    Ok(fields.iter().map(field).collect())
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// RFC 7541, C.3 and C.4: the same three requests, plain and in Huffman code; then the size of the table, and the
/// number of its entries.
const REQUESTS: [[&str; 3]; 2] = [
    [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ],
    [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ],
];

#[test]
fn requests_of_the_standard_are_read_with_their_table() {
    for blocks in REQUESTS {
        let mut decoder = Decoder::default();
        let sizes = [(57, 1), (110, 2), (164, 3)];
        for ((block, path), size) in blocks.iter().zip(["/", "/", "/index.html"]).zip(sizes) {
            let fields = [(Name::Method, "GET"), (Name::Path, path)];
            assert_eq!(read(&mut decoder, &hex(block)), wanted(&fields), "{block}");
            assert_eq!((decoder.size, decoder.entries.len()), size, "{block}");
        }
    }
}

#[test]
fn responses_of_the_standard_evict_the_oldest() {
    // RFC 7541, C.6, with the table of 256 bytes that it takes for granted.
    let mut decoder = Decoder::default();
    let responses = [
        (
            "3fe101 488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            &[(Name::Status, "302")][..],
            222,
        ),
        ("4883640effc1c0bf", &[(Name::Status, "307")], 222),
        (
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            &[(Name::Status, "200"), (Name::ContentEncoding, "gzip")],
            215,
        ),
    ];
    for (block, fields, size) in responses {
        assert_eq!(read(&mut decoder, &hex(block)), wanted(fields), "{block}");
        assert_eq!(decoder.size, size, "{block}");
    }
}

#[test]
fn blocks_cut_inside_a_field_are_invalid() {
    let block = hex(REQUESTS[1][2]);
    // Three fields of the static table and one of the dynamic table are a byte each.
    for len in 0..block.len() {
        let mut decoder = Decoder::default();
        read(&mut decoder, &hex(REQUESTS[1][0])).unwrap();
        read(&mut decoder, &hex(REQUESTS[1][1])).unwrap();
        let cut = read(&mut decoder, &block[..len]);
        assert_eq!(cut.is_ok(), len <= 4, "{len}");
    }
}

#[test]
fn what_no_sender_may_say_is_invalid() {
    for block in [
        // An index of 0, and one after the end of the table.
        &[0x80][..],
        &[0xbe],
        // A table larger than allowed.
        &[0x3f, 0xe2, 0x1f],
        // Integers without an end, and too long.
        &[0x3f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        // A string longer than the block.
        &[0x04, 0x7f, 0xff, 0xff, 0xff, 0x7f],
        // Huffman code that holds the end of the string.
        &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(
            read(&mut Decoder::default(), block),
            Err(Invalid),
            "{block:x?}"
        );
    }
}

#[test]
fn a_table_grows_as_far_as_the_other_side_allows() {
    let update = [0x3f, 0xe1, 0x3f, 0x82]; // 8192 bytes, then GET
    assert_eq!(read(&mut Decoder::default(), &update), Err(Invalid));
    let mut decoder = Decoder::default();
    decoder.allow(8192);
    assert_eq!(
        read(&mut decoder, &update),
        wanted(&[(Name::Method, "GET")])
    );
    decoder.allow(u32::MAX);
    assert_eq!((decoder.allowed, decoder.limit), (TABLE_CAP, 8192));
}

#[test]
fn of_a_joined_connection_only_what_went_by_before_is_unknown() {
    let mut decoder = Decoder::default();
    decoder.join();
    // Two references to older entries, and a literal whose name is one; it is the newest entry then.
    let block = [
        &[0x83, 0xbe, 0xc3, 0x7f, 0x05][..],
        b"\x02ab",
        b"\x44\x03/ab",
    ]
    .concat();
    let unknown = || (None, String::new());
    let path = || (Some(Name::Path), "/ab".to_owned());
    assert_eq!(
        read(&mut decoder, &block),
        Ok(vec![
            (Some(Name::Method), "POST".to_owned()),
            unknown(),
            unknown(),
            unknown(),
            path()
        ])
    );
    assert_eq!(
        read(&mut decoder, &[0xbe, 0xbf, 0xc0]),
        Ok(vec![path(), unknown(), unknown()])
    );
}

#[test]
fn long_values_are_cut_and_count_whole() {
    let mut block = vec![0x44, 0x7f, 0x81, 0x0f]; // a path of 2048 bytes
    block.extend(vec![b'a'; 2048]);
    let mut decoder = Decoder::default();
    let cut = "a".repeat(VALUE_CAP);
    assert_eq!(read(&mut decoder, &block), wanted(&[(Name::Path, &cut)]));
    assert_eq!(decoder.size, 32 + 5 + 2048);
    // One larger than the table empties it.
    block[2..4].copy_from_slice(&[0x81, 0x1f]);
    block.extend(vec![b'a'; 2048]);
    read(&mut decoder, &block).unwrap();
    assert_eq!((decoder.size, decoder.entries.len()), (0, 0));
}

#[test]
fn any_bytes_are_read_within_bounds() {
    let mut state = 7_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..2_000 {
        let mut decoder = Decoder::default();
        if round % 2 == 0 {
            decoder.join();
        }
        for _ in 0..20 {
            let block: Vec<u8> = (0..random() % 60).map(|_| random() as u8).collect();
            let _ = read(&mut decoder, &block);
            let sum: u32 = decoder.entries.iter().map(|entry| entry.size).sum();
            assert_eq!(decoder.size, sum);
            assert!(sum <= decoder.limit && decoder.limit <= TABLE_CAP);
        }
    }
}
