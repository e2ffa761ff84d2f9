//! Whatever a peer may say within a protocol is read as it was meant, wherever its bytes are cut.
//!
//! What must hold of bytes that mean nothing is `tests/fuzz`'s.

use std::sync::LazyLock;

use inferprobe::{
    catalogue::{
        Catalogue, RequestInfo,
        path::{PathPattern, PathQuery},
    },
    exporter::query,
    metrics::Selection,
    protocol::{
        grpc,
        http1::{
            self, Body, Parse,
            chunked::{ChunkWalk, Place},
        },
        http2::{FrameReader, PREFACE, Part},
        target::segments_of,
    },
    torchserve::frames::{
        command::{self, CommandReader},
        reply::{self, ReplyReader},
    },
};
use proptest::{collection::vec, prelude::*};

/// `bytes` in pieces of these lengths, over and over.
fn pieces<'a>(mut bytes: &'a [u8], lens: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut lens = lens.iter().cycle();
    std::iter::from_fn(move || {
        let len = (*lens.next()?).min(bytes.len());
        let (piece, rest) = bytes.split_at(len);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn lens() -> impl Strategy<Value = Vec<usize>> {
    vec(1_usize..40, 1..8)
}

/// `text` with the bytes at these places, and all that may not stand in a URL, as percent escapes.
fn escaped(text: &str, places: &[usize]) -> String {
    let mut escaped = String::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' if !places.contains(&at) => {
                escaped.push(byte.into());
            }
            _ => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    escaped
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len())
        .expect("it is short")
        .to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field, new to the table or kept out of it.
fn literal(name: &str, value: &str, kept: bool) -> Vec<u8> {
    let mut field = vec![if kept { 0x40 } else { 0 }];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).expect("it is short"));
        field.extend(text.bytes());
    }
    field
}

/// A text of TorchServe's workers.
fn text(bytes: &[u8]) -> Vec<u8> {
    let len = i32::try_from(bytes.len()).expect("it is short");
    [&len.to_be_bytes(), bytes].concat()
}

const END: [u8; 4] = (-1_i32).to_be_bytes();

/// A field of a message of gRPC that is bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [
        &[
            number << 3 | 2,
            u8::try_from(value.len()).expect("it is short"),
        ],
        value,
    ]
    .concat()
}

/// Nothing is kept of a failure but what it prints.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_request_head_says_what_was_asked(
        method in "[A-Z]{1,24}",
        target in "/[!-~]{0,60}",
        fields in vec(("[A-Za-z-]{1,12}", "[ -~]{0,20}"), 0..5),
        length in any::<u32>(),
        behind in vec(any::<u8>(), 0..20),
    ) {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in &fields {
            head.push_str(&format!("x-{name}:{value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
        let bytes = [head.as_bytes(), &behind].concat();
        let Parse::Complete(found, len) = http1::parse_request(&bytes) else {
            panic!("not complete")
        };
        prop_assert_eq!((found.method, found.target), (method, target));
        prop_assert_eq!((found.body, len), (Body::Length(length.into()), head.len()));
        for end in 0..head.len() {
            prop_assert_eq!(http1::parse_request(&bytes[..end]), Parse::Partial);
        }
    }

    #[test]
    fn a_response_head_says_what_was_answered(status in 100_u16..1000, reason in "[ -~]{0,20}", length in any::<u64>()) {
        let head = format!("HTTP/1.1 {status} {reason}\r\ncontent-length:{length}\r\n\r\n");
        let Parse::Complete(found, len) = http1::parse_response(head.as_bytes()) else {
            panic!("not complete")
        };
        prop_assert_eq!((found.status, found.body, len), (status, Body::Length(length), head.len()));
        for end in 0..head.len() {
            prop_assert_eq!(http1::parse_response(&head.as_bytes()[..end]), Parse::Partial);
        }
    }

    #[test]
    fn a_chunked_body_ends_behind_its_trailers(
        chunks in vec(vec(any::<u8>(), 1..60), 0..6),
        extension in "(;[a-z\"= ]{0,9})?",
        trailers in vec("[A-Za-z]{1,8}: [a-z]{0,8}", 0..3),
        behind in vec(any::<u8>(), 0..9),
        lens in lens(),
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            body.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n");
        for line in &trailers {
            body.extend(format!("{line}\r\n").into_bytes());
        }
        body.extend(b"\r\n");
        let bytes = [&body[..], &behind].concat();
        let mut walk = ChunkWalk::default();
        let (mut taken, mut data_bytes, mut count) = (0, 0, 0);
        let mut place = Place::Open;
        for piece in pieces(&bytes, &lens) {
            let walked = walk.feed(piece, piece.len() as u64);
            taken += walked.taken;
            data_bytes += walked.data_bytes;
            count += walked.chunks as usize;
            place = walked.place;
        }
        prop_assert_eq!((place, taken), (Place::Ended, body.len() as u64));
        prop_assert_eq!((data_bytes, count), (chunks.concat().len() as u64, chunks.len()));
    }

    #[test]
    fn the_fields_of_a_stream_are_its_own(
        paths in vec(("/[a-z]{1,30}", any::<bool>(), vec(any::<u8>(), 0..200), 0_u8..20), 1..6),
        lens in lens(),
    ) {
        let mut bytes = [&PREFACE[..], &frame(4, 0, 0, &[])].concat();
        let mut expected = Vec::new();
        for (index, (path, kept, content, padding)) in paths.iter().enumerate() {
            let stream = index as u32 * 2 + 1;
            let block = [literal(":path", path, *kept), literal("x", "y", true)].concat();
            // The field at hand is in the table now, and one that was put there later before it.
            let again = if *kept { vec![0xbf] } else { Vec::new() };
            let (start, rest) = block.split_at(block.len() / 2);
            bytes.extend(frame(1, 0, stream, start));
            bytes.extend(frame(9, 4, stream, &[rest, &again].concat()));
            let padded = [&[*padding], &content[..], &vec![0; usize::from(*padding)]].concat();
            bytes.extend(frame(0, 9, stream, &padded));
            expected.push((stream, path.clone(), content.clone()));
        }
        let mut reader = FrameReader::client();
        let mut found: Vec<(u32, String, Vec<u8>)> = Vec::new();
        for piece in pieces(&bytes, &lens) {
            let fed = reader.feed(piece, |part| match part {
                Part::Headers { stream, fields, .. } => {
                    found.push((stream, fields.path.unwrap_or_default(), Vec::new()));
                }
                Part::Data { content, .. } => {
                    let (_, _, gathered) = found.last_mut().unwrap();
                    gathered.extend_from_slice(content.unwrap_or_default());
                }
                _ => {}
            });
            prop_assert_eq!(fed, Ok(()));
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_message_of_grpc_names_its_model_or_nothing(
        model in "[a-z]{1,40}",
        version in proptest::option::of("[0-9]{1,3}"),
        others in vec((3_u8..15, vec(any::<u8>(), 0..40)), 0..4),
        late in any::<bool>(),
    ) {
        let mut fields: Vec<Vec<u8>> = others.iter().map(|(number, value)| field(*number, value)).collect();
        fields.insert(if late { fields.len() } else { 0 }, field(1, model.as_bytes()));
        fields.extend(version.iter().map(|version| field(2, version.as_bytes())));
        let message = fields.concat();
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        let bytes = [&[0], &len[..], &message].concat();
        let path = "/inference.GRPCInferenceService/ModelInfer";
        let found = grpc::model_of(path, &bytes).expect("it names one");
        prop_assert_eq!((&found.model, &found.version), (&model, &version));
        for end in 0..bytes.len() {
            let cut = grpc::model_of(path, &bytes[..end]);
            prop_assert!(cut.is_none_or(|cut| cut.model == model));
        }
    }

    #[test]
    fn a_batch_for_a_worker_and_its_reply_name_their_requests(
        requests in vec(("[a-z0-9-]{1,36}", vec(("[a-z]{1,9}", "[a-z]{0,9}"), 1..4), vec(any::<u8>(), 0..400), 100_u16..600), 1..5),
        lens in lens(),
    ) {
        let mut asked = b"I".to_vec();
        let mut replied = [&200_i32.to_be_bytes()[..], &text(b"done")].concat();
        for (id, headers, body, status) in &requests {
            asked.extend(text(id.as_bytes()));
            replied.extend([text(id.as_bytes()), text(b"text/plain")].concat());
            replied.extend(i32::from(*status).to_be_bytes());
            replied.extend(text(b"as asked"));
            replied.extend(i32::try_from(headers.len()).unwrap().to_be_bytes());
            for (name, value) in headers {
                let header = [text(format!("x-{name}").as_bytes()), text(value.as_bytes())].concat();
                asked.extend(&header);
                replied.extend(&header);
            }
            asked.extend(END);
            asked.extend([text(b"body"), text(b""), text(body)].concat());
            asked.extend(END);
            replied.extend(text(body));
        }
        asked.extend(END);
        replied.extend(END);
        let (mut commands, mut replies) = (Vec::new(), Vec::new());
        let (mut of_commands, mut of_replies) = (CommandReader::default(), ReplyReader::default());
        for piece in pieces(&asked.repeat(2), &lens) {
            prop_assert_eq!(of_commands.feed(piece, &mut commands), Ok(()));
        }
        for piece in pieces(&replied.repeat(2), &lens) {
            prop_assert_eq!(of_replies.feed(piece, &mut replies), Ok(()));
        }
        let expected = command::WorkerCommand::Predict {
            requests: requests.iter().map(|(id, ..)| command::BatchedRequest {
                id: Some(id.clone()),
                has_headers: true,
                kind: command::RequestKind::Predict,
            }).collect(),
            whole: true,
        };
        prop_assert_eq!(commands, [expected.clone(), expected]);
        let expected = reply::Reply {
            code: 200,
            message: Some("done".into()),
            responses: requests.iter().map(|(id, _, _, status)| reply::BatchedResponse {
                id: Some(id.clone()),
                http_status: Some(*status),
                stream_next: None,
            }).collect(),
            whole: true,
        };
        prop_assert_eq!(replies, [expected.clone(), expected]);
    }

    #[test]
    fn a_path_gives_the_model_however_it_is_escaped(
        model in "\\PC{1,20}",
        places in vec(0_usize..20, 0..9),
        host in proptest::option::of("https?://[a-z]{1,9}(:[0-9]{1,5})?"),
    ) {
        let target = format!("{}/v2/models/{}/infer?a=b", host.unwrap_or_default(), escaped(&model, &places));
        let pattern = PathPattern::parse("POST /v2/models/{model}/infer").unwrap();
        let segments = segments_of(&target);
        let found = pattern.find(PathQuery { method: "POST", segments: &segments, target: &target });
        prop_assert_eq!(found.and_then(|found| found.model), Some(model));
    }

    #[test]
    fn any_path_is_for_something(method in "[A-Z]{0,9}", target in any::<String>(), is_grpc in any::<bool>()) {
        static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::new(Vec::new()).unwrap());
        let asked = RequestInfo { method: &method, target: &target, is_grpc, is_upgraded: false, on_unix: false, named: None, user_agent: None };
        let route = CATALOGUE.route(None, asked);
        prop_assert!(route.model.is_none_or(|model| !model.is_empty()));
    }

    #[test]
    fn names_are_found_however_they_are_escaped(
        names in vec(proptest::sample::select(vec!["QueueTime", "HandlerTime", "CPUUtilization", "no such name"]), 1..4),
        places in vec(0_usize..14, 0..9),
        others in vec("[a-z]{0,4}(=[a-z+]{0,4})?", 0..3),
        separator in "[&;]",
    ) {
        let mut pairs = others;
        for name in &names {
            pairs.push(format!("{}={}", escaped("name[]", &places), escaped(name, &places)));
        }
        let found = query::selection(pairs.join(&separator).as_bytes());
        prop_assert_eq!(found, Ok(Selection::named(names)));
    }
}
