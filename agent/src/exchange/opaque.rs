//! Follows one opaque connection, of which no payload is copied: a run of reads is a request, the next writes its response.
//!
//! Requests that are read before the response to an earlier one count as one with it, because they look the same.
//! Does not depend on: any protocol.

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, kind},
    view::RecordView,
};

use crate::exchange::{
    Exchange, Peer, Request, Response,
    event::{Event, Loss, Sink, Unfinished},
    reads::Reads,
    record_stream::{QUIET_NS, RecordStream},
    writes::{Writes, added},
};

/// One opaque connection.
#[derive(Debug)]
pub struct OpaqueConnection {
    /// Its records.
    pub records: RecordStream,
    next_index: u32,
    request: Option<Request>,
    response: Option<Response>,
    missed_bytes: u64,
}

impl OpaqueConnection {
    /// Opens a connection to `peer`, of which `record` is the first record.
    pub fn new(record: &Record, peer: Peer) -> Self {
        Self {
            records: RecordStream::new(record, peer),
            next_index: 0,
            request: None,
            response: None,
            missed_bytes: 0,
        }
    }

    /// Processes a record; returns whether the connection stays open.
    pub fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) -> bool {
        if !self.records.push(&view.record) {
            self.lose(Loss::Resynchronised, Unfinished::LostRecords, out);
        }
        match view.record.kind {
            kind::READ => self.read(&Reads::of(view), out),
            kind::EXCHANGE => {
                self.read(&Reads::of(view), out);
                let writes = self.records.writes(view);
                self.write(&writes);
            }
            kind::PROGRESS => {
                let writes = self.records.writes(view);
                self.write(&writes);
            }
            _ => {
                self.close(Unfinished::Unanswered, out);
                return false;
            }
        }
        true
    }

    /// Processes a record of bytes that were read, or written, unobserved.
    pub fn on_unobserved(&mut self, record: &Record, out: &mut dyn Sink) {
        self.missed_bytes += record.read_bytes + record.written_bytes;
        self.lose(Loss::Unobserved, Unfinished::Unobserved, out);
    }

    /// Processes writes of a response that no record has reported yet.
    pub fn on_progress(&mut self, slot: &ProgressSlot) {
        let writes = self.records.unreported(slot);
        self.write(&writes);
    }

    /// Bytes since the last call that belong to no request.
    pub fn take_missed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.missed_bytes)
    }

    /// Whether a response has begun; its end is unknown until the next read.
    pub fn is_responding(&self) -> bool {
        self.response.is_some()
    }

    /// Whether no request is open.
    pub fn is_idle(&self) -> bool {
        self.request.is_none()
    }

    /// Returns the open request. `unreported`: what was read and is in no record yet.
    pub fn open_requests(&self, unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        let unreported = unreported.filter(|view| view.record.seq == self.records.latest_seq());
        match (&self.request, &self.response, unreported) {
            // The read ends the response.
            (_, Some(_), Some(view)) | (None, None, Some(view)) => vec![request_in(view)],
            (request, _, _) => request.iter().cloned().collect(),
        }
    }

    /// Finishes a response that has been silent for [`QUIET_NS`]. More of it may follow, so its end is unknown.
    pub fn end_if_quiet(&mut self, now_ns: u64, out: &mut dyn Sink) {
        if now_ns.saturating_sub(self.records.latest_ns) < QUIET_NS {
            return;
        }
        if let Some(response) = &mut self.response {
            response.last_write_ns = None;
            self.finish(out);
        }
    }

    /// Ends the connection: the open response ends with it, and a request without one is unfinished.
    pub fn close(&mut self, reason: Unfinished, out: &mut dyn Sink) {
        self.finish(out);
        if self.request.take().is_some() {
            out.event(Event::Unfinished(reason));
        }
    }

    /// Drops what is open.
    fn lose(&mut self, loss: Loss, reason: Unfinished, out: &mut dyn Sink) {
        out.lost(loss);
        self.response = None;
        if self.request.take().is_some() {
            out.event(Event::Unfinished(reason));
        }
    }

    fn read(&mut self, reads: &Reads<'_>, out: &mut dyn Sink) {
        self.finish(out);
        let next_index = self.next_index;
        let request = self.request.get_or_insert_with(|| begun(reads, next_index));
        request.last_read_ns = reads.last_ns;
        request.last_arrival_ns = reads.arrivals.at(reads.bytes.saturating_sub(1));
        request.reader_tid = reads.reader_tid;
        request.bytes += reads.bytes;
        self.next_index = request.index.wrapping_add(1);
    }

    fn write(&mut self, writes: &Writes<'_>) {
        if self.request.is_none() {
            self.missed_bytes += writes.bytes;
            return;
        }
        let response = self.response.get_or_insert(Response {
            first_write_ns: writes.start_ns,
            first_write_bounded: writes.start_bounded,
            thread_wait: writes.thread_wait,
            ..Response::NOT_BEGUN
        });
        response.bytes += writes.bytes;
        response.undrained_ns = added(response.undrained_ns, writes.undrained_ns);
        response.last_write_ns = Some(writes.end_ns);
    }

    /// Reports the exchange, if its response has begun.
    fn finish(&mut self, out: &mut dyn Sink) {
        if let Some(response) = self.response.take()
            && let Some(request) = self.request.take()
        {
            out.event(Event::Finished(Exchange {
                peer: self.records.peer,
                request,
                response,
            }));
        }
    }
}

/// Returns the request in what a server has read of a connection of which no record was emitted yet.
pub fn request_in(view: &RecordView<'_>) -> Request {
    begun(&Reads::of(view), 0)
}

/// A request that begins with `reads`.
fn begun(reads: &Reads<'_>, index: u32) -> Request {
    Request {
        index,
        method: String::new(),
        target: String::new(),
        arrival_ns: reads.arrivals.at(0),
        first_read_ns: reads.first_ns,
        last_read_ns: reads.last_ns,
        last_arrival_ns: None,
        reader_tid: None,
        bytes: 0,
        complete: true,
        named: None,
        user_agent: None,
        content_cut: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer = Peer {
        cookie: 5,
        tgid: 7,
        local_port: Some(80),
        peer_port: Some(81),
        accepted_ns: None,
        client: None,
    };

    /// A record at `now_ns`; `written` counts from the last read.
    fn record(seq: u32, record_kind: u8, now_ns: u64, read: u64, written: u64) -> Record {
        Record {
            seq,
            kind: record_kind,
            first_read_ns: now_ns,
            last_read_ns: now_ns,
            read_bytes: read,
            first_write_ns: now_ns + 10,
            last_write_ns: now_ns + 20,
            written_bytes: written,
            ..Record::default()
        }
    }

    fn played(records: &[Record]) -> (OpaqueConnection, Vec<Event>) {
        let mut connection = OpaqueConnection::new(&records[0], PEER);
        let mut out = Vec::new();
        for record in records {
            let view = RecordView {
                arrived: &[],
                record: *record,
                request: &[],
                response: &[],
            };
            connection.on_record(&view, &mut out);
        }
        (connection, out)
    }

    fn finished(out: &[Event]) -> Vec<(u32, u64, u64, Option<u64>)> {
        let exchange = |event: &Event| match event {
            Event::Finished(exchange) => Some((
                exchange.request.index,
                exchange.request.bytes,
                exchange.response.bytes,
                exchange.response.last_write_ns,
            )),
            _ => None,
        };
        out.iter().filter_map(exchange).collect()
    }

    #[test]
    fn runs_of_reads_and_writes_are_requests_and_responses() {
        let (connection, out) = played(&[
            record(1, kind::READ, 100, 50, 0),
            record(2, kind::EXCHANGE, 200, 60, 5),
            record(3, kind::PROGRESS, 300, 60, 9),
            record(4, kind::EXCHANGE, 400, 7, 8),
            record(5, kind::CLOSE, 500, 7, 8),
        ]);
        assert_eq!(
            finished(&out),
            [(0, 110, 9, Some(320)), (1, 7, 8, Some(420))]
        );
        assert_eq!(out.len(), 2);
        assert!(connection.is_idle());
    }

    #[test]
    fn silent_response_is_finished_without_its_end() {
        let (mut connection, mut out) = played(&[record(1, kind::EXCHANGE, 100, 50, 5)]);
        connection.end_if_quiet(1_000, &mut out);
        assert!(out.is_empty());
        connection.end_if_quiet(QUIET_NS * 2, &mut out);
        assert_eq!(finished(&out), [(0, 50, 5, None)]);
        assert!(!connection.is_responding());
    }

    #[test]
    fn request_without_response_is_unfinished() {
        let (_, out) = played(&[
            record(1, kind::READ, 100, 50, 0),
            record(2, kind::CLOSE, 200, 50, 0),
        ]);
        assert_eq!(out, [Event::Unfinished(Unfinished::Unanswered)]);
        let (_, out) = played(&[
            record(1, kind::READ, 100, 50, 0),
            record(3, kind::EXCHANGE, 200, 50, 5),
            record(4, kind::CLOSE, 300, 50, 5),
        ]);
        assert_eq!(
            out[..2],
            [
                Event::Lost(Loss::Resynchronised),
                Event::Unfinished(Unfinished::LostRecords)
            ]
        );
        assert_eq!(finished(&out), [(1, 50, 5, Some(220))]);
    }
}
