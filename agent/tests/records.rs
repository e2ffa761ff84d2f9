//! Records make the same requests wherever reads and writes were cut, and no order of them does harm or takes memory.

mod events;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use inferprobe::{exchange::event::Event, pipeline::connections::ConnectionTable};
use inferprobe_ebpf::{
    abi::{Record, flag, kind, mode},
    view::RecordView,
};
use proptest::{collection::vec, prelude::*};

use events::Events;

/// Counts the bytes that a thread holds.
struct Counting;

thread_local! {
    static HELD_BYTES: Cell<isize> = const { Cell::new(0) };
}

fn hold(bytes: isize) {
    HELD_BYTES.set(HELD_BYTES.get() + bytes);
}

// SAFETY: memory comes from and goes to `System`, as it asks for it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        hold(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most that one connection may hold, bytes.
const CONNECTION_CAP_BYTES: isize = 2 << 20;

/// A ring's entry.
fn entry(record: Record, request: &[u8], response: &[u8]) -> Vec<u8> {
    let record = Record {
        request_len: u16::try_from(request.len()).expect("it is short"),
        response_len: u16::try_from(response.len()).expect("it is short"),
        ..record
    };
    [bytemuck::bytes_of(&record), request, response].concat()
}

/// A connection's records as the kernel half numbers them, all at the same time.
struct Conversation {
    table: ConnectionTable,
    out: Events,
    record: Record,
}

impl Conversation {
    fn new(mode: u8, flags: u8) -> Self {
        let record = Record {
            cookie: 1,
            mode,
            flags,
            ..Record::default()
        };
        Self {
            table: ConnectionTable::new(true),
            out: Events::default(),
            record,
        }
    }

    fn push(&mut self, kind: u8, request: &[u8], response: &[u8]) {
        let before = match kind {
            kind::PROGRESS => self.record.written_bytes,
            _ => 0,
        };
        self.record = Record {
            kind,
            seq: self.record.seq + 1,
            read_bytes: request.len() as u64,
            written_bytes: before + response.len() as u64,
            ..self.record
        };
        let entry = entry(self.record, request, response);
        self.table.on_record(&entry, &mut self.out);
    }

    /// Reads `request`, then writes `response`, both in pieces of these lengths.
    fn exchange(&mut self, request: &[u8], response: &[u8], read_len: usize, write_len: usize) {
        let mut reads = request.chunks(read_len);
        let last = reads.next_back().unwrap_or_default();
        for read in reads {
            self.push(kind::READ, read, b"");
        }
        let mut writes = response.chunks(write_len);
        self.push(kind::EXCHANGE, last, writes.next().unwrap_or_default());
        for write in writes {
            self.push(kind::PROGRESS, b"", write);
        }
    }
}

/// Whether a body comes in chunks, and its bytes.
fn body() -> impl Strategy<Value = Option<(bool, Vec<u8>)>> {
    proptest::option::of((any::<bool>(), vec(any::<u8>(), 0..300)))
}

fn with_body(start: &str, body: &Option<(bool, Vec<u8>)>) -> Vec<u8> {
    match body {
        None => format!("{start}\r\nContent-Length: 0\r\n\r\n").into_bytes(),
        Some((false, body)) => {
            let head = format!("{start}\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), body].concat()
        }
        Some((true, body)) => {
            let mut bytes = format!("{start}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
            for chunk in body.chunks(100) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            bytes
        }
    }
}

/// Method, target, status and bytes of each exchange; anything else as it is.
fn exchanges(out: &[Event]) -> Vec<(String, String, u16, u64, u64)> {
    let exchange = |outcome: &Event| match outcome {
        Event::Finished(exchange) => (
            exchange.request.method.clone(),
            exchange.request.target.clone(),
            exchange.response.status,
            exchange.request.bytes,
            exchange.response.bytes,
        ),
        other => panic!("{other:?}"),
    };
    out.iter().map(exchange).collect()
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
    fn requests_are_the_same_wherever_their_bytes_are_cut(
        exchanges_of in vec(("(GET|POST|PUT)", "/[a-z]{0,20}", body(), 200_u16..600, body(), 1_usize..400, 1_usize..400), 1..6),
    ) {
        let mut run = Conversation::new(mode::MESSAGES, flag::ARRIVAL_KNOWN);
        let mut expected = Vec::new();
        for (method, target, asked, status, answered, read_len, write_len) in exchanges_of {
            // These have no body.
            let answered = if matches!(status, 204 | 304) { None } else { answered };
            let request = with_body(&format!("{method} {target} HTTP/1.1"), &asked);
            let response = with_body(&format!("HTTP/1.1 {status} x"), &answered);
            run.exchange(&request, &response, read_len, write_len);
            expected.push((method, target, status, request.len() as u64, response.len() as u64));
        }
        prop_assert_eq!(exchanges(&run.out.0), expected);
    }

    #[test]
    fn pipelined_requests_are_paired_first_in_first_out(
        targets in vec("/[a-z]{1,9}", 1..20),
        read_len in 1_usize..1000,
        write_len in 1_usize..1000,
    ) {
        let requests: Vec<u8> = targets.iter().flat_map(|target| with_body(&format!("GET {target} HTTP/1.1"), &None)).collect();
        let responses: Vec<u8> = (0..targets.len()).flat_map(|index| with_body(&format!("HTTP/1.1 {} x", 210 + index), &None)).collect();
        let mut run = Conversation::new(mode::MESSAGES, 0);
        run.exchange(&requests, &responses, read_len, write_len);
        let found: Vec<(String, u16)> = exchanges(&run.out.0).into_iter().map(|(_, target, status, ..)| (target, status)).collect();
        let expected: Vec<(String, u16)> = targets.into_iter().zip(210..).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn an_entry_is_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let read = RecordView::parse(&bytes).map(|view| view.request.len() + view.response.len() + size_of::<Record>());
        prop_assert!(read.is_none_or(|read| read <= bytes.len()));
        ConnectionTable::new(true).on_record(&bytes, &mut Events::default());
    }

    #[test]
    fn no_order_of_records_does_harm(
        records in vec((0_u8..7, 0_u8..4, any::<u8>(), 0_u64..3, 0_u32..3, any::<u32>(), vec(any::<u8>(), 0..40)), 0..60),
        reads_payload in any::<bool>(),
    ) {
        let mut table = ConnectionTable::new(reads_payload);
        let mut out = Events::default();
        let mut seq = 0;
        for (at, (kind, mode, flags, cookie, gap, unseen, bytes)) in records.into_iter().enumerate() {
            seq += gap;
            let (request, response) = bytes.split_at(bytes.len() / 2);
            let record = Record {
                cookie,
                kind,
                mode,
                flags,
                seq,
                read_bytes: request.len() as u64 + u64::from(unseen),
                written_bytes: response.len() as u64 + u64::from(unseen),
                last_write_ns: u64::from(unseen),
                ..Record::default()
            };
            table.on_record(&entry(record, request, response), &mut out);
            table.tick(at as u64 * 100_000_000, |_, _| None, &mut out);
        }
    }
}

/// Tells `rounds` records, and panics if the connection comes to hold too much.
fn flood(what: &str, mode: u8, rounds: u32, mut record: impl FnMut(u32) -> (u8, Vec<u8>, Vec<u8>)) {
    let mut run = Conversation::new(mode, 0);
    let before = HELD_BYTES.get();
    for round in 0..rounds {
        let (kind, request, response) = record(round);
        run.push(kind, &request, &response);
        drop((request, response));
        run.out = Events::default();
        let held = HELD_BYTES.get() - before;
        assert!(
            held < CONNECTION_CAP_BYTES,
            "{what}: {held} bytes after {round} records"
        );
    }
}

fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len())
        .expect("it is short")
        .to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn a_hostile_peer_takes_bounded_memory() {
    let read = |bytes: Vec<u8>| (kind::READ, bytes, Vec::new());
    flood("requests without responses", mode::MESSAGES, 20_000, |_| {
        read(b"GET /a HTTP/1.1\r\n\r\n".repeat(30))
    });
    flood("a head without an end", mode::MESSAGES, 20_000, |round| {
        read(match round {
            0 => b"GET /a HTTP/1.1\r\n".to_vec(),
            _ => b"x-y: zzzzzzzzzz\r\n".repeat(50),
        })
    });
    flood("long targets", mode::MESSAGES, 5_000, |_| {
        read([&b"GET /"[..], &[b'a'; 900], b" HTTP/1.1\r\n\r\n"].concat())
    });
    flood(
        "bodies that name nothing",
        mode::MESSAGES,
        20_000,
        |round| {
            read(match round {
                0 => b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                _ => b"5\r\n{\"a\":\r\n".repeat(50),
            })
        },
    );
    flood(
        "a stream without an end",
        mode::MESSAGES,
        20_000,
        |round| match round {
            0 => {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                (kind::EXCHANGE, b"GET /a HTTP/1.1\r\n\r\n".to_vec(), head)
            }
            _ => (kind::PROGRESS, Vec::new(), b"1\r\na\r\n".repeat(90)),
        },
    );
    flood(
        "a response's head without an end",
        mode::MESSAGES,
        20_000,
        |round| match round {
            0 => (
                kind::EXCHANGE,
                b"GET /a HTTP/1.1\r\n\r\n".to_vec(),
                b"HTTP/1.1 200 OK\r\n".to_vec(),
            ),
            _ => (
                kind::PROGRESS,
                Vec::new(),
                b"x-y: zzzzzzzzzz\r\n".repeat(50),
            ),
        },
    );
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let hello = [&preface[..], &http2_frame(4, 0, 0, &[])].concat();
    flood(
        "streams without a response",
        mode::STREAMS,
        20_000,
        |round| {
            let message = http2_frame(0, 0, round * 2 - u32::from(round > 0), &[7; 250]);
            read(match round {
                0 => hello.clone(),
                // `:method: POST`, and a long `:path` that goes into the table.
                _ => {
                    let block = [&[0x83, 0x44, 0x7f, 0x85, 0x01][..], &[b'a'; 260]].concat();
                    [http2_frame(1, 4, round * 2 - 1, &block), message].concat()
                }
            })
        },
    );
    flood(
        "a header block without an end",
        mode::STREAMS,
        20_000,
        |round| {
            read(match round {
                0 => hello.clone(),
                1 => http2_frame(1, 0, 1, &[0x82]),
                _ => http2_frame(9, 0, 1, &[0x82; 900]),
            })
        },
    );
    flood("a batch without an end", mode::FRAMES, 20_000, |round| {
        read(match round {
            0 => b"I".to_vec(),
            _ => [&[0, 0, 0, 4][..], b"abcd", &[0xff; 4], &[0xff; 4]]
                .concat()
                .repeat(20),
        })
    });
    flood("texts without an end", mode::FRAMES, 20_000, |round| {
        read(match round {
            0 => b"I\x7f\xff\xff\xff".to_vec(),
            _ => vec![b'a'; 900],
        })
    });
    flood("frames without replies", mode::FRAMES, 20_000, |_| {
        read([&b"I"[..], &[0, 0, 0, 1, b'a'], &[0xff; 8], &[0xff; 4]].concat())
    });
}
