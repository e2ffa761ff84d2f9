//! Cases of requests that arrive in parts.

use crate::server_cases::{cases::ends::lookalike, play::Play};

pub(super) fn byte_by_byte(play: &mut Play) {
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

pub(super) fn first_24_bytes(play: &mut Play) {
    let bytes = play.post("sleep_ms=3", 100);
    play.send_parts(&[&bytes[..24], &bytes[24..]]);
    play.receive();
    let bytes = play.post("status=201", 100);
    play.exchange(&bytes);
}

pub(super) fn cut_anywhere(play: &mut Play) {
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

pub(super) fn body_later(play: &mut Play) {
    for _ in 0..2 {
        let bytes = play.post("sleep_ms=3", 1000);
        let (head, body) = bytes.split_at(bytes.len() - 1000);
        play.send_parts(&[head, &body[..10], &body[10..]]);
        play.receive();
    }
}

pub(super) fn body_in_parts(play: &mut Play) {
    let bytes = play.post("sleep_ms=3", 40_000);
    let parts: Vec<&[u8]> = bytes.chunks(5000).collect();
    play.send_parts(&parts);
    play.receive();
    let bytes = play.post("status=201", 10);
    play.exchange(&bytes);
}

pub(super) fn big_body(play: &mut Play) {
    for _ in 0..2 {
        let bytes = play.post("sleep_ms=3", 5_000_000);
        play.exchange(&bytes);
    }
}

pub(super) fn waits_to_continue(play: &mut Play) {
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

pub(super) fn body_like_a_request(play: &mut Play) {
    let body = lookalike();
    for _ in 0..2 {
        let bytes = play.ask("POST", "sleep_ms=3", &[], &body);
        let head = bytes.len() - body.len();
        let half = head + body.len() / 2 / 118 * 118;
        play.send_parts(&[&bytes[..head], &bytes[head..half], &bytes[half..]]);
        play.receive();
    }
}
