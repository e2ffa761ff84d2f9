//! Cases of whole requests, one after the other, with various heads and bodies.

use crate::server_cases::{
    expected::{Ending, Lenient},
    play::Play,
};

pub(super) fn one_after_another(play: &mut Play) {
    for (query, body_bytes) in [("sleep_ms=5", 10), ("body=3000", 3000), ("", 0), ("", 900)] {
        let bytes = play.post(query, body_bytes);
        play.exchange(&bytes);
    }
}

pub(super) fn codes(play: &mut Play) {
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

pub(super) fn bodiless(play: &mut Play) {
    let bytes = play.ask("HEAD", "body=1000", &[], b"");
    expect_admin(play);
    play.exchange(&bytes);
    for query in ["status=204", "status=304&body=77", ""] {
        let bytes = play.post(query, 10);
        play.exchange(&bytes);
    }
}

/// Expects that the latest request is no inference: by its method, or by its path.
fn expect_admin(play: &mut Play) {
    play.latest().purpose = "admin";
    play.latest().model.clear();
}

pub(super) fn get(play: &mut Play) {
    for _ in 0..3 {
        let bytes = play.ask("GET", "body=100", &["Accept: */*"], b"");
        expect_admin(play);
        play.exchange(&bytes);
    }
}

pub(super) fn admin(play: &mut Play) {
    let bytes = play.ask_at("GET", "/health", &[], b"");
    expect_admin(play);
    play.exchange(&bytes);
    let bytes = play.post("", 10);
    play.exchange(&bytes);
}

pub(super) fn big_head(play: &mut Play) {
    let fill = format!("X-Fill: {}", "f".repeat(6000));
    for _ in 0..2 {
        let bytes = play.ask("POST", "sleep_ms=3", &[&fill], &[b'x'; 300]);
        play.exchange(&bytes);
    }
}

pub(super) fn absolute_form(play: &mut Play) {
    for _ in 0..2 {
        let target = format!("http://test/v1/models/{}:predict", play.next_model());
        let bytes = play.ask_at("POST", &target, &[], b"{}");
        play.exchange(&bytes);
    }
}

pub(super) fn http_1_0(play: &mut Play) {
    let target = format!("/v1/models/{}:predict?body=700", play.next_model());
    let bytes =
        format!("POST {target} HTTP/1.0\r\nX-Case: http-1.0/0\r\nContent-Length: 3\r\n\r\nabc");
    play.note("POST", &target, bytes.as_bytes());
    play.send(bytes.as_bytes());
    play.receive_or(Ending::Unserved);
    play.latest().lenient = Lenient::No;
}

pub(super) fn leading_crlf(play: &mut Play) {
    let first = play.post("", 10);
    play.exchange(&first);
    play.filler(2);
    let second = play.post("", 10);
    play.send(&[b"\r\n", &second[..]].concat());
    play.receive_or(Ending::Unserved);
}

pub(super) fn model_in_the_body(play: &mut Play) {
    for status in [200, 201] {
        let body = format!(r#"{{"model": "{}", "messages": []}}"#, play.next_model());
        let target = format!("/v1/chat/completions?status={status}");
        let bytes = play.ask_at("POST", &target, &[], body.as_bytes());
        play.exchange(&bytes);
    }
}

pub(super) fn model_late_in_the_body(play: &mut Play) {
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

pub(super) fn websocket(play: &mut Play) {
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
