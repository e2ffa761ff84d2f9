//! Replays a connection between grpcio 1.85.1's client and server, captured by a proxy between them: a unary call, a
//! stream of three messages, a call refused with NOT_FOUND, and the unary call again with a deadline.

use super::*;
use crate::protocol::grpc::{ModelName, NamedBy};

/// Who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// In order of time.
const SENT: [(Side, &[u8]); 16] = [
    (Side::Client, b"PRI * HTTP/2.0\x0d\x0a\x0d\x0aSM\x0d\x0a\x0d\x0a\x00\x00$\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\
          \x00\x00\x00\x03\x00\x00\x00\x00\x00\x04\x00@\x00\x00\x00\x05\x00@\x00\x00\x00\x06\x00\x00@\x00\xfe\
          \x03\x00\x00\x00\x01\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00?\x00\x01"),
    (Side::Server, b"\x00\x00\x18\x04\x00\x00\x00\x00\x00\x00\x04\x00@\x00\x00\x00\x05\x00@\x00\x00\x00\x06\x00\x00@\x00\
          \xfe\x03\x00\x00\x00\x01\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00?\x00\x01\x00\x00\x00\x04\x01\x00\
          \x00\x00\x00"),
    (Side::Client, b"\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x01\x01\x01\x04\x00\x00\x00\x01@\x05:pathB/org.pytorch.serv\
          e.grpc.inference.InferenceAPIsService/Predictions@\x0a:authority\x0f127.0.0.1:54579\x83\x86@\x0ccont\
          ent-type\x10application/grpc@\x02te\x08trailers@\x14grpc-accept-encoding\x17identity, deflate, gzip@\
          \x0auser-agent2t grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)\x00\x00\x04\x08\x00\x00\x00\x00\
          \x01\x00\x00\x00\x05\x00\x00$\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x1f\x0a\x04tiny\x12\x031.0\x1a\
          \x12\x0a\x04data\x12\x0a{\x22inf\x22:20}\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x05"),
    (Side::Server, b"\x00\x00\x08\x06\x00\x00\x00\x00\x00\xd8\xc0\xcc\xa2\xc5\x1c\xb9."),
    (Side::Client, b"\x00\x00\x08\x06\x01\x00\x00\x00\x00\xd8\xc0\xcc\xa2\xc5\x1c\xb9."),
    (Side::Server, b"\x00\x00N\x01\x04\x00\x00\x00\x01\x88@\x0ccontent-type\x10application/grpc@\x14grpc-accept-encoding\
          \x17identity, deflate, gzip\x00\x00\x09\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x04\x0a\x02ok\x00\
          \x00\x1e\x01\x05\x00\x00\x00\x01@\x0bgrpc-status\x010\x00\x0cgrpc-message\x00\x00\x00\x04\x08\x00\
          \x00\x00\x00\x00\x00\x00\x00$"),
    (Side::Client, b"\x00\x00W\x01\x04\x00\x00\x00\x03@\x05:pathH/org.pytorch.serve.grpc.inference.InferenceAPIsService/S\
          treamPredictions\xc3\x83\x86\xc2\xc1\xc0\xbf\x00\x00\x16\x00\x01\x00\x00\x00\x03\x00\x00\x00\x00\x11\
          \x0a\x04tiny\x1a\x09\x0a\x04data\x12\x01x\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\
          \x00\x08\x06\x00\x00\x00\x00\x00\x03^\xd7\x1c0}\xbd\x22"),
    (Side::Server, b"\x00\x00\x08\x06\x01\x00\x00\x00\x00\x03^\xd7\x1c0}\xbd\x22\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\
          \x00\x00\x16"),
    (Side::Server, b"\x00\x00\x03\x01\x04\x00\x00\x00\x03\x88\xc0\xbf\x00\x00\x08\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\
          \x03\x0a\x01A"),
    (Side::Server, b"\x00\x00\x08\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x03\x0a\x01B"),
    (Side::Server, b"\x00\x00\x08\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x03\x0a\x01C"),
    (Side::Server, b"\x00\x00\x10\x01\x05\x00\x00\x00\x03\xbe\x00\x0cgrpc-message\x00"),
    (Side::Client, b"\x00\x00\x08\x01\x04\x00\x00\x00\x05\xc4\xc3\x83\x86\xc2\xc1\xc0\xbf\x00\x00\x04\x08\x00\x00\x00\x00\
          \x05\x00\x00\x00\x05\x00\x00\x16\x00\x01\x00\x00\x00\x05\x00\x00\x00\x00\x11\x0a\x04nope\x1a\x09\x0a\
          \x04data\x12\x01x\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x1d"),
    (Side::Server, b"\x00\x00-\x01\x05\x00\x00\x00\x05\x88\xc0@\x0bgrpc-status\x015\x00\x0cgrpc-message\x0dno such model\
          \x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x16"),
    (Side::Client, b"\x00\x00\x1c\x01\x04\x00\x00\x00\x07\xc4\xc3\x83\x86\xc2\xc1\xc0@\x0cgrpc-timeout\x055010m\xc0\x00\
          \x00\x04\x08\x00\x00\x00\x00\x07\x00\x00\x00\x05\x00\x00$\x00\x01\x00\x00\x00\x07\x00\x00\x00\x00\
          \x1f\x0a\x04tiny\x12\x031.0\x1a\x12\x0a\x04data\x12\x0a{\x22inf\x22:20}"),
    (Side::Server, b"\x00\x00\x03\x01\x04\x00\x00\x00\x07\x88\xc1\xc0\x00\x00\x09\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\
          \x04\x0a\x02ok\x00\x00\x10\x01\x05\x00\x00\x00\x07\xbf\x00\x0cgrpc-message\x00\x00\x00\x04\x08\x00\
          \x00\x00\x00\x00\x00\x00\x00$"),
];

/// Plays what was sent.
fn replay(run: &mut Run, sent: &[(Side, &[u8])]) {
    for (side, bytes) in sent {
        match side {
            Side::Client => run.read(bytes),
            Side::Server => run.write(bytes),
        }
    }
}

#[test]
fn a_real_connection_gives_its_four_calls() {
    let mut run = Run::new();
    replay(&mut run, &SENT);
    run.connection.close(Unfinished::Unanswered, &mut run.out);
    assert!(run.others().is_empty(), "{:?}", run.others());
    let tiny = |version: Option<&str>| ModelName {
        by: NamedBy::Message,
        model: "tiny".into(),
        version: version.map(str::to_owned),
    };
    let nope = ModelName {
        by: NamedBy::Message,
        model: "nope".into(),
        version: None,
    };
    let calls: Vec<_> = run
        .finished()
        .into_iter()
        .map(|exchange| {
            let Exchange {
                request, response, ..
            } = exchange;
            let (_, method) = request.target.rsplit_once('/').unwrap();
            (
                method,
                *request.named.clone().unwrap(),
                (response.status, response.grpc_status),
                (request.bytes, response.bytes),
            )
        })
        .collect();
    assert_eq!(
        calls,
        [
            ("Predictions", tiny(Some("1.0")), (200, Some(0)), (311, 144)),
            ("StreamPredictions", tiny(None), (200, Some(0)), (127, 88)),
            ("Predictions", nope, (200, Some(5)), (48, 54)),
            ("Predictions", tiny(Some("1.0")), (200, Some(0)), (82, 55)),
        ]
    );
}

#[test]
fn a_real_connection_keeps_the_times_of_its_reads_and_writes() {
    let mut run = Run::new();
    replay(&mut run, &SENT);
    let at = |read: u64, first_write: u64, last_write: u64| {
        [
            Some(read * 1000 + 1),
            Some(read * 1000 + 2),
            Some(read * 1000 + 2),
            Some(first_write * 1000 + 3),
            Some(last_write * 1000 + 4),
        ]
    };
    let all: Vec<_> = run.finished().into_iter().map(times).collect();
    assert_eq!(
        all,
        [at(3, 6, 6), at(7, 9, 12), at(13, 14, 14), at(15, 16, 16)]
    );
}

#[test]
fn a_real_connection_cut_anywhere_is_the_same() {
    let reported = |run: &Run| -> Vec<_> {
        run.finished()
            .into_iter()
            .map(|exchange| {
                let request = &exchange.request;
                let named = (request.target.clone(), request.named.clone());
                (named, request.bytes, exchange.response.grpc_status)
            })
            .collect()
    };
    let mut whole = Run::new();
    replay(&mut whole, &SENT);
    for len in [1, 2, 7, 9, 50] {
        let mut run = Run::new();
        for (side, bytes) in SENT {
            let pieces: Vec<_> = bytes.chunks(len).map(|piece| (side, piece)).collect();
            replay(&mut run, &pieces);
        }
        assert_eq!(
            (reported(&run), run.others().len()),
            (reported(&whole), 0),
            "{len}"
        );
    }
}

#[test]
fn real_connection_joined_midway_counts_what_is_unknown() {
    let mut run = Run::joined();
    replay(&mut run, &SENT[12..]);
    let reported: Vec<_> = run
        .finished()
        .into_iter()
        .map(|exchange| {
            let request = &exchange.request;
            let model = request.named.as_ref().map(|named| named.model.as_str());
            let head = (request.method.as_str(), request.target.as_str(), model);
            (
                head,
                exchange.response.status,
                exchange.response.grpc_status,
            )
        })
        .collect();
    // The last `grpc-status` is an index of the first call's.
    assert_eq!(
        reported,
        [
            (("POST", "", Some("nope")), 200, Some(5)),
            (("POST", "", Some("tiny")), 200, None)
        ]
    );
    let lost = [Loss::HeadUnseen, Loss::HeadUnseen, Loss::StatusUnseen].map(Event::Lost);
    assert_eq!(run.others(), lost.iter().collect::<Vec<_>>());
    let all: Vec<_> = run.finished().into_iter().map(times).collect();
    let at = [
        [1001, 1002, 1002, 2003, 2004],
        [3001, 3002, 3002, 4003, 4004],
    ];
    assert_eq!(all, at.map(|times| times.map(Some)));
}
