//! Checks connections that began as HTTP/1.1 and were upgraded, in records as the kernel half sends them.

use super::*;
use crate::{
    exchange::Exchange,
    protocol::http2::{
        PREFACE,
        encode::{data, headers, settings},
    },
};

const OK: &[(&str, &str)] = &[(":status", "200")];
const ASK_H2C: &[u8] = b"GET /slow HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n";
const AGREED: &[u8] = b"HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";

/// Records of one connection, 1000 ns apart, and what came of them.
struct Records {
    table: ConnectionTable,
    /// Numbers of the latest record of either side.
    seqs: [u32; 2],
    now_ns: u64,
    written_bytes: u64,
    out: Vec<Event>,
}

impl Records {
    fn new() -> Self {
        Self {
            table: ConnectionTable::new(true),
            seqs: [0; 2],
            now_ns: 0,
            written_bytes: 0,
            out: Vec::new(),
        }
    }

    fn record(&mut self, record: Record, read: &[u8], written: &[u8]) {
        self.now_ns += 1000;
        let side = usize::from(record.flags & flag::RESPONSES != 0);
        self.seqs[side] += 1;
        let record = Record {
            cookie: 1,
            seq: self.seqs[side],
            first_read_ns: self.now_ns + 2,
            last_read_ns: self.now_ns + 2,
            read_bytes: read.len() as u64,
            first_write_ns: self.now_ns + 3,
            last_write_ns: self.now_ns + 4,
            request_len: u16::try_from(read.len()).unwrap(),
            response_len: u16::try_from(written.len()).unwrap(),
            ..record
        };
        let entry = [bytemuck::bytes_of(&record), read, written].concat();
        self.table.on_record(&entry, &mut self.out);
    }

    /// A request and its response over HTTP/1.
    fn exchange(&mut self, read: &[u8], written: &[u8]) {
        let record = Record {
            kind: kind::EXCHANGE,
            written_bytes: written.len() as u64,
            ..Record::default()
        };
        self.record(record, read, written);
    }

    fn read(&mut self, spoken: u8, read: &[u8]) {
        let record = Record {
            kind: kind::READ,
            mode: spoken,
            ..Record::default()
        };
        self.record(record, read, b"");
    }

    /// A write of HTTP/2.
    fn write(&mut self, written: &[u8]) {
        self.written_bytes += written.len() as u64;
        let record = Record {
            kind: kind::PROGRESS,
            mode: mode::STREAMS,
            flags: flag::RESPONSES,
            written_bytes: self.written_bytes,
            ..Record::default()
        };
        self.record(record, b"", written);
    }

    /// Path, status and times of the only exchange; nothing else may have happened.
    fn exchanged(&self) -> (&str, u16, [Option<u64>; 5]) {
        let [Event::Finished(exchange)] = &self.out[..] else {
            panic!("{:?}", self.out)
        };
        let Exchange {
            request, response, ..
        } = exchange;
        let times = [
            request.arrival_ns,
            Some(request.first_read_ns),
            Some(request.last_read_ns),
            Some(response.first_write_ns),
            response.last_write_ns,
        ];
        (&request.target, response.status, times)
    }
}

const MESSAGES: u8 = mode::MESSAGES;
const STREAMS: u8 = mode::STREAMS;

fn hello() -> Vec<u8> {
    [&PREFACE[..], &settings()].concat()
}

fn ask(stream: u32) -> Vec<u8> {
    headers(stream, &[(":method", "GET"), (":path", "/next")], true)
}

fn answered() -> Vec<u8> {
    [headers(1, OK, false), data(1, b"done", true)].concat()
}

#[test]
fn the_first_frames_behind_the_agreement_are_followed() {
    let mut records = Records::new();
    records.read(MESSAGES, ASK_H2C); // 1000
    records.write(&[AGREED, &settings()].concat());
    records.read(STREAMS, &hello());
    records.write(&answered()); // 4000
    let expected = [None, Some(1002), Some(1002), Some(4003), Some(4004)];
    assert_eq!(records.exchanged(), ("/slow", 200, expected));
}

#[test]
fn the_response_may_be_in_the_write_of_the_agreement() {
    let mut records = Records::new();
    records.read(MESSAGES, ASK_H2C);
    records.write(&[AGREED, &settings(), &answered()].concat());
    let expected = [None, Some(1002), Some(1002), Some(2003), Some(2004)];
    assert_eq!(records.exchanged(), ("/slow", 200, expected));
}

#[test]
fn the_first_frames_may_be_a_write_of_their_own() {
    let mut records = Records::new();
    records.exchange(ASK_H2C, AGREED); // 1000
    records.write(&settings());
    records.write(&answered()); // 3000
    let expected = [None, Some(1002), Some(1002), Some(3003), Some(3004)];
    assert_eq!(records.exchanged(), ("/slow", 200, expected));
}

#[test]
fn the_client_may_be_read_before_the_servers_first_frame() {
    let mut records = Records::new();
    records.exchange(ASK_H2C, AGREED); // 1000
    records.read(STREAMS, &hello());
    records.write(&[settings(), answered()].concat()); // 3000
    let expected = [None, Some(1002), Some(1002), Some(3003), Some(3004)];
    assert_eq!(records.exchanged(), ("/slow", 200, expected));
}

#[test]
fn later_requests_of_an_upgraded_connection_count_on() {
    let mut records = Records::new();
    records.exchange(
        b"GET /first HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    );
    records.read(MESSAGES, ASK_H2C);
    records.write(&[AGREED, &settings(), &answered()].concat());
    records.read(STREAMS, &[hello(), ask(3)].concat());
    records.write(&headers(3, OK, true));
    let reported: Vec<_> = records
        .out
        .iter()
        .map(|outcome| match outcome {
            Event::Finished(exchange) => (exchange.request.index, exchange.request.target.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reported, [(0, "/first"), (1, "/slow"), (2, "/next")]);
}

#[test]
fn upgrade_that_ends_without_a_response_is_unfinished() {
    for spoken in [MESSAGES, STREAMS] {
        let mut records = Records::new();
        records.exchange(ASK_H2C, AGREED);
        if spoken == STREAMS {
            records.write(&settings());
        }
        let record = Record {
            kind: kind::CLOSE,
            mode: spoken,
            ..Record::default()
        };
        records.record(record, b"", b"");
        let [ended, Event::Abandoned(..)] = &records.out[..] else {
            panic!("{:?}", records.out)
        };
        assert_eq!(*ended, Event::Unfinished(Unfinished::Unanswered));
    }
}

#[test]
fn an_upgrade_that_cannot_be_followed_is_counted() {
    let mut records = Records::new();
    records.exchange(ASK_H2C, AGREED);
    records.read(MESSAGES, &hello());
    assert_eq!(
        records.out,
        [
            Event::Lost(Loss::Http2Unfollowed),
            Event::Unfinished(Unfinished::LostRecords)
        ]
    );
}

#[test]
fn missing_record_of_either_side_drops_the_connection() {
    for side in [0, 1] {
        let mut records = Records::new();
        records.read(STREAMS, &[hello(), ask(1)].concat());
        records.seqs[side] += 1;
        records.write(&settings());
        records.read(STREAMS, &ask(3));
        records.write(&answered());
        let expected = [
            Event::Lost(Loss::Resynchronised),
            Event::Lost(Loss::Http2Unfollowed),
            Event::Unfinished(Unfinished::LostRecords),
        ];
        assert_eq!(records.out[..3], expected, "side {side}");
    }
}
