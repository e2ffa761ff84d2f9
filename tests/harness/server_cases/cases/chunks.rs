//! Cases of chunked requests and responses, and of long responses.

use crate::server_cases::{cases::together::together, play::Play};

/// Returns a body in chunks of these sizes.
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

pub(super) fn chunked(play: &mut Play) {
    for sizes in [&[5, 300, 1][..], &[2000], &[]] {
        let bytes = play.ask("POST", "sleep_ms=2", CHUNKED, &in_chunks(sizes));
        play.exchange(&bytes);
    }
}

pub(super) fn chunked_in_parts(play: &mut Play) {
    let body = in_chunks(&[5, 300]);
    for behind in [1, 2, 3, 4, 5, 7, 200, 310] {
        let bytes = play.ask("POST", "", CHUNKED, &body);
        let (head, cut) = (bytes.len() - body.len(), bytes.len() - behind);
        let (head, cut) = (head.min(cut), cut.max(head));
        play.send_parts(&[&bytes[..head], &bytes[head..cut], &bytes[cut..]]);
        play.receive();
    }
}

pub(super) fn chunked_pipelined(play: &mut Play) {
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

pub(super) fn chunked_long(play: &mut Play) {
    for _ in 0..2 {
        let body = in_chunks(&[30_000, 4000, 9]);
        let bytes = play.ask("POST", "sleep_ms=2", CHUNKED, &body);
        let (head, rest) = bytes.split_at(bytes.len() - body.len());
        play.send_parts(&[head, &rest[..20_000], &rest[20_000..]]);
        play.receive();
    }
}

pub(super) fn chunked_answer(play: &mut Play) {
    for query in [
        "chunks=5&gap_ms=20&body=40",
        "chunks=20&body=40",
        "chunks=1&body=4",
    ] {
        let bytes = play.post(query, 10);
        play.exchange(&bytes);
    }
}

pub(super) fn events(play: &mut Play) {
    for query in [
        "events=1&chunks=4&gap_ms=20&body=40",
        "events=1&chunks=30&body=900",
    ] {
        let bytes = play.post(query, 10);
        play.exchange(&bytes);
    }
}

pub(super) fn big_answer(play: &mut Play) {
    for _ in 0..2 {
        let bytes = play.post("body=3000000", 10);
        play.exchange(&bytes);
    }
}

pub(super) fn big_chunks(play: &mut Play) {
    for _ in 0..2 {
        let bytes = play.post("chunks=3&body=300000", 10);
        play.exchange(&bytes);
    }
}
