use super::*;
use crate::protocol::http2::encode::{
    Random, data, frame, go_away, headers, literals, reset, settings,
};

/// A part, its borrowed content owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Content(u32, Vec<u8>),
    Hidden(u32),
    Other(Part<'static>),
}

fn seen(part: Part<'_>) -> Seen {
    match part {
        Part::Data {
            stream,
            content: Some(content),
        } => Seen::Content(stream, content.to_vec()),
        Part::Data { stream, .. } => Seen::Hidden(stream),
        Part::Began => Seen::Other(Part::Began),
        Part::Headers {
            stream,
            bytes,
            ends,
            fields,
        } => Seen::Other(Part::Headers {
            stream,
            bytes,
            ends,
            fields,
        }),
        Part::DataEnd {
            stream,
            bytes,
            content_bytes,
            ends,
        } => Seen::Other(Part::DataEnd {
            stream,
            bytes,
            content_bytes,
            ends,
        }),
        Part::Reset { stream } => Seen::Other(Part::Reset { stream }),
        Part::GoAway { last } => Seen::Other(Part::GoAway { last }),
        Part::TableSize(bytes) => Seen::Other(Part::TableSize(bytes)),
    }
}

/// Feeds pieces, `Err(n)` being so many bytes that were not captured; gives the parts, contents that follow each other
/// put together, and how it ended.
fn read(reader: &mut FrameReader, pieces: &[Result<&[u8], u64>]) -> (Vec<Seen>, Result<(), Fault>) {
    let mut parts: Vec<Seen> = Vec::new();
    let mut note = |part: Part<'_>| match (parts.last_mut(), seen(part)) {
        (Some(Seen::Content(stream, before)), Seen::Content(same, more)) if *stream == same => {
            before.extend(more);
        }
        (_, part) => parts.push(part),
    };
    for piece in pieces {
        let followed = match piece {
            Ok(bytes) => reader.feed(bytes, &mut note),
            Err(bytes) => reader.skip(*bytes, &mut note),
        };
        if followed.is_err() {
            return (parts, followed);
        }
    }
    (parts, Ok(()))
}

/// The parts that a server gets of these bytes, after the preface and SETTINGS.
fn from_client(pieces: &[Result<&[u8], u64>]) -> (Vec<Seen>, Result<(), Fault>) {
    let mut reader = FrameReader::client();
    let opening = [&PREFACE[..], &settings()].concat();
    let (parts, followed) = read(&mut reader, &[Ok(&opening)]);
    assert_eq!((parts, followed), (vec![Seen::Other(Part::Began)], Ok(())));
    read(&mut reader, pieces)
}

const ASK: &[(&str, &str)] = &[(":method", "POST"), (":path", "/p.S/M")];

fn asked() -> Fields {
    Fields {
        method: Some("POST".into()),
        path: Some("/p.S/M".into()),
        ..Fields::default()
    }
}

fn began() -> Seen {
    Seen::Other(Part::Began)
}

fn asks(stream: u32, bytes: usize, ends: bool) -> Seen {
    Seen::Other(Part::Headers {
        stream,
        bytes: bytes as u64,
        ends,
        fields: asked(),
    })
}

fn data_end(stream: u32, bytes: usize, ends: bool) -> Seen {
    padded_end(stream, bytes, bytes - 9, ends)
}

fn padded_end(stream: u32, bytes: usize, content_bytes: usize, ends: bool) -> Seen {
    Seen::Other(Part::DataEnd {
        stream,
        bytes: bytes as u64,
        content_bytes: content_bytes as u64,
        ends,
    })
}

/// A request with padding, priority and a block in three frames, a push that is none of its business, and noise.
fn mixture() -> Vec<u8> {
    let block = literals(ASK);
    let padded = [&[3][..], &[0, 0, 0, 0, 16], &block[..4], &[0; 3]].concat();
    [
        frame(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, &padded),
        frame(kind::CONTINUATION, 0, 1, &block[4..9]),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block[9..]),
        frame(kind::PING, 0, 0, &[7; 8]),
        headers(3, ASK, true),
        frame(kind::DATA, flag::PADDED, 1, b"\x02one\0\0"),
        frame(0xfe, 0xff, 9, b"whatever"),
        frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(kind::PRIORITY, 0, 1, &[0; 5]),
        data(1, b"two", true),
        reset(3),
        go_away(3),
    ]
    .concat()
}

fn mixture_parts() -> Vec<Seen> {
    let block = literals(ASK).len();
    vec![
        began(),
        asks(1, 3 * 9 + 1 + 5 + 3 + block, false),
        began(),
        began(),
        asks(3, 9 + block, true),
        began(),
        Seen::Content(1, b"one".to_vec()),
        padded_end(1, 15, 3, false),
        began(),
        began(),
        began(),
        began(),
        Seen::Content(1, b"two".to_vec()),
        data_end(1, 12, true),
        began(),
        Seen::Other(Part::Reset { stream: 3 }),
        began(),
        Seen::Other(Part::GoAway { last: Some(3) }),
    ]
}

#[test]
fn frames_cut_at_any_byte_are_the_same_parts() {
    let bytes = mixture();
    for cut in 0..=bytes.len() {
        let (parts, followed) = from_client(&[Ok(&bytes[..cut]), Ok(&bytes[cut..])]);
        assert_eq!((parts, followed), (mixture_parts(), Ok(())), "cut at {cut}");
    }
}

#[test]
fn frames_byte_by_byte_are_the_same_parts() {
    let bytes = [&PREFACE[..], &settings(), &mixture()].concat();
    let pieces: Vec<_> = bytes.chunks(1).map(Ok).collect();
    let (parts, followed) = read(&mut FrameReader::client(), &pieces);
    assert_eq!(followed, Ok(()));
    assert_eq!(parts[1..], mixture_parts());
}

#[test]
fn frames_that_end_early_bring_nothing_of_their_end() {
    let bytes = headers(1, ASK, true);
    for len in 1..bytes.len() {
        let (parts, followed) = from_client(&[Ok(&bytes[..len])]);
        assert_eq!((parts, followed), (vec![began()], Ok(())), "{len}");
    }
}

#[test]
fn content_may_be_missing_up_to_the_end_of_its_frame() {
    let bytes = data(1, b"0123456789", true);
    let next = frame(kind::PING, 0, 0, &[0; 8]);
    let seen_parts = |content: &[Result<&[u8], u64>]| {
        let (parts, followed) = from_client(&[&[Ok(&bytes[..13])], content, &[Ok(&next)]].concat());
        assert_eq!(followed, Ok(()));
        assert_eq!(parts[..2], [began(), Seen::Content(1, b"0123".to_vec())]);
        assert_eq!(parts[parts.len() - 2..], [data_end(1, 19, true), began()]);
        parts[2..parts.len() - 2].to_vec()
    };
    assert_eq!(seen_parts(&[Err(6)]), [Seen::Hidden(1)]);
    assert_eq!(
        seen_parts(&[Err(4), Ok(b"89")]),
        [Seen::Hidden(1), Seen::Content(1, b"89".to_vec())]
    );
}

#[test]
fn content_behind_a_padding_of_unknown_length_is_not_told() {
    let bytes = frame(kind::DATA, flag::PADDED, 1, b"\x02one\0\0");
    let (parts, followed) = from_client(&[Ok(&bytes[..9]), Err(1), Ok(&bytes[10..])]);
    assert_eq!(followed, Ok(()));
    assert_eq!(parts, [began(), Seen::Hidden(1), data_end(1, 15, false)]);
}

#[test]
fn bytes_missing_over_a_header_are_a_fault() {
    let block = headers(1, ASK, true);
    let content = data(1, b"0123", true);
    for (captured, missing) in [
        // Nothing at all, inside a frame's header, inside a header block, and past the end of a payload.
        (&b""[..], 1),
        (&block[..4], 1),
        (&block[..12], 1),
        (&content[..9], 5),
        (&content[..9], u64::MAX),
    ] {
        let (_, followed) = from_client(&[Ok(captured), Err(missing)]);
        assert_eq!(followed, Err(Fault::Gap), "{captured:x?}");
    }
    let (_, followed) = read(&mut FrameReader::client(), &[Ok(&PREFACE[..20]), Err(4)]);
    assert_eq!(followed, Err(Fault::Gap), "inside the preface");
}

#[test]
fn payloads_nobody_reads_may_be_missing() {
    let pieces: Vec<(Vec<u8>, u64)> = vec![
        (frame(0x2a, 0, 0, &[0; 300]), 300),
        (frame(kind::PING, 0, 0, &[0; 8]), 8),
        (reset(5), 4),
    ];
    for (bytes, missing) in pieces {
        let (parts, followed) = from_client(&[Ok(&bytes[..9]), Err(missing), Ok(&reset(7))]);
        assert_eq!(followed, Ok(()));
        assert_eq!(
            parts.last(),
            Some(&Seen::Other(Part::Reset { stream: 7 })),
            "{bytes:x?}"
        );
    }
    let (parts, _) = from_client(&[Ok(&go_away(3)[..9]), Err(8)]);
    assert_eq!(parts, [began(), Seen::Other(Part::GoAway { last: None })]);
}

#[test]
fn lengths_beyond_all_reason_take_no_memory() {
    let huge = |kind: u8, stream: u32| {
        let mut bytes = frame(kind, 0, stream, &[]);
        bytes[..3].fill(0xff);
        bytes
    };
    let mut reader = FrameReader::client();
    read(&mut reader, &[Ok(&PREFACE[..])]).1.unwrap();
    for kind in [kind::DATA, 0x77] {
        let (parts, followed) = read(
            &mut reader,
            &[Ok(&huge(kind, 1)), Ok(&[0; 1000]), Err(0xff_ffff - 1000)],
        );
        assert_eq!((&parts[0], followed), (&began(), Ok(())), "{kind}");
        assert!(matches!(reader.state, State::Head(_, 0)), "{kind}");
    }
    assert_eq!(reader.collected.capacity(), 0);
    for (kind, stream) in [(kind::HEADERS, 1), (kind::PUSH_PROMISE, 1)] {
        let (_, followed) = from_client(&[Ok(&huge(kind, stream))]);
        assert_eq!(followed, Err(Fault::TooLong), "{kind}");
    }
}

#[test]
fn a_block_is_followed_up_to_its_bound() {
    let begun = frame(kind::HEADERS, 0, 1, &literals(ASK));
    let more = frame(kind::CONTINUATION, 0, 1, &[0x82; 4096]);
    let pieces = [
        &[Ok(&begun[..])][..],
        &[Ok(&more[..]); BLOCK_CAP / 4096 - 1],
    ]
    .concat();
    assert_eq!(from_client(&pieces).1, Ok(()));
    let pieces = [&pieces[..], &[Ok(&more)]].concat();
    assert_eq!(from_client(&pieces).1, Err(Fault::TooLong));
}

#[test]
fn frames_that_may_not_stand_there_are_faults() {
    let block = literals(ASK);
    let cases: Vec<Vec<u8>> = vec![
        // On the wrong kind of stream.
        data(0, b"", true),
        frame(kind::PING, 0, 1, &[0; 8]),
        // Of the wrong length.
        frame(kind::PING, 0, 0, &[0; 7]),
        frame(kind::RST_STREAM, 0, 1, &[0; 5]),
        frame(kind::SETTINGS, 0, 0, &[0; 7]),
        frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
        frame(kind::GOAWAY, 0, 0, &[0; 7]),
        // Padding longer than the frame.
        frame(kind::DATA, flag::PADDED, 1, &[4, 0, 0, 0]),
        frame(kind::DATA, flag::PADDED, 1, &[]),
        frame(
            kind::HEADERS,
            flag::PADDED | flag::END_HEADERS,
            1,
            &[9, 0x82],
        ),
        frame(
            kind::HEADERS,
            flag::PRIORITY | flag::END_HEADERS,
            1,
            &[0; 4],
        ),
        frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0; 3]),
        // A block that is not continued, continued on another stream, or interrupted.
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block),
        [
            frame(kind::HEADERS, 0, 1, &block),
            frame(kind::CONTINUATION, flag::END_HEADERS, 3, &[]),
        ]
        .concat(),
        [
            frame(kind::HEADERS, 0, 1, &block),
            frame(kind::PING, 0, 0, &[0; 8]),
        ]
        .concat(),
    ];
    for bytes in cases {
        let (_, followed) = from_client(&[Ok(&bytes)]);
        assert_eq!(followed, Err(Fault::Malformed), "{bytes:x?}");
    }
    let broken = frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x80]);
    assert_eq!(from_client(&[Ok(&broken)]).1, Err(Fault::Block));
}

#[test]
fn other_protocols_are_faults() {
    for bytes in [
        &b"POST /p HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PRI * HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let (_, followed) = read(&mut FrameReader::client(), &[Ok(bytes)]);
        assert_eq!(followed, Err(Fault::Malformed), "{bytes:x?}");
    }
}

#[test]
fn a_connection_joined_in_the_middle_is_followed_from_a_frame() {
    // The path is the newest entry of a table that was filled before.
    let block = [&[0x83, 0xbe][..], &literals(&[("te", "trailers")])].concat();
    let bytes = frame(kind::HEADERS, flag::END_HEADERS, 7, &block);
    let mut reader = FrameReader::client();
    let (parts, followed) = read(&mut reader, &[Ok(&bytes), Ok(&headers(9, ASK, false))]);
    assert_eq!(followed, Ok(()));
    assert!(reader.is_joined());
    let Seen::Other(Part::Headers { fields, .. }) = &parts[1] else {
        panic!("{parts:?}")
    };
    assert_eq!(
        (
            fields.method.as_deref(),
            fields.path.as_deref(),
            fields.unknown
        ),
        (Some("POST"), None, true)
    );
    assert_eq!(parts[3], asks(9, headers(9, ASK, false).len(), false));
}

#[test]
fn a_server_that_does_not_begin_with_settings_is_joined() {
    let response = headers(1, &[(":status", "200"), ("grpc-status", "5")], true);
    for (first, joined) in [
        (settings(), false),
        (frame(kind::SETTINGS, flag::ACK, 0, &[]), true),
        (response.clone(), true),
    ] {
        let mut reader = FrameReader::server();
        let (parts, followed) = read(&mut reader, &[Ok(&first), Ok(&response)]);
        assert_eq!((reader.is_joined(), followed), (joined, Ok(())));
        let Some(Seen::Other(Part::Headers { fields, .. })) = parts.last() else {
            panic!("{parts:?}")
        };
        assert_eq!((fields.status, fields.grpc_status), (Some(200), Some(5)));
    }
}

#[test]
fn promised_push_adds_to_the_table_and_is_skipped() {
    // The promise adds a path to the table, before the response's trailers refer to it.
    let promise = [&[0, 0, 0, 2][..], b"\x44\x02/x"].concat();
    let response = [&[0x88][..], b"\x40\x0bgrpc-status\x010", &[0xbf]].concat();
    let bytes = [
        settings(),
        frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise),
        frame(kind::HEADERS, flag::END_HEADERS, 1, &response),
    ]
    .concat();
    let (parts, followed) = read(&mut FrameReader::server(), &[Ok(&bytes)]);
    assert_eq!((parts.len(), followed), (4, Ok(())));
    let Seen::Other(Part::Headers { fields, .. }) = &parts[3] else {
        panic!("{parts:?}")
    };
    assert_eq!(fields.path.as_deref(), Some("/x"));
}

#[test]
fn settings_say_how_large_the_other_table_may_be() {
    let settings = frame(kind::SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff\0\x01\0\0\x20\0");
    let table = |pieces: &[Result<&[u8], u64>]| from_client(pieces).0[1..].to_vec();
    assert_eq!(
        table(&[Ok(&settings)]),
        [Seen::Other(Part::TableSize(8192))]
    );
    assert_eq!(
        table(&[Ok(&settings[..9]), Err(12)]),
        [Seen::Other(Part::TableSize(u32::MAX))]
    );
}

#[test]
fn values_that_are_no_text_or_no_number_do_no_harm() {
    let block = b"\x04\x03/\xff\xfe\x08\x0599999\x00\x0bgrpc-status\x01x";
    let bytes = frame(kind::HEADERS, flag::END_HEADERS, 1, block);
    let (parts, followed) = from_client(&[Ok(&bytes)]);
    assert_eq!(followed, Ok(()));
    let Seen::Other(Part::Headers { fields, .. }) = &parts[1] else {
        panic!("{parts:?}")
    };
    let expected = Fields {
        path: Some("/\u{fffd}\u{fffd}".into()),
        ..Fields::default()
    };
    assert_eq!(*fields, expected);
}

#[test]
fn any_bytes_with_any_cuts_are_followed_within_bounds() {
    let mut random = Random(11);
    for _ in 0..3_000 {
        let mut reader = match random.below(3) {
            0 => FrameReader::server(),
            _ => FrameReader::client(),
        };
        let mut bytes = match random.below(2) {
            0 => PREFACE.to_vec(),
            _ => settings(),
        };
        for _ in 0..random.below(12) {
            let len = random.below(40);
            let payload = random.bytes(len);
            let (kind, flags) = (random.below(11) as u8, random.below(256) as u8);
            bytes.extend(frame(kind, flags, random.below(4) as u32, &payload));
        }
        let spoilt = random.below(bytes.len() as u64 * 4) as usize;
        if let Some(byte) = bytes.get_mut(spoilt) {
            *byte = !*byte;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
            rest = after;
            let followed = match random.below(8) {
                0 => reader.skip(piece.len() as u64, |_| {}),
                _ => reader.feed(piece, |_| {}),
            };
            assert!(reader.collected.capacity() <= 2 * BLOCK_CAP);
            if followed.is_err() {
                break;
            }
        }
    }
}
