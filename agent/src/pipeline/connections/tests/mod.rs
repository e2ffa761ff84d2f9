mod upgraded;

use super::*;
use crate::{exchange::event::Unfinished, torchserve::exchange::WorkerExchange};

impl WorkerSink for Vec<Event> {
    fn worked(&mut self, worked: WorkerExchange) {
        panic!("{worked:?}");
    }
}

fn entry(record: Record, request: &[u8], response: &[u8]) -> Vec<u8> {
    let record = Record {
        request_len: u16::try_from(request.len()).unwrap(),
        response_len: u16::try_from(response.len()).unwrap(),
        read_bytes: request.len() as u64,
        written_bytes: response.len() as u64,
        ..record
    };
    let mut entry = bytemuck::bytes_of(&record).to_vec();
    entry.extend(request);
    entry.extend(response);
    entry
}

fn request_of(cookie: u64, at_ns: u64) -> Vec<u8> {
    let record = Record {
        cookie,
        seq: 1,
        kind: kind::READ,
        last_read_ns: at_ns,
        ..Record::default()
    };
    entry(record, b"GET / HTTP/1.1\r\n\r\n", b"")
}

#[test]
fn a_flood_of_connections_is_bounded_and_counted() {
    let mut table = ConnectionTable::new(true);
    let mut out = Vec::new();
    let flood = CONNECTION_CAP as u64 + 100;
    for cookie in 1..=flood {
        table.on_record(&request_of(cookie, cookie), &mut out);
    }
    let kept = table.connections.len();
    assert!(kept <= CONNECTION_CAP);
    assert_eq!(out.len() + kept, usize::try_from(flood).unwrap());
    assert!(
        out.iter()
            .all(|outcome| *outcome == Event::Unfinished(Unfinished::Evicted))
    );
}

#[test]
fn a_connection_of_zeromq_counts_once() {
    const GREETING: &[u8] = b"\xff\0\0\0\0\0\0\0\x01\x7f";
    for (request, response) in [(GREETING, &b""[..]), (b"", GREETING)] {
        let mut table = ConnectionTable::new(true);
        let mut out = Vec::new();
        for (seq, bytes) in [(1, GREETING), (2, b"\x04\x19frame")] {
            let record = Record {
                cookie: 1,
                seq,
                kind: kind::EXCHANGE,
                last_read_ns: u64::from(seq),
                ..Record::default()
            };
            let sides = match seq {
                1 => (request, response),
                _ => (bytes, bytes),
            };
            table.on_record(&entry(record, sides.0, sides.1), &mut out);
        }
        assert_eq!(out, [Event::Lost(Loss::InnerProtocol)]);
        assert_eq!(table.connections[&1].connection.latest_ns(), 2);
    }
}

#[test]
fn a_silent_connection_with_an_open_request_is_kept() {
    let mut table = ConnectionTable::new(true);
    table.on_record(&request_of(1, 1), &mut Vec::new());
    table.tick(FORGET_NS * 2, |_, _| None, &mut Vec::new());
    assert_eq!(table.connections.len(), 1);
}

#[test]
fn a_unix_response_without_a_length_is_finished_when_quiet_for_long() {
    let mut table = ConnectionTable::new(true);
    let record = Record {
        cookie: 1,
        seq: 1,
        kind: kind::EXCHANGE,
        flags: flag::UNIX,
        last_write_ns: 1_000,
        ..Record::default()
    };
    let mut out = Vec::new();
    table.on_record(
        &entry(
            record,
            b"GET / HTTP/1.0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nhi",
        ),
        &mut out,
    );
    table.tick(2_000, |_, _| None, &mut out);
    assert!(out.is_empty());
    table.tick(29_000_000_000, |_, _| None, &mut out);
    assert!(out.is_empty());
    table.tick(31_000_000_000, |_, _| None, &mut out);
    let [Event::Finished(exchange)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(
        (exchange.response.status, exchange.response.last_write_ns),
        (200, None)
    );
}

#[test]
fn the_connections_of_a_worker_end_with_it() {
    let mut table = ConnectionTable::new(true);
    let record = Record {
        cookie: 1,
        seq: 1,
        tgid: 7,
        kind: kind::READ,
        mode: mode::FRAMES,
        flags: flag::UNIX,
        ..Record::default()
    };
    let mut out = Vec::new();
    table.on_record(&entry(record, b"I\0\0\0\x24", b""), &mut out);
    table.tick(1_000, |_, _| None, &mut out);
    table.on_process_exit(7);
    table.tick(2_000, |_, _| None, &mut out);
    assert!(out.is_empty());
    table.tick(1_000 + LAST_RECORDS_NS, |_, _| None, &mut out);
    assert_eq!(out, [Event::Lost(Loss::WorkerUnanswered)]);
    assert!(table.connections.is_empty());
}

#[test]
fn accept_is_reported_once_and_in_every_exchange_of_its_connection() {
    let mut table = ConnectionTable::new(true);
    let mut out = Vec::new();
    let accepted = |mode| Record {
        cookie: 1,
        arrival_ns: 40,
        first_read_ns: 100,
        tgid: 7,
        local_port: 80,
        peer_port: 81,
        kind: kind::ACCEPTED,
        mode,
        ..Record::default()
    };
    table.on_record(&entry(accepted(mode::FRAMES), b"", b""), &mut out);
    assert_eq!(out, []);
    let peer = Peer {
        cookie: 1,
        tgid: 7,
        local_port: Some(80),
        peer_port: Some(81),
        accepted_ns: None,
        client: None,
    };
    table.on_record(&entry(accepted(mode::MESSAGES), b"", b""), &mut out);
    assert_eq!(out, [Event::Accepted(peer, 60)]);
    for (cookie, seq, accepted_ns) in [(1, 1, Some(100)), (2, 1, None), (1, 2, Some(100))] {
        let record = Record {
            cookie,
            seq,
            kind: kind::EXCHANGE,
            ..Record::default()
        };
        let response = b"HTTP/1.1 204 No Content\r\n\r\n";
        out.clear();
        table.on_record(
            &entry(record, b"GET / HTTP/1.1\r\n\r\n", response),
            &mut out,
        );
        let [Event::Finished(exchange)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(exchange.peer.accepted_ns, accepted_ns);
    }
    assert!(table.accepted.is_empty());
}

#[test]
fn short_entries_are_counted() {
    let mut out = Vec::new();
    ConnectionTable::new(true).on_record(b"short", &mut out);
    assert_eq!(out, [Event::Lost(Loss::Malformed)]);
}
