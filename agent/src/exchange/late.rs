//! Follows a connection that began unobserved, until its bytes show whether it speaks HTTP/1 or ZeroMQ.
//!
//! Until then it is followed as HTTP/1, and what comes of it waits: a ZeroMQ connection counts once, and its frames are no
//! lost requests.
//! Does not depend on: how the two protocols are followed.

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, kind},
    view::RecordView,
};

use crate::{
    exchange::{
        Request,
        event::{Event, Sink, Unfinished},
        http1::Http1Connection,
        zmtp::ZmtpConnection,
    },
    protocol::zmtp::FrameWalk,
};

/// Records after which a connection is taken to speak HTTP/1.
const RECORDS_CAP: u32 = 32;

/// A connection whose first bytes are neither a request nor ZeroMQ's greeting.
#[derive(Debug)]
pub struct LateConnection {
    /// The connection as HTTP/1.
    pub http1: Http1Connection,
    /// `None` once it is known what it speaks.
    undecided: Option<Undecided>,
    /// The connection as ZeroMQ; `None` if it speaks something else.
    zmtp: Option<ZmtpConnection>,
}

/// What is known of a connection so far.
#[derive(Debug, Default)]
struct Undecided {
    /// What came of the connection as HTTP/1.
    events: Vec<Event>,
    reads: FrameWalk,
    records: u32,
}

impl LateConnection {
    /// Starts before the first record; `http1` is the connection as HTTP/1.
    pub fn new(http1: Http1Connection) -> Self {
        Self {
            http1,
            undecided: Some(Undecided::default()),
            zmtp: None,
        }
    }

    /// Processes a record; returns whether the connection stays open.
    pub fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) -> bool {
        if let Some(zmtp) = &mut self.zmtp {
            return zmtp.on_record(view, out);
        }
        let Some(undecided) = &mut self.undecided else {
            return self.http1.on_record(view, out);
        };
        if matches!(view.record.kind, kind::READ | kind::EXCHANGE) {
            let read_bytes = view.record.read_bytes;
            undecided.reads.feed(view.request, read_bytes);
        }
        if undecided.reads.is_certain() {
            self.undecided = None;
            let zmtp = self.zmtp.insert(ZmtpConnection::default());
            return zmtp.on_record(view, out);
        }
        undecided.records += 1;
        let is_open = self.http1.on_record(view, &mut undecided.events);
        let is_finished = |event: &Event| matches!(event, Event::Finished(_));
        let is_http = self.http1.has_request() || undecided.events.iter().any(is_finished);
        if !is_open || is_http || undecided.records >= RECORDS_CAP {
            self.settle(out);
        }
        is_open
    }

    /// Processes a record of bytes that were read, or written, unobserved.
    pub fn on_unobserved(&mut self, record: &Record, out: &mut dyn Sink) {
        if self.zmtp.is_none() {
            self.http1.on_unobserved(record, out);
        }
    }

    /// Ends the wait: reports what came of the connection as HTTP/1.
    pub fn settle(&mut self, out: &mut dyn Sink) {
        for event in self.undecided.take().unwrap_or_default().events {
            out.event(event);
        }
    }

    /// Time of the latest record, ns.
    pub fn latest_ns(&self) -> u64 {
        match &self.zmtp {
            Some(zmtp) => zmtp.latest_ns,
            None => self.http1.records.latest_ns,
        }
    }

    /// Returns the requests that are not answered to the end. `unreported`: what was read and is in no record yet.
    pub fn open_requests(&self, unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        match &self.zmtp {
            Some(_) => Vec::new(),
            None => self.http1.open_requests(unreported),
        }
    }

    /// Whether no request is open.
    pub fn is_idle(&self) -> bool {
        self.zmtp.is_some() || self.http1.is_idle()
    }

    /// Ends the connection, because the agent needs its memory.
    pub fn evict(&mut self, out: &mut dyn Sink) {
        self.settle(out);
        if self.zmtp.is_none() {
            self.http1.close(Unfinished::Evicted, out);
        }
    }

    /// Bytes since the last call that belong to no request: none while it is unknown what the connection speaks; `None` if
    /// it is ZeroMQ.
    pub fn take_missed_bytes(&mut self) -> Option<u64> {
        match (&self.zmtp, &self.undecided) {
            (Some(_), _) => None,
            (None, Some(_)) => Some(0),
            (None, None) => Some(self.http1.take_missed_bytes()),
        }
    }

    /// Whether a response has begun and not ended.
    pub fn is_responding(&self) -> bool {
        self.zmtp.is_none() && self.http1.is_responding()
    }

    /// Processes writes that no record has reported yet, and ends a response that has been silent for too long.
    pub fn on_tick(&mut self, slot: Option<ProgressSlot>, now_ns: u64, out: &mut dyn Sink) {
        let out = match &mut self.undecided {
            Some(undecided) => &mut undecided.events,
            None => out,
        };
        if let Some(slot) = slot {
            self.http1.on_progress(&slot, out);
        }
        self.http1.end_if_quiet(now_ns, out);
    }
}

#[cfg(test)]
mod tests {
    use inferprobe_ebpf::segment::COPIED_DEFAULT;

    use super::*;
    use crate::exchange::{event::Loss, fixtures};

    /// What comes of reads, of which the first 1,024 bytes are copied, and the bytes that are missed; ends with a close.
    fn played(reads: &[&[u8]]) -> (Vec<Event>, u64) {
        let record = |seq: usize, kind, read_bytes: usize| Record {
            seq: u32::try_from(seq).unwrap(),
            kind,
            read_bytes: read_bytes as u64,
            last_read_ns: seq as u64,
            ..Record::default()
        };
        let first = record(1, kind::READ, 0);
        let peer = fixtures::exchange().peer;
        let mut late = LateConnection::new(Http1Connection::new(&first, peer, COPIED_DEFAULT));
        let mut out = Vec::new();
        let mut missed = 0;
        for (index, read) in reads.iter().enumerate() {
            let view = RecordView {
                arrived: &[],
                record: record(index + 1, kind::READ, read.len()),
                request: &read[..read.len().min(1024)],
                response: &[],
            };
            assert!(late.on_record(&view, &mut out));
            missed += late.take_missed_bytes().unwrap_or(0);
        }
        let view = RecordView {
            arrived: &[],
            record: record(reads.len() + 1, kind::CLOSE, 0),
            request: &[],
            response: &[],
        };
        assert!(!late.on_record(&view, &mut out));
        missed += late.take_missed_bytes().unwrap_or(0);
        (out, missed)
    }

    /// A message of ZeroMQ.
    fn message(len: u16) -> Vec<u8> {
        let head = [&b"\x02\0\0\0\0\0\0"[..], &len.to_be_bytes()].concat();
        [head, vec![0xa5; len.into()]].concat()
    }

    #[test]
    fn zeromq_that_began_unobserved_counts_once() {
        let (short, long) = (message(512), message(40_000));
        let mut reads: Vec<&[u8]> = long[20_000..].chunks(8_192).collect();
        reads.extend(long.chunks(8_192));
        reads.extend([&short[..]; 100]);
        let expected = (vec![Event::Lost(Loss::InnerProtocol)], 0);
        assert_eq!(played(&reads), expected);
    }

    #[test]
    fn other_bytes_are_lost_as_without_the_wait() {
        let junk: &[u8] = b"\x99\x01 no protocol";
        for count in [1, 5, 100] {
            let (events, missed) = played(&vec![junk; count]);
            assert_eq!(events, vec![Event::Lost(Loss::NotHttp); count]);
            assert_eq!(missed, (junk.len() * count) as u64);
        }
    }

    #[test]
    fn exchange_that_one_record_shows_ends_the_wait() {
        let request: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";
        let response: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let mut record = Record {
            seq: 1,
            kind: kind::READ,
            read_bytes: 5,
            ..Record::default()
        };
        let peer = fixtures::exchange().peer;
        let mut late = LateConnection::new(Http1Connection::new(&record, peer, COPIED_DEFAULT));
        let mut out = Vec::new();
        let view = RecordView {
            arrived: &[],
            record,
            request: b"a body",
            response: &[],
        };
        late.on_record(&view, &mut out);
        assert_eq!(out, []);
        record.seq = 2;
        record.kind = kind::EXCHANGE;
        record.read_bytes = request.len() as u64;
        record.written_bytes = response.len() as u64;
        late.on_record(
            &RecordView {
                arrived: &[],
                record,
                request,
                response,
            },
            &mut out,
        );
        let [Event::Lost(Loss::NotHttp), Event::Finished(exchange)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(
            (&*exchange.request.target, exchange.response.status),
            ("/a", 200)
        );
    }

    #[test]
    fn a_request_after_the_rest_of_another_is_found() {
        let request: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";
        let (events, missed) = played(&[b"the rest of a body", request]);
        let expected = [
            Event::Lost(Loss::NotHttp),
            Event::Unfinished(Unfinished::Unanswered),
        ];
        assert_eq!((&events[..2], missed), (&expected[..], 18));
    }
}
