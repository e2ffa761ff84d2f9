//! Follows one HTTP/1 connection: pairs the requests it reads with the responses it writes, first in, first out.
//!
//! `requests` and `responses` find the messages of each direction.
//! Does not depend on: any server, HTTP/2.

pub mod requests;
pub mod responses;
pub mod session;
mod trust;

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, flag, kind},
    view::RecordView,
};

use crate::{
    exchange::{
        Peer, Request, Response,
        event::{Event, Loss, Sink, Unfinished, pair},
        http1::{
            requests::{RequestStream, Skipped},
            responses::{ResponseStream, Step},
            session::Session,
            trust::Trust,
        },
        reads::Reads,
        record_stream::{QUIET_NS, RecordStream},
        upgrade::Upgrade,
        writes::Writes,
    },
    protocol::http1::{self, Parse},
};

/// Silence after which a response that ends with its AF_UNIX connection counts as finished, ns. The end is observed when the
/// client reads it, but the client may have left before.
const CLOSE_NS: u64 = 30_000_000_000;
/// Requests that may wait for a response on one connection; beyond it, the oldest are dropped.
const PENDING_CAP: usize = 1024;

/// One HTTP/1 connection.
#[derive(Debug)]
pub struct Http1Connection {
    /// Its records.
    pub records: RecordStream,
    is_unix: bool,
    requests: RequestStream,
    responses: ResponseStream,
    /// The request whose response is being written.
    responding: Option<Request>,
    missed_bytes: u64,
    /// The request whose response will come over HTTP/2: the server agreed to the upgrade.
    switching: Option<Request>,
    /// The WebSocket session that the connection has become.
    session: Option<Box<Session>>,
    /// Bytes of a request that the kernel half copies.
    copied_bytes: u32,
    trust: Trust,
}

impl Http1Connection {
    /// Opens a connection to `peer`, of which `record` is the first record. The kernel half copies so many bytes of a
    /// request.
    pub fn new(record: &Record, peer: Peer, copied_bytes: u32) -> Self {
        Self {
            records: RecordStream::new(record, peer),
            is_unix: record.flags & flag::UNIX != 0,
            requests: RequestStream::default(),
            responses: ResponseStream::default(),
            responding: None,
            missed_bytes: 0,
            switching: None,
            session: None,
            copied_bytes,
            trust: Trust::default(),
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
            peer: self.records.peer,
            request,
            latest_seq: self.records.latest_seq(),
            written_bytes,
            missed_bytes: self.take_missed_bytes(),
            copied_bytes: self.copied_bytes,
        }
    }

    /// Processes a record; returns whether the connection stays open.
    pub fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) -> bool {
        if !self.records.push(&view.record) {
            self.resynchronise(Loss::Resynchronised, Unfinished::LostRecords, out);
        }
        if view.record.read_bytes > 0 && self.switching.take().is_some() {
            // What was read is HTTP/2, and the kernel half did not recognise its start.
            out.lost(Loss::Http2Unfollowed);
            out.event(Event::Unfinished(Unfinished::LostRecords));
        }
        match view.record.kind {
            kind::READ => self.read(&Reads::of(view), out),
            kind::EXCHANGE => {
                self.read(&Reads::of(view), out);
                let writes = self.records.writes(view);
                self.write(&writes, out);
            }
            kind::PROGRESS => {
                let writes = self.records.writes(view);
                self.write(&writes, out);
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
        let (read, written) = (record.read_bytes, record.written_bytes);
        let is_ordered = read > 0 || written > 0;
        if let Some(session) = self.session.as_mut().filter(|_| is_ordered) {
            session.skip(read, written);
            out.lost(Loss::Unobserved);
            return;
        }
        let requests_known = match read {
            0 => is_ordered,
            _ => self.switching.is_none() && self.requests.skip(read) == Skipped::Known,
        };
        let mut ended = None;
        let responses_known = written == 0
            || self
                .responses
                .skip(written, |response| ended = Some(response));
        if let Some(response) = ended.filter(|_| requests_known) {
            self.finish(response, out);
        }
        if requests_known && responses_known {
            out.lost(Loss::Unobserved);
            return;
        }
        let open = self.requests.pending.len() + usize::from(self.responding.is_some());
        // If all requests are known, and only one has no whole response, the bytes are of that response.
        if !requests_known || open != 1 {
            self.trust.lose();
        }
        self.trust.after_loss = true;
        self.missed_bytes += read + written;
        self.resynchronise(Loss::Unobserved, Unfinished::Unobserved, out);
    }

    /// Processes writes of a response that no record has reported yet.
    pub fn on_progress(&mut self, slot: &ProgressSlot, out: &mut dyn Sink) {
        let writes = self.records.unreported(slot);
        self.write(&writes, out);
    }

    /// Bytes since the last call that belong to no request.
    pub fn take_missed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.missed_bytes) + std::mem::take(&mut self.requests.missed_bytes)
    }

    /// Whether a response has begun and not ended.
    pub fn is_responding(&self) -> bool {
        self.responses.is_open()
    }

    /// Whether a request was found whose response has not ended.
    pub fn has_request(&self) -> bool {
        !self.requests.pending.is_empty() || self.responding.is_some()
    }

    /// Whether no request is open.
    pub fn is_idle(&self) -> bool {
        self.requests.pending.is_empty()
            && !self.responses.is_open()
            && self.switching.is_none()
            && self.session.is_none()
    }

    /// Returns the requests that are not answered to the end. `unreported`: what was read and is in no record yet.
    pub fn open_requests(&self, unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        let responding = self.responding.iter().filter(|_| self.responses.is_open());
        let session = self.session.iter().map(|session| &session.request);
        let others = self.switching.iter().chain(session);
        let mut open: Vec<Request> = responding.chain(others).cloned().collect();
        match unreported.filter(|view| view.record.seq == self.records.latest_seq()) {
            Some(view) => {
                let mut requests = self.requests.glimpse();
                requests.feed(&Reads::of(view), |_| {});
                open.extend(requests.pending);
            }
            None => open.extend(self.requests.pending.iter().cloned()),
        }
        open
    }

    /// Ends a response that has been silent for [`QUIET_NS`] and whose end no record will report; for [`CLOSE_NS`] if it ends
    /// with its connection.
    pub fn end_if_quiet(&mut self, now_ns: u64, out: &mut dyn Sink) {
        let silent_ns = now_ns.saturating_sub(self.responses.latest_ns());
        let is_over = self.is_unix && self.responses.is_until_close() && silent_ns >= CLOSE_NS;
        if is_over || silent_ns >= QUIET_NS && self.responses.ends_unobserved() {
            let response = self.responses.end_at_unknown_time();
            self.finish(response, out);
        }
    }

    /// Ends the connection: the open response with it, and the requests that have none.
    pub fn close(&mut self, complete_reason: Unfinished, out: &mut dyn Sink) {
        if let Some(response) = self.responses.close() {
            self.finish(response, out);
        }
        if let Some(session) = self.session.take() {
            let (request, response) = session.end();
            out.event(pair(self.records.peer, Some(request), response));
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
                out.event(Event::Abandoned(self.records.peer, request));
            }
        }
    }

    fn finish(&mut self, response: Response, out: &mut dyn Sink) {
        let request = self.responding.take();
        self.missed_bytes += unpaired_bytes(request.as_ref(), &response);
        self.trust.report(self.records.peer, request, response, out);
    }

    /// Drops what is open, and continues with the next request.
    fn resynchronise(&mut self, loss: Loss, reason: Unfinished, out: &mut dyn Sink) {
        out.lost(loss);
        let session = self.session.take().map(|session| session.request);
        let open = self.responding.take().into_iter();
        for _ in open
            .chain(self.switching.take())
            .chain(session)
            .chain(std::mem::take(&mut self.requests.pending))
        {
            out.event(Event::Unfinished(reason));
        }
        self.requests = self.requests.restart();
        self.responses.restart();
    }

    /// Processes reads.
    pub fn read(&mut self, reads: &Reads<'_>, out: &mut dyn Sink) {
        if let Some(session) = &mut self.session {
            session.read(reads);
            return;
        }
        // A request whose response has begun may still be read.
        let responding = self.responding.take_if(|request| !request.complete);
        let is_early = responding.is_some();
        if let Some(request) = responding {
            self.requests.pending.push_front(request);
        }
        self.requests.feed(reads, |loss| out.lost(loss));
        if is_early {
            self.responding = self.requests.pending.pop_front();
        }
        self.settle(out);
        while self.requests.pending.len() > PENDING_CAP {
            self.requests.pending.pop_front();
            out.event(Event::Unfinished(Unfinished::Evicted));
        }
    }

    /// Drops the requests before the newest if responses may have been missed: a client that sends one request at a time
    /// has had theirs.
    fn settle(&mut self, out: &mut dyn Sink) {
        let mut open = self.requests.pending.len() + usize::from(self.responding.is_some());
        if !self.trust.drops_older() {
            self.trust.pipelines |= open > 1;
            return;
        }
        while open > 1 {
            if self.responding.take().is_some() {
                self.responses.restart();
            } else {
                self.requests.pending.pop_front();
            }
            open -= 1;
            self.trust.lose();
            out.event(Event::Unfinished(Unfinished::Unobserved));
        }
    }

    /// Processes writes.
    pub fn write(&mut self, writes: &Writes<'_>, out: &mut dyn Sink) {
        self.requests.name_so_far();
        let is_answer = !self.requests.pending.is_empty();
        if self.trust.after_loss && is_answer && http1::status_of(writes.visible).is_none() {
            // The rest of the lost response, or the beginning of another one.
            self.trust.lose();
        }
        let Self {
            records,
            requests,
            responses,
            responding,
            missed_bytes,
            switching,
            session,
            trust,
            ..
        } = self;
        if let Some(session) = session {
            session.write(writes, 0);
            return;
        }
        let mut upgraded = false;
        let pending = &mut requests.pending;
        responses.feed(
            writes,
            || pending.pop_front(),
            |step, request| {
                upgraded |= matches!(step, Step::Upgraded(_) | Step::Switched | Step::Session(_));
                match step {
                    Step::Began => {
                        trust.after_loss = false;
                        *responding = request;
                    }
                    Step::Ended(response) | Step::Upgraded(response) => {
                        *missed_bytes += unpaired_bytes(responding.as_ref(), &response);
                        trust.report(records.peer, responding.take(), response, out);
                    }
                    Step::Switched => *switching = responding.take(),
                    Step::Session(response) => match responding.take() {
                        Some(request) => {
                            // The head is the beginning of the write, or its end follows one that is.
                            let head_bytes = response.bytes;
                            let begun = session.insert(Box::new(Session::new(request, response)));
                            begun.write(writes, head_bytes);
                        }
                        None => out.event(pair(records.peer, None, response)),
                    },
                }
            },
        );
        if upgraded {
            requests.tunnel();
        }
    }
}

/// Returns the requests in what a server has read of a connection of which no record was emitted yet.
pub fn requests_in(view: &RecordView<'_>) -> Vec<Request> {
    let mut requests = RequestStream::default();
    requests.feed(&Reads::of(view), |_| {});
    requests.pending.into()
}

/// Bytes of a request and a response that do not make an exchange.
fn unpaired_bytes(request: Option<&Request>, response: &Response) -> u64 {
    match request {
        Some(_) if response.status != 0 => 0,
        Some(request) => request.bytes + response.bytes,
        None => response.bytes,
    }
}

#[cfg(test)]
mod tests;
