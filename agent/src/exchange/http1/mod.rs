//! One connection: pairs the requests it read with the answers it wrote, first in, first out.

pub mod body;
pub mod requests;
pub mod responses;

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, flag, kind},
    view::RecordView,
};

use crate::{
    exchange::{
        Peer, Request, Response,
        event::{Event, Loss, Sink, Unfinished, pair},
        http1::{
            requests::RequestStream,
            responses::{ResponseStream, Step},
        },
        reads::Reads,
        record_stream::{QUIET_NS, Sequence},
        upgrade::Upgrade,
        writes::Writes,
    },
    protocol::http1::{self, Parse},
};

/// Requests that may wait for an answer on one connection; more are given up, oldest first.
const PENDING_CAP: usize = 1024;

/// What is known of one connection.
#[derive(Debug)]
pub struct Http1Connection {
    /// Its records.
    pub sequence: Sequence,
    is_unix: bool,
    requests: RequestStream,
    responses: ResponseStream,
    /// The request whose answer is being written.
    answering: Option<Request>,
    missed_bytes: u64,
    /// The request that will be answered over HTTP/2: the server agreed to go on so.
    switching: Option<Request>,
}

impl Http1Connection {
    /// A connection to `peer` of which `record` is the first sign.
    pub fn new(record: &Record, peer: Peer) -> Self {
        Self {
            sequence: Sequence::new(record, peer),
            is_unix: record.flags & flag::UNIX != 0,
            requests: RequestStream::default(),
            responses: ResponseStream::default(),
            answering: None,
            missed_bytes: 0,
            switching: None,
        }
    }

    /// Ends HTTP/1 on this connection: returns what HTTP/2 continues from, and leaves in `view` what belongs to HTTP/2.
    pub fn upgrade(&mut self, view: &mut RecordView<'_>, out: &mut dyn Sink) -> Upgrade {
        let mut written_bytes = 0;
        let agreed = match http1::parse_response(view.response) {
            Parse::Complete(head, len) => (head.status == 101).then_some(len),
            _ => None,
        };
        if let Some(len) = agreed {
            // The 101 response and the first frames are one write.
            self.switching = self.requests.pending.pop_front();
            view.response = &view.response[len..];
            written_bytes = len as u64;
        }
        let request = self.switching.take();
        self.close(Unfinished::Unanswered, out);
        Upgrade {
            peer: self.sequence.peer,
            request,
            latest_seq: self.sequence.number(),
            written_bytes,
            missed_bytes: self.take_missed_bytes(),
        }
    }

    /// Takes in a record; returns whether the connection goes on.
    pub fn take(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) -> bool {
        if !self.sequence.follows(&view.record) {
            self.resynchronise(out);
        }
        if view.record.read_bytes > 0 && self.switching.take().is_some() {
            // What was read is HTTP/2, and the kernel half did not see it begin.
            out.lost(Loss::Http2Unfollowed);
            out.event(Event::Unfinished(Unfinished::LostRecords));
        }
        match view.record.kind {
            kind::READ => self.take_reads(view, out),
            kind::EXCHANGE => {
                self.take_reads(view, out);
                let writes = self.sequence.writes(view);
                self.write(&writes, out);
            }
            kind::PROGRESS => {
                let writes = self.sequence.writes(view);
                self.write(&writes, out);
            }
            _ => {
                self.close(Unfinished::Unanswered, out);
                return false;
            }
        }
        true
    }

    /// Takes in what the kernel holds back of an answer.
    pub fn take_progress(&mut self, slot: &ProgressSlot, out: &mut dyn Sink) {
        let writes = self.sequence.held_back(slot);
        self.write(&writes, out);
    }

    /// Bytes since the last call that belong to no request.
    pub fn take_missed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.missed_bytes) + std::mem::take(&mut self.requests.missed_bytes)
    }

    /// Whether an answer is under way.
    pub fn is_answering(&self) -> bool {
        self.responses.is_open()
    }

    /// Whether nothing is under way at all.
    pub fn is_idle(&self) -> bool {
        self.requests.pending.is_empty() && !self.responses.is_open() && self.switching.is_none()
    }

    /// Ends an answer that has been silent for [`QUIET_NS`] and whose end nothing will tell.
    pub fn end_if_quiet(&mut self, now_ns: u64, out: &mut dyn Sink) {
        let quiet = now_ns.saturating_sub(self.responses.latest_ns()) >= QUIET_NS;
        if quiet && self.responses.ends_unseen(!self.is_unix) {
            let response = self.responses.give_up();
            self.finish(response, out);
        }
    }

    /// Ends the connection: the open answer with it, and the requests that have none.
    pub fn close(&mut self, complete_reason: Unfinished, out: &mut dyn Sink) {
        if let Some(response) = self.responses.close() {
            self.finish(response, out);
        }
        let switching = self.switching.take();
        for request in switching
            .into_iter()
            .chain(std::mem::take(&mut self.requests.pending))
        {
            if !request.complete {
                out.event(Event::Unfinished(Unfinished::Incomplete));
                continue;
            }
            out.event(Event::Unfinished(complete_reason));
            if complete_reason == Unfinished::Unanswered {
                out.event(Event::Abandoned(self.sequence.peer, request));
            }
        }
    }

    fn finish(&mut self, response: Response, out: &mut dyn Sink) {
        let request = self.answering.take();
        self.missed_bytes += unpaired_bytes(request.as_ref(), &response);
        out.event(pair(self.sequence.peer, request, response));
    }

    fn resynchronise(&mut self, out: &mut dyn Sink) {
        out.lost(Loss::Resynchronised);
        for _ in self
            .answering
            .take()
            .into_iter()
            .chain(self.switching.take())
        {
            out.event(Event::Unfinished(Unfinished::LostRecords));
        }
        for _ in 0..self.requests.pending.len() {
            out.event(Event::Unfinished(Unfinished::LostRecords));
        }
        self.requests = self.requests.restart();
        self.responses = ResponseStream::default();
    }

    fn take_reads(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) {
        let reads = Reads::of(view);
        self.requests.feed(&reads, |loss| out.lost(loss));
        while self.requests.pending.len() > PENDING_CAP {
            self.requests.pending.pop_front();
            out.event(Event::Unfinished(Unfinished::Evicted));
        }
    }

    fn write(&mut self, writes: &Writes<'_>, out: &mut dyn Sink) {
        let Self {
            sequence,
            requests,
            responses,
            answering,
            missed_bytes,
            switching,
            ..
        } = self;
        let mut upgraded = false;
        let pending = &mut requests.pending;
        responses.feed(
            writes,
            || pending.pop_front(),
            |step, request| {
                upgraded |= matches!(step, Step::Upgraded(_) | Step::Switched);
                match step {
                    Step::Began => *answering = request,
                    Step::Ended(response) | Step::Upgraded(response) => {
                        *missed_bytes += unpaired_bytes(answering.as_ref(), &response);
                        out.event(pair(sequence.peer, answering.take(), response));
                    }
                    Step::Switched => *switching = answering.take(),
                }
            },
        );
        if upgraded {
            requests.tunnel();
        }
    }
}

/// Bytes of a request and an answer that do not make an exchange.
fn unpaired_bytes(request: Option<&Request>, response: &Response) -> u64 {
    match request {
        Some(_) if response.status != 0 => 0,
        Some(request) => request.bytes + response.bytes,
        None => response.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds the records of one connection as the kernel half would.
    struct Wire {
        connection: Option<Http1Connection>,
        seq: u32,
        written: u64,
        now_ns: u64,
        out: Vec<Event>,
        alive: bool,
    }

    const PEER: Peer = Peer {
        cookie: 5,
        tgid: 7,
        local_port: Some(80),
        peer_port: Some(81),
        accepted_ns: None,
    };

    impl Wire {
        fn new() -> Self {
            Self {
                connection: None,
                seq: 0,
                written: 0,
                now_ns: 1_000,
                out: Vec::new(),
                alive: true,
            }
        }

        fn record(&mut self, record_kind: u8, request: &[u8], response: &[u8]) {
            self.seq += 1;
            self.now_ns += 1_000;
            let now_ns = self.now_ns;
            if record_kind == kind::EXCHANGE {
                self.written = 0;
            }
            self.written += response.len() as u64;
            let mut last = [0; 8];
            let kept = response.len().min(8);
            last[8 - kept..].copy_from_slice(&response[response.len() - kept..]);
            let record = Record {
                cookie: 5,
                arrival_ns: now_ns,
                first_read_ns: now_ns + 10,
                last_read_ns: now_ns + 20,
                read_bytes: request.len() as u64,
                first_write_ns: now_ns + 300,
                last_write_ns: now_ns + 400,
                written_bytes: self.written,
                tail: u64::from_be_bytes(last),
                seq: self.seq,
                tgid: 7,
                local_port: 80,
                peer_port: 81,
                kind: record_kind,
                flags: flag::ARRIVAL_KNOWN,
                ..Record::default()
            };
            let view = RecordView {
                record,
                request,
                response,
            };
            let connection = self
                .connection
                .get_or_insert_with(|| Http1Connection::new(&record, PEER));
            self.alive = connection.take(&view, &mut self.out);
        }

        fn finished(&self) -> Vec<(u32, &str, u16)> {
            self.out
                .iter()
                .filter_map(|outcome| match outcome {
                    Event::Finished(exchange) => Some((
                        exchange.request.index,
                        exchange.request.target.as_str(),
                        exchange.response.status,
                    )),
                    _ => None,
                })
                .collect()
        }

        fn others(&self) -> Vec<&Event> {
            self.out
                .iter()
                .filter(|outcome| !matches!(outcome, Event::Finished(_)))
                .collect()
        }
    }

    const GET: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

    #[test]
    fn keep_alive_requests_pair_in_order() {
        let mut wire = Wire::new();
        for _ in 0..3 {
            wire.record(kind::EXCHANGE, GET, OK);
        }
        assert_eq!(
            wire.finished(),
            [(0, "/a", 200), (1, "/a", 200), (2, "/a", 200)]
        );
        assert!(wire.others().is_empty());
        let Event::Finished(exchange) = &wire.out[1] else {
            panic!("{:?}", wire.out[1])
        };
        assert_eq!(exchange.request.arrival_ns, Some(3_000));
        assert_eq!(exchange.request.last_read_ns, 3_020);
        assert_eq!(
            (
                exchange.response.first_write_ns,
                exchange.response.last_write_ns
            ),
            (3_300, Some(3_400))
        );
    }

    #[test]
    fn a_continue_is_not_the_response() {
        let mut wire = Wire::new();
        wire.record(
            kind::EXCHANGE,
            b"POST /a HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        );
        wire.record(kind::EXCHANGE, b"body", OK);
        let Event::Finished(exchange) = &wire.out[0] else {
            panic!("{:?}", wire.out)
        };
        assert_eq!(
            (
                exchange.request.first_read_ns,
                exchange.request.last_read_ns
            ),
            (2_010, 3_020)
        );
        assert_eq!(exchange.response.first_write_ns, 3_300);
        assert_eq!(wire.out.len(), 1);
    }

    #[test]
    fn an_response_before_the_body_is_read_keeps_its_own_times() {
        let mut wire = Wire::new();
        wire.record(
            kind::EXCHANGE,
            b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
            b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n",
        );
        wire.record(kind::READ, b"012345678", b"");
        wire.record(kind::EXCHANGE, GET, OK);
        assert_eq!(wire.finished(), [(0, "/a", 413), (1, "/a", 200)]);
        assert!(wire.others().is_empty());
    }

    #[test]
    fn requests_read_ahead_wait_for_their_responses() {
        let mut wire = Wire::new();
        wire.record(kind::READ, b"GET /1 HTTP/1.1\r\n\r\n", b"");
        wire.record(kind::EXCHANGE, b"GET /2 HTTP/1.1\r\n\r\n", OK);
        wire.record(kind::PROGRESS, b"", OK);
        assert_eq!(wire.finished(), [(0, "/1", 200), (1, "/2", 200)]);
    }

    #[test]
    fn an_response_to_head_has_no_body() {
        let mut wire = Wire::new();
        wire.record(
            kind::EXCHANGE,
            b"HEAD /a HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n",
        );
        wire.record(kind::EXCHANGE, GET, OK);
        assert_eq!(wire.finished().len(), 2);
    }

    #[test]
    fn what_has_no_response_when_the_connection_ends_is_told() {
        let mut wire = Wire::new();
        wire.record(kind::READ, GET, b"");
        wire.record(
            kind::READ,
            b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
            b"",
        );
        wire.record(kind::CLOSE, b"", b"");
        assert!(!wire.alive);
        let [
            Event::Unfinished(Unfinished::Unanswered),
            Event::Abandoned(_, request),
            Event::Unfinished(Unfinished::Incomplete),
        ] = &wire.out[..]
        else {
            panic!("{:?}", wire.out)
        };
        assert_eq!(request.target, "/a");
    }

    #[test]
    fn an_response_that_ends_with_the_connection_ends_at_its_last_write() {
        let mut wire = Wire::new();
        wire.record(kind::EXCHANGE, GET, b"HTTP/1.0 200 OK\r\n\r\nbody");
        assert!(wire.out.is_empty());
        wire.record(kind::CLOSE, b"", b"");
        let Event::Finished(exchange) = &wire.out[0] else {
            panic!("{:?}", wire.out)
        };
        assert_eq!(exchange.response.last_write_ns, Some(2_400));
    }

    #[test]
    fn a_gap_gives_up_what_was_open_and_takes_the_next_request_up() {
        let mut wire = Wire::new();
        wire.record(kind::READ, GET, b"");
        wire.seq += 1;
        wire.record(kind::EXCHANGE, b"GET /after HTTP/1.1\r\n\r\n", OK);
        assert_eq!(wire.finished(), [(1, "/after", 200)]);
        assert_eq!(
            wire.others(),
            [
                &Event::Lost(Loss::Resynchronised),
                &Event::Unfinished(Unfinished::LostRecords)
            ]
        );
    }

    #[test]
    fn an_response_whose_request_was_not_seen_is_not_paired() {
        let mut wire = Wire::new();
        wire.seq = 3;
        wire.record(kind::PROGRESS, b"", OK);
        assert_eq!(wire.out, [Event::Lost(Loss::ResponseWithoutRequest)]);
    }

    #[test]
    fn held_back_progress_ends_a_long_response() {
        let mut wire = Wire::new();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
        wire.record(kind::EXCHANGE, GET, head);
        let mut out = Vec::new();
        let slot = ProgressSlot {
            cookie: 5,
            last_write_ns: 9_000,
            written_bytes: head.len() as u64 + 100,
            seq: 1,
            ..ProgressSlot::default()
        };
        wire.connection
            .as_mut()
            .unwrap()
            .take_progress(&slot, &mut out);
        let [Event::Finished(exchange)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(exchange.response.last_write_ns, Some(9_000));
    }
}
