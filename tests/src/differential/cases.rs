//! The cases: ways in which clients send, and servers read and answer, HTTP/1.1.
//!
//! Each makes its requests, plays them, and leaves in the play what must come out.

use crate::{
    client::request,
    differential::{
        expected::{Ending, Lenient},
        hosts::Kind,
        play::Play,
    },
};

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, in messages and marks.
    pub name: &'static str,
    /// Whether it means something to a server.
    pub on: fn(Kind) -> bool,
    /// Plays it.
    pub act: fn(&mut Play),
}

/// Every case, in an order that does not matter.
pub const CASES: &[Case] = &[
    any("one-after-another", one_after_another),
    any("codes", codes),
    any("bodiless", bodiless),
    any("get", get),
    any("admin", admin),
    any("big-head", big_head),
    any("absolute-form", absolute_form),
    any("http-1.0", http_1_0),
    any("leading-crlf", leading_crlf),
    any("close", close),
    any("close-before-another", close_before_another),
    any("connection-close", connection_close),
    any("body-like-a-request", body_like_a_request),
    any("early", early),
    any("early-sent-whole", early_sent_whole),
    any("pipelined", pipelined),
    any("pipelined-bodies", pipelined_bodies),
    any("pipelined-ten", pipelined_ten),
    any("pipelined-big-answers", pipelined_big_answers),
    any("second-while-first-runs", second_while_first_runs),
    any("third-while-first-runs", third_while_first_runs),
    any(
        "second-in-parts-while-first-runs",
        second_in_parts_while_first_runs,
    ),
    any("byte-by-byte", byte_by_byte),
    any("first-24-bytes", first_24_bytes),
    any("cut-anywhere", cut_anywhere),
    any("two-cut-anywhere", two_cut_anywhere),
    any("body-later", body_later),
    any("body-in-parts", body_in_parts),
    quick("big-body", big_body),
    any("continue", waits_to_continue),
    any("chunked", chunked),
    any("chunked-in-parts", chunked_in_parts),
    any("chunked-pipelined", chunked_pipelined),
    any("chunked-long", chunked_long),
    any("chunked-answer", chunked_answer),
    any("events", events),
    any("big-answer", big_answer),
    any("big-chunks", big_chunks),
    any("half-closed", half_closed),
    any("half-a-body", half_a_body),
    any("reset", reset),
    any("reset-in-the-body", reset_in_the_body),
    any("gone-idle", gone_idle),
    any("model-in-the-body", model_in_the_body),
    any("model-late-in-the-body", model_late_in_the_body),
    Case {
        name: "websocket",
        on: Kind::is_asgi,
        act: websocket,
    },
];

const fn any(name: &'static str, act: fn(&mut Play)) -> Case {
    let on = Kind::is_http1;
    Case { name, on, act }
}

/// A case with so many bytes that a server which reads one at a time is not asked.
const fn quick(name: &'static str, act: fn(&mut Play)) -> Case {
    let on = |kind: Kind| kind.is_http1() && !kind.is_slow();
    Case { name, on, act }
}

fn one_after_another(play: &mut Play) {
    for (query, body_bytes) in [("sleep_ms=5", 10), ("body=3000", 3000), ("", 0), ("", 900)] {
        let bytes = play.post(query, body_bytes);
        play.exchange(&bytes);
    }
}

fn codes(play: &mut Play) {
    for query in [
        "status=500",
        "status=404",
        "status=201",
        "status=503&sleep_ms=3",
    ] {
        let bytes = play.post(query, 10);
        play.exchange(&bytes);
    }
}

fn bodiless(play: &mut Play) {
    let bytes = play.ask("HEAD", "body=1000", &[], b"");
    play.exchange(&bytes);
    for query in ["status=204", "status=304&body=77", ""] {
        let bytes = play.post(query, 10);
        play.exchange(&bytes);
    }
}

fn get(play: &mut Play) {
    for _ in 0..3 {
        let bytes = play.ask("GET", "body=100", &["Accept: */*"], b"");
        play.exchange(&bytes);
    }
}

fn admin(play: &mut Play) {
    let bytes = play.ask_at("GET", "/health", &[], b"");
    play.latest().purpose = "admin";
    play.latest().model.clear();
    play.exchange(&bytes);
    let bytes = play.post("", 10);
    play.exchange(&bytes);
}

fn big_head(play: &mut Play) {
    let fill = format!("X-Fill: {}", "f".repeat(6000));
    for _ in 0..2 {
        let bytes = play.ask("POST", "sleep_ms=3", &[&fill], &[b'x'; 300]);
        play.exchange(&bytes);
    }
}

fn absolute_form(play: &mut Play) {
    for _ in 0..2 {
        let target = format!("http://test/v1/models/{}:predict", play.next_model());
        let bytes = play.ask_at("POST", &target, &[], b"{}");
        play.exchange(&bytes);
    }
}

fn http_1_0(play: &mut Play) {
    let target = format!("/v1/models/{}:predict?body=700", play.next_model());
    let bytes =
        format!("POST {target} HTTP/1.0\r\nX-Case: http-1.0/0\r\nContent-Length: 3\r\n\r\nabc");
    play.note("POST", &target, bytes.as_bytes());
    play.send(bytes.as_bytes());
    play.receive_or(Ending::Unserved);
    play.latest().lenient = Lenient::No;
}

fn leading_crlf(play: &mut Play) {
    let first = play.post("", 10);
    play.exchange(&first);
    play.filler(2);
    let second = play.post("", 10);
    play.send(&[b"\r\n", &second[..]].concat());
    play.receive_or(Ending::Unserved);
}

fn close(play: &mut Play) {
    let bytes = play.post("close=1&body=900", 10);
    play.exchange(&bytes);
}

fn close_before_another(play: &mut Play) {
    let first = play.ask("POST", "sleep_ms=10", &["Connection: close"], b"ab");
    let second = play.post("", 10);
    play.latest().ending = Ending::Unserved;
    play.send(&[first, second].concat());
    // Some servers refuse the first for what follows it.
    play.receive_or(Ending::Unserved);
}

fn connection_close(play: &mut Play) {
    let bytes = play.post("", 10);
    play.exchange(&bytes);
    let bytes = play.ask(
        "POST",
        "sleep_ms=2&body=2000",
        &["Connection: close"],
        b"ab",
    );
    play.exchange(&bytes);
}

/// Text that is a request to whoever loses count.
fn lookalike() -> Vec<u8> {
    let one = request("POST", "/v1/models/fake:predict", &[], &[b'y'; 50]);
    one.repeat(20)
}

fn body_like_a_request(play: &mut Play) {
    let body = lookalike();
    for _ in 0..2 {
        let bytes = play.ask("POST", "sleep_ms=3", &[], &body);
        let head = bytes.len() - body.len();
        let half = head + body.len() / 2 / 118 * 118;
        play.send_parts(&[&bytes[..head], &bytes[head..half], &bytes[half..]]);
        play.receive();
    }
}

fn early(play: &mut Play) {
    let body = lookalike().repeat(10);
    let bytes = play.ask("POST", "early=1&status=413", &[], &body);
    play.latest().lenient = Lenient::Early;
    let head = bytes.len() - body.len();
    play.send(&bytes[..head + 1000]);
    play.receive();
    // The server reads the rest, or ends the connection.
    let rest = play.try_send(&bytes[head + 1000..]);
    let next = play.post("", 10);
    if rest.and_then(|()| play.try_send(&next)).is_ok() {
        play.receive_or(Ending::Unserved);
    } else {
        play.latest().ending = Ending::Unserved;
    }
}

fn early_sent_whole(play: &mut Play) {
    let body = lookalike().repeat(4);
    let bytes = play.ask("POST", "early=1&status=413", &[], &body);
    play.latest().lenient = Lenient::Early;
    play.send(&bytes);
    play.receive();
    let next = play.post("", 10);
    if play.try_send(&next).is_ok() {
        play.receive_or(Ending::Unserved);
    } else {
        play.latest().ending = Ending::Unserved;
    }
}

/// Sends requests in one call, and reads all their answers.
fn together(play: &mut Play, requests: &[Vec<u8>]) {
    play.send(&requests.concat());
    for _ in requests {
        play.receive();
    }
}

fn pipelined(play: &mut Play) {
    let all = [
        play.post("body=10", 20),
        play.post("status=500", 0),
        play.post("sleep_ms=5", 3),
    ];
    together(play, &all);
}

fn pipelined_bodies(play: &mut Play) {
    let all = [
        play.post("body=10", 600),
        play.post("status=500&sleep_ms=20", 600),
        play.post("status=201", 600),
    ];
    together(play, &all);
    let next = play.post("", 600);
    play.exchange(&next);
}

fn pipelined_ten(play: &mut Play) {
    let all: Vec<_> = (0..10)
        .map(|n| play.post(&format!("status={}", 200 + n % 4), 0))
        .collect();
    together(play, &all);
}

fn pipelined_big_answers(play: &mut Play) {
    let all = [
        play.post("body=100000", 20),
        play.post("body=200000&status=201", 30),
        play.post("chunks=3&body=50000", 3),
    ];
    together(play, &all);
}

fn second_while_first_runs(play: &mut Play) {
    let first = play.post("sleep_ms=150", 30);
    let second = play.post("status=201&sleep_ms=5", 30);
    play.send_parts(&[&first, &second]);
    play.receive();
    play.receive();
}

fn third_while_first_runs(play: &mut Play) {
    let first = play.post("sleep_ms=150&body=2000", 30);
    let second = play.post("status=500&sleep_ms=5", 2000);
    let third = play.post("status=201&chunks=2", 700);
    play.send_parts(&[&first, &second, &third]);
    for _ in 0..3 {
        play.receive();
    }
}

fn second_in_parts_while_first_runs(play: &mut Play) {
    let first = play.post("sleep_ms=200", 30);
    let second = play.post("status=201", 1500);
    play.send_parts(&[&first, &second[..9], &second[9..700], &second[700..]]);
    play.receive();
    play.receive();
}

fn byte_by_byte(play: &mut Play) {
    let bytes = play.post("", 3);
    let end = bytes.len() - 12;
    let parts = bytes[..12].chunks(1);
    let parts = parts.chain([&bytes[12..end]]);
    let parts: Vec<&[u8]> = parts.chain(bytes[end..].chunks(1)).collect();
    play.send_parts(&parts);
    play.receive();
    let bytes = play.post("status=201", 3);
    play.exchange(&bytes);
}

fn first_24_bytes(play: &mut Play) {
    let bytes = play.post("sleep_ms=3", 100);
    play.send_parts(&[&bytes[..24], &bytes[24..]]);
    play.receive();
    let bytes = play.post("status=201", 100);
    play.exchange(&bytes);
}

fn cut_anywhere(play: &mut Play) {
    for cut in [1, 5, 16, 40] {
        let bytes = play.post("", 30);
        play.send_parts(&[&bytes[..cut], &bytes[cut..]]);
        play.receive();
    }
    for behind in [1, 30, 31, 32, 33, 34] {
        let bytes = play.post("", 30);
        let cut = bytes.len() - behind;
        play.send_parts(&[&bytes[..cut], &bytes[cut..]]);
        play.receive();
    }
}

fn two_cut_anywhere(play: &mut Play) {
    for cut in [1, 3, 40, 90] {
        let first = play.post("", 30);
        let second = play.post("status=201", 40);
        let bytes = [&first[..], &second].concat();
        let cut = first.len() + cut;
        play.send_parts(&[&bytes[..cut], &bytes[cut..]]);
        play.receive();
        play.receive();
    }
}

fn body_later(play: &mut Play) {
    for _ in 0..2 {
        let bytes = play.post("sleep_ms=3", 1000);
        let (head, body) = bytes.split_at(bytes.len() - 1000);
        play.send_parts(&[head, &body[..10], &body[10..]]);
        play.receive();
    }
}

fn body_in_parts(play: &mut Play) {
    let bytes = play.post("sleep_ms=3", 40_000);
    let parts: Vec<&[u8]> = bytes.chunks(5000).collect();
    play.send_parts(&parts);
    play.receive();
    let bytes = play.post("status=201", 10);
    play.exchange(&bytes);
}

fn big_body(play: &mut Play) {
    for _ in 0..2 {
        let bytes = play.post("sleep_ms=3", 5_000_000);
        play.exchange(&bytes);
    }
}

fn waits_to_continue(play: &mut Play) {
    let fields = ["Expect: 100-continue"];
    let bytes = play.ask("POST", "sleep_ms=3&status=201", &fields, &[b'x'; 5000]);
    let (head, body) = bytes.split_at(bytes.len() - 5000);
    play.send(head);
    let client = play.client.as_mut().expect("the client is there");
    let interim = client.receive_one(false).expect("an interim answer");
    assert_eq!(interim.status, 100);
    play.send(body);
    play.receive();
    let bytes = play.post("", 10);
    play.exchange(&bytes);
}

/// A body in chunks of these sizes.
fn in_chunks(sizes: &[usize]) -> Vec<u8> {
    let mut body = Vec::new();
    for size in sizes {
        body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        body.extend(std::iter::repeat_n(b'c', *size));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

const CHUNKED: &[&str] = &["Transfer-Encoding: chunked"];

fn chunked(play: &mut Play) {
    for sizes in [&[5, 300, 1][..], &[2000], &[]] {
        let bytes = play.ask("POST", "sleep_ms=2", CHUNKED, &in_chunks(sizes));
        play.exchange(&bytes);
    }
}

fn chunked_in_parts(play: &mut Play) {
    let body = in_chunks(&[5, 300]);
    for behind in [1, 2, 3, 4, 5, 7, 200, 310] {
        let bytes = play.ask("POST", "", CHUNKED, &body);
        let (head, cut) = (bytes.len() - body.len(), bytes.len() - behind);
        let (head, cut) = (head.min(cut), cut.max(head));
        play.send_parts(&[&bytes[..head], &bytes[head..cut], &bytes[cut..]]);
        play.receive();
    }
}

fn chunked_pipelined(play: &mut Play) {
    let all = [
        play.ask("POST", "", CHUNKED, &in_chunks(&[10, 20])),
        play.ask(
            "POST",
            "status=500&sleep_ms=10",
            CHUNKED,
            &in_chunks(&[600]),
        ),
        play.post("status=201", 20),
        play.ask("POST", "status=202", CHUNKED, &in_chunks(&[700, 3])),
        play.post("status=203", 0),
    ];
    together(play, &all);
}

fn chunked_long(play: &mut Play) {
    for _ in 0..2 {
        let body = in_chunks(&[30_000, 4000, 9]);
        let bytes = play.ask("POST", "sleep_ms=2", CHUNKED, &body);
        let (head, rest) = bytes.split_at(bytes.len() - body.len());
        play.send_parts(&[head, &rest[..20_000], &rest[20_000..]]);
        play.receive();
    }
}

fn chunked_answer(play: &mut Play) {
    for query in [
        "chunks=5&gap_ms=20&body=40",
        "chunks=20&body=40",
        "chunks=1&body=4",
    ] {
        let bytes = play.post(query, 10);
        play.exchange(&bytes);
    }
}

fn events(play: &mut Play) {
    for query in [
        "events=1&chunks=4&gap_ms=20&body=40",
        "events=1&chunks=30&body=900",
    ] {
        let bytes = play.post(query, 10);
        play.exchange(&bytes);
    }
}

fn big_answer(play: &mut Play) {
    for _ in 0..2 {
        let bytes = play.post("body=3000000", 10);
        play.exchange(&bytes);
    }
}

fn big_chunks(play: &mut Play) {
    for _ in 0..2 {
        let bytes = play.post("chunks=3&body=300000", 10);
        play.exchange(&bytes);
    }
}

fn half_closed(play: &mut Play) {
    let bytes = play.post("sleep_ms=50", 10);
    play.send(&bytes);
    finish_sending(play);
    // Some servers take the end of a direction for the end of the client.
    play.receive_or(Ending::Unanswered);
}

fn half_a_body(play: &mut Play) {
    let bytes = play.post("sleep_ms=10", 1000);
    play.send(&bytes[..bytes.len() - 500]);
    finish_sending(play);
    play.receive_or(Ending::Unanswered);
}

fn finish_sending(play: &mut Play) {
    play.until_read();
    let client = play.client.as_mut().expect("the client is there");
    client.finish_sending().expect("the connection is open");
}

fn reset(play: &mut Play) {
    let bytes = play.post("", 10);
    play.exchange(&bytes);
    let bytes = play.post("sleep_ms=300", 10);
    play.latest().ending = Ending::Unanswered;
    play.send(&bytes);
    play.until_read();
    play.reset();
}

fn reset_in_the_body(play: &mut Play) {
    let bytes = play.post("", 1000);
    play.latest().ending = Ending::Unanswered;
    play.send(&bytes[..bytes.len() - 500]);
    play.until_read();
    play.reset();
}

fn gone_idle(play: &mut Play) {
    let bytes = play.post("", 10);
    play.exchange(&bytes);
    play.client = None;
}

fn model_in_the_body(play: &mut Play) {
    for status in [200, 201] {
        let body = format!(r#"{{"model": "{}", "messages": []}}"#, play.next_model());
        let target = format!("/v1/chat/completions?status={status}");
        let bytes = play.ask_at("POST", &target, &[], body.as_bytes());
        play.exchange(&bytes);
    }
}

fn model_late_in_the_body(play: &mut Play) {
    let filling = "word ".repeat(300);
    for _ in 0..2 {
        let body = format!(
            r#"{{"messages": [{{"role": "user", "content": "the \"model\": {filling}"}}], "model": "{}"}}"#,
            play.next_model()
        );
        let bytes = play.ask_at("POST", "/v1/chat/completions", &[], body.as_bytes());
        let head = bytes.len() - body.len();
        play.send_parts(&[
            &bytes[..head],
            &bytes[head..head + 900],
            &bytes[head + 900..],
        ]);
        play.receive();
    }
}

fn websocket(play: &mut Play) {
    let bytes = play.ask(
        "GET",
        "",
        &[
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ],
        b"",
    );
    play.latest().lenient = Lenient::Shared;
    play.latest().status = 101;
    play.latest().code = 101;
    play.send(&bytes);
    let client = play.client.as_mut().expect("the client is there");
    let answer = client.receive_one(false).expect("an answer to the upgrade");
    assert_eq!(answer.status, 101);
    // A masked frame of 40 bytes that look like a request, with the mask zero; it comes back without the mask.
    for _ in 0..3 {
        let text = b"POST /v1/models/fake:predict HTTP/1.1\r\n\r\n";
        let frame = [&[0x82, 0x80 | 41, 0, 0, 0, 0], &text[..]].concat();
        let client = play.client.as_mut().expect("the client is there");
        client.send(&frame).expect("the server reads");
        let echo = client.receive_bytes(43).expect("the server echoes");
        assert_eq!(echo[2..], text[..]);
    }
}
