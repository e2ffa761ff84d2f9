//! Gives all kinds of connections one interface, [`Connection`], and chooses the kind of a new one.
//!
//! `connections` keeps them by this interface. The kinds themselves are in `exchange` and `torchserve`.
//! Does not depend on: the table, what becomes of events.

use std::{collections::HashSet, fmt};

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, mode},
    view::RecordView,
};

use crate::{
    exchange::{
        Peer, Request,
        event::{Loss, Unfinished},
        http1::{Http1Connection, requests_in},
        http2::Http2Connection,
        late::LateConnection,
        opaque::{OpaqueConnection, request_in},
        tls::{TlsConnection, listeners::Listeners, plaintext::Plaintexts},
        zmtp::ZmtpConnection,
    },
    protocol::{
        http1::{
            self, Parse,
            proxy::{self, Start},
        },
        zmtp,
    },
    torchserve::connection::{WorkerConnection, WorkerSink},
};

/// Returns what the kernel half has not reported yet of a connection whose latest record has this number.
pub type Unreported<'a> = dyn FnMut(u32) -> Option<ProgressSlot> + 'a;

/// One connection, whatever protocol it speaks.
pub trait Connection: fmt::Debug + Send {
    /// Processes a record; returns whether the connection stays open.
    fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool;

    /// Processes a record of bytes that moved without a read or write of theirs.
    fn on_unobserved(&mut self, record: &Record, out: &mut dyn WorkerSink);

    /// Time of the latest record, ns.
    fn latest_ns(&self) -> u64;

    /// Whether no request is open.
    fn is_idle(&self) -> bool;

    /// Ends the connection, because the agent needs its memory.
    fn evict(&mut self, out: &mut dyn WorkerSink);

    /// Bytes since the last call that belong to no request; `None` if the connection carries no requests of clients.
    fn take_missed_bytes(&mut self) -> Option<u64>;

    /// Whether its bytes are TLS, whose content is not read.
    fn is_unread(&self) -> bool {
        false
    }

    /// Returns the HTTP/2 connection that this one becomes, and leaves in `view`, a record of HTTP/2, what belongs to it;
    /// `None` if this one stays.
    fn upgrade(
        &mut self,
        _view: &mut RecordView<'_>,
        _out: &mut dyn WorkerSink,
    ) -> Option<Box<dyn Connection>> {
        None
    }

    /// Returns the requests that are not answered to the end. `unreported`: what was read and is in no record yet.
    fn open_requests(&self, _unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        Vec::new()
    }

    /// Whether something is open that may end without another record: [`Connection::on_tick`] ends it.
    fn needs_ticks(&self) -> bool {
        false
    }

    /// Processes what the kernel half has not reported yet, and ends what has been silent for too long.
    fn on_tick(
        &mut self,
        _now_ns: u64,
        _unreported: &mut Unreported<'_>,
        _out: &mut dyn WorkerSink,
    ) {
    }

    /// Ends the connection if it ended with one of these processes, without a record; returns whether it stays open.
    fn on_process_exits(&mut self, _ended: &HashSet<u32>, _out: &mut dyn WorkerSink) -> bool {
        true
    }
}

/// Whether bytes begin neither a request nor what a balancer writes before it: their connection may have begun before. A
/// request may have empty lines before it (RFC 9112, section 2.2).
fn begins_unobserved(bytes: &[u8]) -> bool {
    let mut request = bytes;
    while let [b'\r' | b'\n', rest @ ..] = request {
        request = rest;
    }
    http1::parse_request(request) == Parse::Invalid && proxy::start_of(bytes) == Start::Other
}

/// Returns the requests in what a server has read of a connection of which no record was emitted yet.
pub fn requests_before_records(view: &RecordView<'_>, reads_payload: bool) -> Vec<Request> {
    match reads_payload {
        false => vec![request_in(view)],
        // Of TLS, a handshake.
        true if view.record.mode == mode::RECORDS => Vec::new(),
        true if zmtp::begins(view.request) || begins_unobserved(view.request) => Vec::new(),
        true => requests_in(view),
    }
}

/// Opens the connection of which `view` is the first record. The kernel half copies so many bytes of a request; `None`:
/// it copies no payload. TLS connections share `listeners` and `plaintexts`.
pub fn open(
    view: &RecordView<'_>,
    peer: Peer,
    copied_bytes: Option<u32>,
    listeners: &Listeners,
    plaintexts: Option<&Plaintexts>,
) -> Box<dyn Connection> {
    let record = &view.record;
    let Some(copied_bytes) = copied_bytes else {
        return Box::new(OpaqueConnection::new(record, peer));
    };
    match record.mode {
        mode::FRAMES => Box::new(WorkerConnection::new(record, peer)),
        mode::STREAMS => Box::new(Http2Connection::new(peer, copied_bytes)),
        mode::RECORDS => Box::new(TlsConnection::new(
            record,
            peer,
            listeners.clone(),
            plaintexts.cloned(),
        )),
        _ if zmtp::begins(view.request) || zmtp::begins(view.response) => {
            Box::new(ZmtpConnection::default())
        }
        _ => {
            let http1 = Http1Connection::new(record, peer, copied_bytes);
            match begins_unobserved(view.request) {
                true => Box::new(LateConnection::new(http1)),
                false => Box::new(http1),
            }
        }
    }
}

impl Connection for Http1Connection {
    fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool {
        self.on_record(view, out)
    }

    fn on_unobserved(&mut self, record: &Record, out: &mut dyn WorkerSink) {
        self.on_unobserved(record, out);
    }

    fn latest_ns(&self) -> u64 {
        self.records.latest_ns
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn evict(&mut self, out: &mut dyn WorkerSink) {
        self.close(Unfinished::Evicted, out);
    }

    fn open_requests(&self, unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        self.open_requests(unreported)
    }

    fn take_missed_bytes(&mut self) -> Option<u64> {
        Some(self.take_missed_bytes())
    }

    fn upgrade(
        &mut self,
        view: &mut RecordView<'_>,
        out: &mut dyn WorkerSink,
    ) -> Option<Box<dyn Connection>> {
        let upgrade = self.upgrade(view, out);
        Some(Box::new(Http2Connection::upgraded(upgrade)))
    }

    fn needs_ticks(&self) -> bool {
        self.is_responding()
    }

    fn on_tick(&mut self, now_ns: u64, unreported: &mut Unreported<'_>, out: &mut dyn WorkerSink) {
        if let Some(slot) = unreported(self.records.latest_seq()) {
            self.on_progress(&slot, out);
        }
        self.end_if_quiet(now_ns, out);
    }
}

impl Connection for Http2Connection {
    fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool {
        self.on_record(view, out)
    }

    fn on_unobserved(&mut self, record: &Record, out: &mut dyn WorkerSink) {
        self.on_unobserved(record, out);
    }

    fn latest_ns(&self) -> u64 {
        self.latest_ns
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn evict(&mut self, out: &mut dyn WorkerSink) {
        self.close(Unfinished::Evicted, out);
    }

    fn open_requests(&self, _unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        self.open_requests()
    }

    fn take_missed_bytes(&mut self) -> Option<u64> {
        Some(self.take_missed_bytes())
    }
}

impl Connection for OpaqueConnection {
    fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool {
        self.on_record(view, out)
    }

    fn on_unobserved(&mut self, record: &Record, out: &mut dyn WorkerSink) {
        self.on_unobserved(record, out);
    }

    fn latest_ns(&self) -> u64 {
        self.records.latest_ns
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn evict(&mut self, out: &mut dyn WorkerSink) {
        self.close(Unfinished::Evicted, out);
    }

    fn open_requests(&self, unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        self.open_requests(unreported)
    }

    fn take_missed_bytes(&mut self) -> Option<u64> {
        Some(self.take_missed_bytes())
    }

    fn needs_ticks(&self) -> bool {
        self.is_responding()
    }

    fn on_tick(&mut self, now_ns: u64, unreported: &mut Unreported<'_>, out: &mut dyn WorkerSink) {
        if let Some(slot) = unreported(self.records.latest_seq()) {
            self.on_progress(&slot);
        }
        self.end_if_quiet(now_ns, out);
    }
}

impl Connection for TlsConnection {
    fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool {
        self.on_record(view, out)
    }

    fn on_unobserved(&mut self, record: &Record, out: &mut dyn WorkerSink) {
        self.on_unobserved(record, out);
    }

    fn latest_ns(&self) -> u64 {
        self.records.latest_ns
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn evict(&mut self, out: &mut dyn WorkerSink) {
        self.close(Unfinished::Evicted, out);
    }

    fn open_requests(&self, unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        self.open_requests(unreported)
    }

    fn take_missed_bytes(&mut self) -> Option<u64> {
        Some(self.take_missed_bytes())
    }

    fn is_unread(&self) -> bool {
        !self.is_read()
    }

    fn needs_ticks(&self) -> bool {
        self.is_responding()
    }

    fn on_tick(&mut self, now_ns: u64, _: &mut Unreported<'_>, out: &mut dyn WorkerSink) {
        self.end_if_quiet(now_ns, out);
    }
}

impl Connection for WorkerConnection {
    fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool {
        self.on_record(view, out)
    }

    fn on_unobserved(&mut self, _: &Record, out: &mut dyn WorkerSink) {
        out.lost(Loss::Unobserved);
    }

    fn latest_ns(&self) -> u64 {
        self.records.latest_ns
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn evict(&mut self, out: &mut dyn WorkerSink) {
        self.close(out);
    }

    fn take_missed_bytes(&mut self) -> Option<u64> {
        None
    }

    fn needs_ticks(&self) -> bool {
        self.awaits_reader()
    }

    fn on_tick(&mut self, now_ns: u64, _: &mut Unreported<'_>, out: &mut dyn WorkerSink) {
        self.end_if_quiet(now_ns, out);
    }

    fn on_process_exits(&mut self, ended: &HashSet<u32>, out: &mut dyn WorkerSink) -> bool {
        let has_ended = ended.contains(&self.records.peer.tgid);
        if has_ended {
            self.close(out);
        }
        !has_ended
    }
}

impl Connection for LateConnection {
    fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool {
        self.on_record(view, out)
    }

    fn on_unobserved(&mut self, record: &Record, out: &mut dyn WorkerSink) {
        self.on_unobserved(record, out);
    }

    fn latest_ns(&self) -> u64 {
        self.latest_ns()
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn evict(&mut self, out: &mut dyn WorkerSink) {
        self.evict(out);
    }

    fn open_requests(&self, unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        self.open_requests(unreported)
    }

    fn take_missed_bytes(&mut self) -> Option<u64> {
        self.take_missed_bytes()
    }

    fn upgrade(
        &mut self,
        view: &mut RecordView<'_>,
        out: &mut dyn WorkerSink,
    ) -> Option<Box<dyn Connection>> {
        self.settle(out);
        Connection::upgrade(&mut self.http1, view, out)
    }

    fn needs_ticks(&self) -> bool {
        self.is_responding()
    }

    fn on_tick(&mut self, now_ns: u64, unreported: &mut Unreported<'_>, out: &mut dyn WorkerSink) {
        let slot = unreported(self.http1.records.latest_seq());
        self.on_tick(slot, now_ns, out);
    }
}

impl Connection for ZmtpConnection {
    fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool {
        self.on_record(view, out)
    }

    fn on_unobserved(&mut self, _: &Record, out: &mut dyn WorkerSink) {
        out.lost(Loss::Unobserved);
    }

    fn latest_ns(&self) -> u64 {
        self.latest_ns
    }

    fn is_idle(&self) -> bool {
        true
    }

    fn evict(&mut self, _: &mut dyn WorkerSink) {}

    fn take_missed_bytes(&mut self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_before_a_request_are_no_unobserved_beginning() {
        for start in ["", "\r\n", "\n", "\r\n\r\n\r\n"] {
            let bytes = format!("{start}POST /a HTTP/1.1\r\n\r\n");
            assert!(!begins_unobserved(bytes.as_bytes()), "{start:?}");
        }
        assert!(begins_unobserved(b"\r\nthe rest of a body\r\n"));
    }
}
