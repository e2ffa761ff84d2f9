//! Checks the pieces of streamed responses.

use super::*;
use crate::exchange::chunks::Framing;

fn message(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[0][..], &len, content].concat()
}

fn pieces(exchange: &Exchange) -> Option<(Option<u64>, u32, Vec<u64>, bool)> {
    let chunks = exchange.response.chunks.as_ref()?;
    let gaps_ns = chunks.gaps_ns().to_vec();
    Some((
        chunks.first_ns(),
        chunks.count(),
        gaps_ns,
        chunks.is_counted(),
    ))
}

#[test]
fn messages_of_a_call_are_its_pieces() {
    let mut run = Run::open();
    run.read(&ask(1)); // 3000
    run.write(&headers(1, OK, false)); // 4000
    run.write(&data(1, &message(b"one"), false)); // 5000
    run.write(&data(1, &message(&[2; 300])[..200], false)); // 6000
    run.write(
        &[
            data(1, &message(&[2; 300])[200..], false),
            data(1, &[message(b"3"), message(b"4")].concat(), false),
        ]
        .concat(),
    ); // 7000
    run.write(&headers(1, DONE, true));
    let exchange = run.finished()[0];
    let expected = (Some(5003), 4, vec![1000, 1000, 0], true);
    assert_eq!(pieces(exchange), Some(expected));
    assert!(exchange.response.chunks.as_ref().unwrap().is_stream());
}

#[test]
fn a_call_with_one_message_is_no_stream() {
    let mut run = Run::open();
    run.read(&ask(1));
    run.write(&response(1));
    let exchange = run.finished()[0];
    assert_eq!(pieces(exchange), Some((Some(4003), 1, vec![], true)));
    assert!(!exchange.response.chunks.as_ref().unwrap().is_stream());
}

#[test]
fn frames_are_the_pieces_of_what_is_no_call() {
    let get = &[(":method", "GET"), (":path", "/stream")];
    for (fields, framing) in [
        (&[(":status", "200")][..], Some(Framing::Unsaid)),
        (
            &[
                (":status", "200"),
                ("content-type", "text/event-stream; charset=utf-8"),
            ],
            Some(Framing::Events),
        ),
        (&[(":status", "200"), ("content-length", "10")], None),
    ] {
        let mut run = Run::open();
        run.read(&headers(1, get, true));
        run.write(&headers(1, fields, false)); // 4000
        run.write(&data(1, b"data: 1", false)); // 5000
        run.write(&data(1, b"data: 2", false)); // 6000
        run.write(&data(1, b"", true)); // 7000
        let exchange = run.finished()[0];
        let found = exchange.response.chunks.as_ref();
        assert_eq!(found.map(|chunks| chunks.framing()), framing);
        let expected = framing.map(|_| (Some(5003), 2, vec![1000], true));
        assert_eq!(pieces(exchange), expected);
        assert_eq!(exchange.response.last_write_ns, Some(7004));
    }
}

#[test]
fn messages_that_begin_in_a_gap_are_uncounted() {
    let mut run = Run::open();
    run.read(&ask(1));
    let both = [message(&[1; 100]), message(b"x"), message(b"y")].concat();
    run.write(&[headers(1, OK, false), data(1, &both, false)].concat());
    run.write(&headers(1, DONE, true));
    assert_eq!(
        pieces(run.finished()[0]),
        Some((Some(4003), 2, vec![0], false))
    );
}

const CHAT: &[(&str, &str)] = &[(":method", "POST"), (":path", "/v1/chat/completions")];
const USAGE: &str = r#""usage":{"prompt_tokens":7,"completion_tokens":4}}"#;

#[test]
fn tokens_of_an_event_stream_are_those_of_its_frames() {
    let mut run = Run::open();
    run.read(&headers(1, CHAT, true)); // 3000
    let stream = &[(":status", "200"), ("content-type", "text/event-stream")];
    run.write(&headers(1, stream, false)); // 4000
    let events = [
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n".to_owned(), // 5000
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n".to_owned(),        // 6000
        "\n".to_owned(),                                                             // 7000
        format!("data: {{\"pad\":\"{}\",{USAGE}\n\n", "x".repeat(9_000)),            // 8000
    ];
    for event in &events {
        run.write(&data(1, event.as_bytes(), false));
    }
    run.write(&data(1, b"data: [DONE]\n\n", true)); // 9000
    let generation = run.finished()[0].response.generation.as_ref().unwrap();
    assert_eq!(generation.first_ns(), Ok(Some(7003)));
    assert_eq!(generation.usage().output, Some(4));
}

#[test]
fn usage_of_a_long_json_response_is_in_its_last_frame() {
    let mut run = Run::open();
    let plain = &[(":status", "200"), ("content-type", "application/json")];
    let body = format!("{{\"text\":\"{}\",{USAGE}", "x".repeat(30_000));
    let (start, rest) = body.as_bytes().split_at(16_384);
    for stream in [1, 3] {
        run.read(&headers(stream, CHAT, true));
        run.write(&headers(stream, plain, false));
    }
    // Frames of two responses, side by side.
    for (part, ends) in [(start, false), (rest, true)] {
        for stream in [1, 3] {
            run.write(&data(stream, part, ends));
        }
    }
    let found = run.finished();
    let found = found
        .iter()
        .map(|exchange| exchange.response.generation.as_ref().unwrap());
    let found: Vec<_> = found.map(|generation| generation.usage().input).collect();
    assert_eq!(found, [Some(7), Some(7)]);
}
