//! Tests which plaintext is joined with which connection, and what ends a join.

use inferprobe_ebpf::abi::Record;

use super::*;
use crate::exchange::tls::plaintext::stream::Taken;

/// A process, two threads of it, and two connections of its library.
const TGID: u32 = 7;
const THREADS: [u32; 2] = [70, 71];
const LIBRARY: [u64; 2] = [0x1000, 0x2000];
/// Sockets.
const COOKIES: [u64; 2] = [5, 6];

/// The library of one process.
#[derive(Default)]
struct Library {
    plaintexts: Plaintexts,
    numbers: HashMap<u32, u32>,
}

impl Library {
    fn push(&mut self, tid: u32, record: Record, request: &[u8], response: &[u8]) {
        let number = self.numbers.entry(tid).or_default();
        *number += 1;
        let record = Record {
            kind: if record.kind == 0 {
                kind::PLAINTEXT
            } else {
                record.kind
            },
            tgid: TGID,
            reader_tid: tid,
            seq: *number,
            ..record
        };
        self.plaintexts.push(&RecordView {
            record,
            request,
            response,
            arrived: &[],
        });
    }

    fn read(&mut self, tid: u32, connection: u64, bytes: &[u8]) {
        let record = Record {
            cookie: connection,
            read_bytes: bytes.len() as u64,
            ..Record::NONE
        };
        self.push(tid, record, bytes, &[]);
    }

    fn write(&mut self, tid: u32, connection: u64, bytes: &[u8]) {
        let record = Record {
            cookie: connection,
            written_bytes: bytes.len() as u64,
            ..Record::NONE
        };
        let copied = &bytes[..bytes.len().min(1 << 14)];
        self.push(tid, record, &[], copied);
    }

    fn cut(&mut self, tid: u32, connection: u64, written_bytes: u64) {
        let record = Record {
            kind: kind::PLAINTEXT_CUT,
            cookie: connection,
            written_bytes,
            ..Record::NONE
        };
        self.push(tid, record, &[], &[]);
    }

    /// Joins the first socket with what it would read and write.
    fn join(&self, tid: u32, request: &[u32], written: u32) -> Option<StreamId> {
        self.plaintexts
            .join(COOKIES[0], TGID, Some(tid), request, written)
    }
}

fn next(bytes: u64, visible: &[u8]) -> Fit {
    Fit::Next(Taken {
        bytes,
        visible: visible.to_vec(),
    })
}

#[test]
fn a_join_takes_both_lengths_and_the_thread() {
    let [one, other] = THREADS;
    let mut library = Library::default();
    library.read(one, LIBRARY[0], b"request");
    library.write(one, LIBRARY[0], b"response");
    for (tid, request, written) in [
        (other, &[7][..], 8),
        (one, &[6], 8),
        (one, &[7, 1], 8),
        (one, &[], 8),
        (one, &[7], 9),
    ] {
        assert_eq!(library.join(tid, request, written), None, "{request:?}");
    }
    let id = (TGID, LIBRARY[0]);
    assert_eq!(library.join(one, &[7], 8), Some(id));
    // It is none of another socket's.
    assert_eq!(library.join(one, &[7], 8), None);
    let taken = |cookie| library.plaintexts.take_read(id, cookie, 7);
    assert_eq!(taken(COOKIES[1]), Fit::Other);
    assert_eq!(taken(COOKIES[0]), next(7, b"request"));
    let written = library.plaintexts.take_write(id, COOKIES[0], 8);
    assert_eq!(written, next(8, b"response"));
}

#[test]
fn two_that_fit_are_none() {
    let tid = THREADS[0];
    let mut library = Library::default();
    for connection in LIBRARY {
        library.read(tid, connection, b"request");
        library.write(tid, connection, b"response");
    }
    assert_eq!(library.join(tid, &[7], 8), None);
    // The next turn of one decides.
    library.read(tid, LIBRARY[1], b"another");
    library.write(tid, LIBRARY[1], b"answer");
    assert_eq!(library.join(tid, &[7], 6), Some((TGID, LIBRARY[1])));
}

#[test]
fn a_record_is_read_in_pieces_and_a_write_sent_in_records() {
    let tid = THREADS[0];
    let mut library = Library::default();
    let long = vec![b'y'; 20_000];
    library.read(tid, LIBRARY[0], b"GET ");
    library.read(tid, LIBRARY[0], b"/ HTTP");
    library.read(tid, LIBRARY[0], b"body");
    library.write(tid, LIBRARY[0], &long);
    // The second piece ends within no record of these.
    assert_eq!(library.join(tid, &[7, 7], 16_384), None);
    let id = library.join(tid, &[10, 4], 16_384).unwrap();
    let plaintexts = &library.plaintexts;
    let take = |bytes| plaintexts.take_read(id, COOKIES[0], bytes);
    assert_eq!(take(10), next(10, b"GET / HTTP"));
    assert_eq!(take(4), next(4, b"body"));
    let take = |bytes| plaintexts.take_write(id, COOKIES[0], bytes);
    assert_eq!(take(16_384), next(16_384, &long[..16_384]));
    // The rest was not copied.
    assert_eq!(take(3_616), next(3_616, b""));
    // Alerts and new keys are nobody's; anything else ends the join.
    assert_eq!([take(2), take(5)], [Fit::Control, Fit::Control]);
    assert_eq!(take(250), Fit::Other);
}

#[test]
fn a_write_that_is_repeated_counts_once() {
    let tid = THREADS[0];
    let mut library = Library::default();
    library.read(tid, LIBRARY[0], b"request");
    library.write(tid, LIBRARY[0], b"response");
    library.cut(tid, LIBRARY[0], 0);
    library.write(tid, LIBRARY[0], b"response");
    let id = library.join(tid, &[7], 8).unwrap();
    let plaintexts = library.plaintexts.clone();
    let take = |bytes| plaintexts.take_write(id, COOKIES[0], bytes);
    assert_eq!(take(8), next(8, b"response"));
    // Written in part, the rest is another write.
    library.write(tid, LIBRARY[0], b"one and two");
    library.cut(tid, LIBRARY[0], 3);
    library.write(tid, LIBRARY[0], b" and two");
    assert_eq!(take(3), next(3, b"one"));
    assert_eq!(take(8), next(8, b" and two"));
}

#[test]
fn a_missing_record_ends_the_joins_of_its_process() {
    let tid = THREADS[0];
    let mut library = Library::default();
    library.read(tid, LIBRARY[0], b"request");
    library.write(tid, LIBRARY[0], b"response");
    let id = library.join(tid, &[7], 8).unwrap();
    *library.numbers.get_mut(&tid).unwrap() += 1;
    library.read(tid, LIBRARY[1], b"request");
    let taken = library.plaintexts.take_read(id, COOKIES[0], 7);
    assert_eq!(taken, Fit::Other);
    library.write(tid, LIBRARY[1], b"response");
    assert_eq!(library.join(tid, &[7], 8), Some((TGID, LIBRARY[1])));
    library.plaintexts.forget(TGID);
    assert!(library.plaintexts.lock().streams.is_empty());
}

#[test]
fn what_waits_is_bounded() {
    let tid = THREADS[0];
    let mut library = Library::default();
    for _ in 0..100_000 {
        library.read(tid, LIBRARY[0], b"0123456789abcdef");
        library.write(tid, LIBRARY[1], b"0123456789abcdef");
    }
    for connection in 0..20_000 {
        library.read(tid, 0x10_000 + connection, b"x");
    }
    let kept = library.plaintexts.lock();
    assert!(kept.streams.len() <= STREAM_CAP);
    for stream in kept.streams.values() {
        assert!(stream.waiting() <= 4_096);
    }
}
