//! Pairs requests and responses of HTTP/1 that are encrypted: a run of the client's records is a request, the next one of the
//! server's its response.
//!
//! What is no part of either is told apart by its length: alerts, session tickets, new keys, `100 Continue`.
//! Does not depend on: the handshake, how records are found.

use crate::{
    exchange::{
        Exchange, Peer, Request, Response,
        chunks::Chunks,
        event::{Event, Loss, Sink, TlsEvent, Unfinished},
        tls::{
            client_record::ClientRecord,
            tickets::{TicketCheck, Told},
        },
        writes::Writes,
    },
    protocol::tls::Suite,
};

/// Bytes of an alert.
const ALERT: u32 = 2;
/// Bytes of a message that announces new keys, of TLS 1.3; and of the last chunk of a body.
const KEY_UPDATE: u32 = 5;
const LAST_CHUNK: u32 = 5;
/// Bytes of `HTTP/1.1 100 Continue` and the line ends after it.
const CONTINUE: u32 = 25;

/// A record of the server, as far as one write contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerPart {
    /// Bytes after its header; of what the kernel encrypts, the bytes of the write.
    pub fragment: u32,
    /// Bytes of plaintext in it.
    pub plaintext: u32,
    /// Bytes on the connection in this write.
    pub bytes: u64,
    /// Whether its first byte is in this write.
    pub begins: bool,
    /// Whether its last byte is.
    pub ends: bool,
}

/// The open turn of one connection.
#[derive(Debug)]
pub struct Turns {
    /// What the cipher adds to a record.
    pub suite: Suite,
    /// Whether alerts, tickets and new keys look like data: from TLS 1.3 on.
    pub hides_types: bool,
    tickets: TicketCheck,
    next_index: u32,
    request: Option<Request>,
    answer: Option<Answer>,
    /// What the response is if records that are likely tickets are not.
    unlikely: Option<Answer>,
    /// The server's record that is being written is no part of a response.
    skips: bool,
    /// Announcements of the client's new keys that the server has not answered with its own.
    key_updates: u32,
    missed_bytes: u64,
}

/// A response that has begun.
#[derive(Debug)]
struct Answer {
    response: Response,
    chunks: Chunks,
    writes: u32,
    /// Start of the latest write, ns.
    latest_start_ns: u64,
    /// Whether so far it may be `100 Continue`.
    may_continue: bool,
}

impl Answer {
    /// Adds what a write contains of one record.
    fn add(&mut self, writes: &Writes<'_>, part: &ServerPart) {
        self.response.last_write_ns = Some(writes.end_ns);
        self.latest_start_ns = writes.start_ns;
        if part.ends {
            self.response.bytes += u64::from(part.plaintext);
        }
    }
}

impl Turns {
    /// Starts after a handshake.
    pub fn new(suite: Suite, hides_types: bool, tickets: TicketCheck) -> Self {
        Self {
            suite,
            hides_types,
            tickets,
            next_index: 0,
            request: None,
            answer: None,
            unlikely: None,
            skips: false,
            key_updates: 0,
            missed_bytes: 0,
        }
    }

    /// Whether a response has begun; its end is unknown until the client's next record.
    pub fn is_responding(&self) -> bool {
        self.answer.is_some() || self.unlikely.is_some()
    }

    /// Whether no request is open.
    pub fn is_idle(&self) -> bool {
        self.request.is_none()
    }

    /// The request that is not answered to its end.
    pub fn open_request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// When the latest write of the present response returned, ns.
    pub fn latest_write_ns(&self) -> Option<u64> {
        let answer = self.answer.as_ref().or(self.unlikely.as_ref())?;
        answer.response.last_write_ns
    }

    /// Bytes since the last call that belong to no request.
    pub fn take_missed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.missed_bytes)
    }

    /// Adds a whole record of data that the server read.
    pub fn read(&mut self, record: &ClientRecord, peer: Peer, out: &mut dyn Sink) {
        let plaintext = match record.head {
            0 => record.fragment,
            _ => self.suite.plaintext(record.fragment),
        };
        if self.hides_types && plaintext == ALERT {
            return;
        }
        if self.unlikely.take().is_some() {
            // More of the request follows: an upload of which the first bytes came with the client's Finished.
            self.tickets.on_likely();
        }
        let is_between = self.request.is_none() || self.answer.is_some();
        if self.hides_types && plaintext == KEY_UPDATE && is_between {
            self.key_updates += 1;
            return;
        }
        if let Some(answer) = &mut self.answer {
            let came_before = |ns: u64| record.arrival_ns.is_some_and(|arrival| arrival < ns);
            if answer.may_continue {
                self.answer = None;
            } else if came_before(answer.latest_start_ns)
                || record.first_read_ns < answer.response.first_write_ns
            {
                // The rest of a request that was answered early, or another request.
                answer.response.early = true;
                out.lost(Loss::TlsOverlapped);
            } else {
                self.finish(peer, out);
            }
        }
        self.tickets.on_request(record.first_read_ns);
        let next_index = self.next_index;
        let request = self
            .request
            .get_or_insert_with(|| begun(record, next_index));
        request.last_read_ns = record.last_read_ns;
        request.last_arrival_ns = record.last_arrival_ns;
        request.reader_tid = record.reader_tid;
        request.bytes += u64::from(plaintext);
        self.next_index = request.index.wrapping_add(1);
    }

    /// Adds a write of the server: what it contains of records of data.
    pub fn write(&mut self, writes: &Writes<'_>, parts: &[ServerPart]) {
        for (index, part) in parts.iter().enumerate() {
            if part.begins {
                self.skips = !self.begins_response(writes, part, &parts[index..]);
            }
            let answer = match self.skips {
                true => &mut self.unlikely,
                false => &mut self.answer,
            };
            if let Some(answer) = answer {
                answer.add(writes, part);
            } else if !self.skips {
                self.missed_bytes += part.bytes;
            }
        }
        if let Some(answer) = &mut self.answer
            && parts.iter().any(|part| part.begins)
            && !self.skips
        {
            answer.writes += 1;
            let is_end = parts.len() == 1 && parts[0].plaintext == LAST_CHUNK;
            if answer.writes > 1 && !is_end {
                answer.chunks.note(writes.start_ns);
            }
        }
    }

    /// Whether the record that `part` begins is part of a response, which it begins if none is open. `rest` are the write's parts
    /// from there on.
    fn begins_response(
        &mut self,
        writes: &Writes<'_>,
        part: &ServerPart,
        rest: &[ServerPart],
    ) -> bool {
        let is_encrypted_here = part.fragment != part.plaintext;
        if self.hides_types
            && part.plaintext == ALERT
            && (is_encrypted_here || self.answer.is_none())
        {
            return false;
        }
        if self.request.is_none() {
            self.tickets.on_unasked(part.fragment);
            return false;
        }
        if let Some(answer) = &mut self.answer {
            answer.may_continue = false;
            return true;
        }
        let next = rest.get(1).map(|next| next.fragment);
        let told = match self.hides_types {
            true => self.tickets.tell(part.fragment, next),
            false => Told::Response,
        };
        if told == Told::Ticket {
            return false;
        }
        if self.hides_types && part.plaintext == KEY_UPDATE && self.key_updates > 0 {
            self.key_updates -= 1;
            return false;
        }
        let answer = Answer {
            response: Response {
                first_write_ns: writes.start_ns,
                first_write_bounded: writes.start_bounded || self.tickets.is_doubtful(),
                thread_wait: writes.thread_wait,
                ..Response::NOT_BEGUN
            },
            chunks: Chunks::unread(),
            writes: 0,
            latest_start_ns: writes.start_ns,
            may_continue: part.plaintext == CONTINUE && rest.len() == 1,
        };
        if told == Told::Likely {
            self.unlikely.get_or_insert(answer);
            return false;
        }
        self.unlikely = None;
        self.answer = Some(answer);
        true
    }

    /// Takes what seemed to be tickets for the response, because nothing followed.
    fn settle(&mut self) {
        if self.answer.is_none() {
            self.answer = self.unlikely.take();
        }
    }

    /// Ends a response of which no more will be observed; its last write was the last, unless `end_is_known` is false.
    pub fn end(&mut self, end_is_known: bool, peer: Peer, out: &mut dyn Sink) {
        self.settle();
        if let Some(answer) = &mut self.answer
            && !end_is_known
        {
            answer.response.last_write_ns = None;
        }
        self.finish(peer, out);
    }

    /// Ends the connection: the open response ends with it, and a request without one is unfinished.
    pub fn close(&mut self, reason: Unfinished, peer: Peer, out: &mut dyn Sink) {
        self.end(true, peer, out);
        if let Some(request) = self.request.take() {
            out.event(Event::Unfinished(reason));
            if reason == Unfinished::Unanswered {
                out.event(Event::Abandoned(peer, request));
            }
        }
    }

    /// Drops the open turn, which was reported otherwise; returns its request.
    pub fn forget(&mut self) -> Option<Request> {
        self.skips = false;
        self.answer = None;
        self.unlikely = None;
        self.request.take()
    }

    /// Drops the open turn, because records are missing.
    pub fn lose(&mut self, out: &mut dyn Sink) {
        if let Some(request) = self.forget() {
            self.missed_bytes += request.bytes;
            out.event(Event::Unfinished(Unfinished::LostRecords));
        }
    }

    /// Reports the exchange, if its response has begun.
    fn finish(&mut self, peer: Peer, out: &mut dyn Sink) {
        let Some(answer) = self.answer.take() else {
            return;
        };
        let Some(request) = self.request.take() else {
            return;
        };
        self.tickets.on_finished();
        out.event(Event::Tls(peer, TlsEvent::Timed));
        out.event(Event::Finished(Exchange {
            peer,
            request,
            response: Response {
                chunks: Some(Box::new(answer.chunks)),
                ..answer.response
            },
        }));
    }
}

/// A request that begins with `record`.
pub fn begun(record: &ClientRecord, index: u32) -> Request {
    Request {
        index,
        method: String::new(),
        target: String::new(),
        arrival_ns: record.arrival_ns,
        first_read_ns: record.first_read_ns,
        last_read_ns: record.last_read_ns,
        last_arrival_ns: None,
        reader_tid: None,
        bytes: 0,
        complete: true,
        named: None,
        user_agent: None,
        content_cut: true,
    }
}
