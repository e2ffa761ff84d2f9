//! Follows one TLS connection without a key: by the headers of its records, and the two hellos; and reads it, if its library's
//! plaintext is known.
//!
//! `walk` finds the records, `handshake` follows them up to the client's Finished, `turns` pairs requests and responses of
//! HTTP/1, `reading` reads them, and `multiplexed` measures HTTP/2. Until it is known which of them is spoken, requests are held back.
//! Does not depend on: keys, names of processes, any server.

pub mod client_record;
pub mod handshake;
pub mod listeners;
pub mod multiplexed;
pub mod plaintext;
pub mod reading;
pub mod tickets;
pub mod turns;
pub mod walk;

use inferprobe_ebpf::{
    abi::{Record, kind},
    view::RecordView,
};

use crate::{
    exchange::{
        Peer, Request,
        byte_accounting::ServingSocket,
        event::{Event, Loss, Secured, Sink, TlsEvent, Unfinished},
        reads::Reads,
        record_stream::RecordStream,
        tls::{
            client_record::ClientRecord,
            handshake::{Finished, Handshake},
            listeners::{HandshakeKind, Listeners},
            multiplexed::Busy,
            plaintext::{Plaintexts, content::ReadSink},
            reading::{Change, Discard, Reading},
            tickets::TicketCheck,
            turns::{ServerPart, Turns},
            walk::{Of, Part, Walk},
        },
        writes::Writes,
    },
    protocol::tls::{Alpn, Version, message_type, record_type},
};

/// Silence after which a response counts as finished, at an unknown time, ns: most servers close idle connections sooner,
/// which ends a response at its last write.
const QUIET_NS: u64 = 5_000_000_000;
/// Silence after which a response no longer counts as being written, ns.
const WRITING_NS: u64 = 500_000_000;
/// Exchanges after which a connection that shows no sign of HTTP/2 speaks HTTP/1.
const HELD_CAP: usize = 4;
/// Bytes of a record's header.
const HEAD: u32 = 5;
/// Fewest bytes of a record with the beginning of a request.
const REQUEST_LEAST: u32 = 18 + 17;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// HTTP/1, or one request at a time.
    Http1,
    /// HTTP/2.
    Http2,
    /// Not known yet.
    Undecided,
    /// It will not be known.
    Unknown,
}

/// One TLS connection.
#[derive(Debug)]
pub struct TlsConnection {
    /// Its records.
    pub records: RecordStream,
    listeners: Listeners,
    client: Walk,
    server: Walk,
    /// The client's record that is being read.
    partial: Option<ClientRecord>,
    /// When the latest write returned, ns: a write that is reported in parts has one return.
    returned_ns: u64,
    handshake: Handshake,
    /// `None` until the handshake is over.
    turns: Option<Turns>,
    /// How long the handshake took, ns.
    handshake_ns: Option<u64>,
    /// Whether the connection was open before the agent.
    is_joined: bool,
    /// The client's whole records.
    client_records: u64,
    spoken: Spoken,
    /// What came of the connection as HTTP/1, while it is not known what it speaks.
    held: Vec<Event>,
    busy: Busy,
    reading: Reading,
    missed_bytes: u64,
    /// Time of the latest tick, ns.
    ticked_ns: u64,
}

impl TlsConnection {
    /// Opens a connection to `peer`, of which `record` is the first record.
    /// `plaintexts` is what its library reads and writes; `None`: not observed.
    pub fn new(
        record: &Record,
        peer: Peer,
        listeners: Listeners,
        plaintexts: Option<Plaintexts>,
    ) -> Self {
        Self {
            records: RecordStream::new(record, peer),
            listeners,
            client: Walk::default(),
            server: Walk::default(),
            partial: None,
            returned_ns: 0,
            handshake: Handshake::default(),
            turns: None,
            handshake_ns: None,
            is_joined: false,
            client_records: 0,
            spoken: Spoken::Undecided,
            held: Vec::new(),
            busy: Busy::default(),
            reading: Reading::new(plaintexts),
            missed_bytes: 0,
            ticked_ns: 0,
        }
    }

    /// Processes a record; returns whether the connection stays open.
    pub fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) -> bool {
        if !self.records.push(&view.record) {
            out.lost(Loss::Resynchronised);
            self.client.lose();
            self.server.lose();
            self.lose(out);
        }
        match view.record.kind {
            kind::READ => self.read(view, out),
            kind::EXCHANGE => {
                self.read(view, out);
                self.write(view, out);
            }
            kind::PROGRESS => self.write(view, out),
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
        out.lost(Loss::Unobserved);
        self.client.lose();
        self.server.lose();
        self.lose(out);
    }

    /// Bytes since the last call that belong to no request.
    pub fn take_missed_bytes(&mut self) -> u64 {
        let of_turns = self.turns.as_mut().map_or(0, Turns::take_missed_bytes);
        let of_messages = match &mut self.reading.content {
            Some(content) => content.http1.take_missed_bytes(),
            None => of_turns,
        };
        std::mem::take(&mut self.missed_bytes) + of_messages
    }

    /// Whether a response has begun; its end is unknown until the client's next record.
    pub fn is_responding(&self) -> bool {
        if let Some(content) = &self.reading.content {
            return content.http1.is_responding();
        }
        self.turns.as_ref().is_some_and(Turns::is_responding)
    }

    /// Whether no request is open.
    pub fn is_idle(&self) -> bool {
        let is_idle = match &self.reading.content {
            Some(content) => content.http1.is_idle(),
            None => self.turns.as_ref().is_none_or(Turns::is_idle),
        };
        self.partial.is_none() && is_idle
    }

    /// Whether its plaintext is read.
    pub fn is_read(&self) -> bool {
        self.reading.content.is_some()
    }

    /// Returns the open request, if it is known to be one. `unreported`: what was read and is in no record yet.
    pub fn open_requests(&self, unreported: Option<&RecordView<'_>>) -> Vec<Request> {
        let (Spoken::Http1, Some(turns)) = (self.spoken, &self.turns) else {
            return Vec::new();
        };
        if let Some(content) = &self.reading.content {
            let open = content.http1.open_requests(None);
            if !open.is_empty() {
                return open;
            }
        }
        let is_read = self.is_read();
        let is_silent = turns
            .latest_write_ns()
            .is_some_and(|ns| self.ticked_ns.saturating_sub(ns) >= WRITING_NS);
        if let Some(request) = turns.open_request().filter(|_| !is_silent && !is_read) {
            return vec![request.clone()];
        }
        let unreported = unreported.filter(|view| view.record.seq == self.records.latest_seq());
        let Some(view) = unreported else {
            return Vec::new();
        };
        let reads = Reads::of(view);
        let begun = ClientRecord::begun(record_type::DATA, HEAD, &reads, 0);
        // Alerts and new keys are shorter than any request.
        let may_be_request = reads.bytes > u64::from(HEAD + REQUEST_LEAST);
        let request = may_be_request.then(|| turns::begun(&begun, 0));
        request.into_iter().collect()
    }

    /// Finishes a response that has been silent for [`QUIET_NS`]. More of it may follow, so its end is unknown.
    pub fn end_if_quiet(&mut self, now_ns: u64, out: &mut dyn Sink) {
        self.ticked_ns = now_ns;
        if let Some(content) = &mut self.reading.content {
            content.http1.end_if_quiet(now_ns, &mut ReadSink(out));
            return;
        }
        let quiet_ns = now_ns.saturating_sub(self.records.latest_ns);
        if quiet_ns >= QUIET_NS && self.is_responding() {
            self.with_turns(out, |turns, peer, out| turns.end(false, peer, out));
        }
    }

    /// Ends the connection: the open response ends with it, and a request without one is unfinished.
    pub fn close(&mut self, reason: Unfinished, out: &mut dyn Sink) {
        if self.spoken == Spoken::Undecided && !self.is_joined && self.turns.is_some() {
            self.decide(Spoken::Http1, out);
        }
        if let Some(content) = &mut self.reading.content {
            let is_incomplete = self.partial.is_some() && content.http1.is_idle();
            content.http1.close(reason, &mut ReadSink(out));
            if is_incomplete {
                out.event(Event::Unfinished(Unfinished::Incomplete));
            }
            self.reading.end();
            return;
        }
        match self.spoken {
            Spoken::Http1 => {
                let is_cut = self.partial.is_some();
                self.with_turns(out, |turns, peer, out| {
                    let is_incomplete = is_cut && turns.is_idle();
                    turns.close(reason, peer, out);
                    if is_incomplete {
                        out.event(Event::Unfinished(Unfinished::Incomplete));
                    }
                });
            }
            Spoken::Http2 => self.end_busy(out),
            Spoken::Undecided if self.is_joined => self.decide(Spoken::Unknown, out),
            Spoken::Undecided => out.lost(Loss::TlsNoHandshake),
            Spoken::Unknown => {}
        }
    }

    fn socket(&self) -> ServingSocket {
        (self.records.peer.tgid, self.records.peer.local_port)
    }

    /// Calls `act` with the turns, if there are any: what comes of them waits until it is known what is spoken.
    fn with_turns(
        &mut self,
        out: &mut dyn Sink,
        act: impl FnOnce(&mut Turns, Peer, &mut dyn Sink),
    ) {
        let Some(turns) = &mut self.turns else {
            return;
        };
        match self.spoken {
            _ if self.reading.content.is_some() => act(turns, self.records.peer, &mut Discard),
            Spoken::Undecided => act(turns, self.records.peer, &mut self.held),
            _ => act(turns, self.records.peer, out),
        }
    }

    fn lose(&mut self, out: &mut dyn Sink) {
        self.partial = None;
        let change = self.reading.end();
        self.on_change(change, out);
        self.with_turns(out, |turns, _, out| turns.lose(out));
    }

    /// Processes that the plaintext of the connection becomes known, or is not known any more.
    fn on_change(&mut self, change: Change, out: &mut dyn Sink) {
        match change {
            Change::Same => {}
            Change::Joined => {
                if self.spoken == Spoken::Undecided {
                    self.decide(Spoken::Http1, out);
                }
            }
            Change::Ended { reported } => {
                out.lost(Loss::TlsUnjoined);
                if reported && let Some(turns) = &mut self.turns {
                    turns.forget();
                }
            }
        }
    }

    fn read(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) {
        let reads = Reads::of(view);
        let mut parts = Vec::new();
        let begins = view.record.read_offset == 0;
        self.client
            .feed(reads.visible, reads.bytes, begins, |part| parts.push(part));
        for Part { of, at, bytes } in parts {
            let last = (at + bytes).saturating_sub(1);
            match of {
                Of::Record {
                    kind,
                    fragment,
                    begins,
                    ends,
                } => {
                    if begins {
                        self.partial = Some(ClientRecord::begun(kind, HEAD, &reads, at));
                    }
                    let Some(record) = &mut self.partial else {
                        continue;
                    };
                    record.extend(&reads, last);
                    record.fragment = fragment;
                    record.kind = kind;
                    if ends && let Some(record) = self.partial.take() {
                        self.on_client(record, out);
                    }
                }
                Of::Plain => {
                    // The kernel decrypts: each read is a piece of its own.
                    let mut record = ClientRecord::begun(record_type::DATA, 0, &reads, at);
                    record.extend(&reads, last);
                    record.fragment = u32::try_from(bytes).unwrap_or(u32::MAX);
                    self.on_client(record, out);
                }
                Of::Unfollowed => self.on_unfollowed(bytes, out),
            }
        }
    }

    fn write(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) {
        let writes = self.records.writes(view);
        let begins = writes.end_ns != self.returned_ns;
        self.returned_ns = writes.end_ns;
        let mut parts = Vec::new();
        self.server
            .feed(writes.visible, writes.bytes, begins, |part| {
                parts.push(part);
            });
        let mut data = Vec::new();
        for Part { of, bytes, .. } in parts {
            match of {
                Of::Record {
                    kind: record_type::DATA,
                    fragment,
                    begins,
                    ends,
                } => data.push(ServerPart {
                    fragment,
                    plaintext: self.handshake.suite().plaintext(fragment),
                    bytes,
                    begins,
                    ends,
                }),
                Of::Record { kind, fragment, .. } => {
                    let messages = &self.server.handshake;
                    let reads_record = self.partial.is_some();
                    let ended = self
                        .handshake
                        .on_server(kind, fragment, messages, reads_record);
                    self.on_finished(ended, out);
                }
                Of::Plain => {
                    let plain = &self.server.plain;
                    let is_message = plain.starts_with(&[message_type::NEW_SESSION_TICKET, 0]);
                    if !is_message {
                        let plaintext = u32::try_from(bytes).unwrap_or(u32::MAX);
                        data.push(ServerPart {
                            fragment: plaintext,
                            plaintext,
                            bytes,
                            begins: true,
                            ends: true,
                        });
                    }
                }
                Of::Unfollowed => self.on_unfollowed(bytes, out),
            }
        }
        if !data.is_empty() {
            self.on_server_data(&writes, &data, out);
        }
    }

    /// Processes a whole record of the client.
    fn on_client(&mut self, record: ClientRecord, out: &mut dyn Sink) {
        self.client_records += 1;
        if self.turns.is_some() {
            if record.kind == record_type::DATA {
                self.on_client_data(&record, out);
            }
            return;
        }
        if !self.handshake.has_begun() && record.kind == record_type::DATA {
            self.is_joined = true;
            let tickets = TicketCheck::over(self.listeners.clone(), self.socket());
            self.turns = Some(Turns::new(self.handshake.suite(), true, tickets));
            return self.on_client_data(&record, out);
        }
        let messages = &self.client.handshake;
        let ended = self.handshake.on_client(record, messages);
        self.on_finished(ended, out);
    }

    /// Processes the end of the handshake, if this is it.
    fn on_finished(&mut self, ended: Option<Finished>, out: &mut dyn Sink) {
        let Some(Finished { read_ns, data }) = ended else {
            return;
        };
        let handshake = &self.handshake;
        let kind = HandshakeKind {
            resumed: handshake.resumed().unwrap_or(false),
            client_certificate: handshake.client_certificate().unwrap_or(false),
        };
        let hides_types = handshake
            .version()
            .is_none_or(|version| version == Version::Tls13);
        let tickets = TicketCheck::new(self.listeners.clone(), self.socket(), kind, read_ns);
        self.turns = Some(Turns::new(handshake.suite(), hides_types, tickets));
        self.client.end_handshake();
        self.server.end_handshake();
        self.handshake_ns = handshake
            .arrival_ns()
            .map(|arrival_ns| read_ns.saturating_sub(arrival_ns));
        if handshake.early_bytes() > 0 {
            self.missed_bytes += handshake.early_bytes();
            out.lost(Loss::TlsEarlyData);
        }
        let may_be_http2 = handshake.client().is_none_or(|client| client.offers_http2);
        match handshake.alpn() {
            Some(Alpn::Http2) => self.decide(Spoken::Http2, out),
            Some(Alpn::Other) => self.decide(Spoken::Unknown, out),
            Some(_) => self.decide(Spoken::Http1, out),
            None if !may_be_http2 => self.decide(Spoken::Http1, out),
            None => {}
        }
        for record in data {
            self.on_client_data(&record, out);
        }
    }

    /// Processes a record of data that the server read.
    fn on_client_data(&mut self, record: &ClientRecord, out: &mut dyn Sink) {
        let Some(turns) = &mut self.turns else {
            return;
        };
        let plaintext = turns.suite.plaintext(record.fragment);
        let begins = turns.is_idle() || turns.is_responding();
        if self.spoken == Spoken::Undecided && begins && multiplexed::is_control(plaintext) {
            self.decide(Spoken::Http2, out);
        }
        match self.spoken {
            Spoken::Http1 | Spoken::Undecided => {
                if record.head > 0 {
                    let change = self.reading.read(record, plaintext, out);
                    self.on_change(change, out);
                }
                self.with_turns(out, |turns, peer, out| turns.read(record, peer, out));
                self.decide_by_others(out);
            }
            Spoken::Http2 => {
                self.missed_bytes += record.bytes();
                if !multiplexed::is_control(plaintext) {
                    let busy_ns = self.busy.read(record);
                    self.note_busy(busy_ns, out);
                }
            }
            Spoken::Unknown => {
                self.missed_bytes += record.bytes();
                if self.is_joined && !self.listeners.spoken(self.socket()).http2 {
                    self.spoken = Spoken::Undecided;
                }
            }
        }
    }

    /// Processes the records of data in a write.
    fn on_server_data(&mut self, writes: &Writes<'_>, data: &[ServerPart], out: &mut dyn Sink) {
        if self.turns.is_none() {
            let messages = &self.server.handshake;
            for part in data.iter().filter(|part| part.begins) {
                let fragment = part.fragment;
                let reads_record = self.partial.is_some();
                let ended =
                    self.handshake
                        .on_server(record_type::DATA, fragment, messages, reads_record);
                if ended.is_some() {
                    self.on_finished(ended, out);
                    break;
                }
            }
        }
        let Some(turns) = &mut self.turns else {
            return;
        };
        if self.spoken == Spoken::Undecided {
            let mut begun = data.iter().filter(|part| part.begins);
            let is_first = !turns.is_responding();
            let shows_http2 = match turns.is_idle() {
                true => begun.any(|part| multiplexed::may_be_settings(part.plaintext)),
                false => is_first && begun.any(|part| multiplexed::is_control(part.plaintext)),
            };
            if shows_http2 {
                self.decide(Spoken::Http2, out);
            }
        }
        match self.spoken {
            Spoken::Http1 | Spoken::Undecided => {
                self.read_written(writes, data, out);
                self.with_turns(out, |turns, _, _| turns.write(writes, data));
                let responded = self.turns.as_ref().is_some_and(Turns::is_responding);
                self.reading.note_response(responded);
            }
            Spoken::Http2 => {
                self.missed_bytes += data.iter().map(|part| part.bytes).sum::<u64>();
                if !data
                    .iter()
                    .all(|part| multiplexed::is_control(part.plaintext))
                {
                    self.busy.write(writes);
                }
            }
            Spoken::Unknown => {
                self.missed_bytes += data.iter().map(|part| part.bytes).sum::<u64>();
            }
        }
    }

    /// Reads the records of data in a write, if their plaintext is known.
    fn read_written(&mut self, writes: &Writes<'_>, data: &[ServerPart], out: &mut dyn Sink) {
        for part in data {
            let peer = self.records.peer;
            let mut events = Vec::new();
            let change = self.reading.write(peer, writes, part, &mut events);
            // What was held back comes first.
            self.on_change(change, out);
            for event in events {
                out.event(event);
            }
        }
    }

    /// Decides by what the listener's other connections speak, or because this one shows no sign of HTTP/2.
    fn decide_by_others(&mut self, out: &mut dyn Sink) {
        if self.spoken != Spoken::Undecided {
            return;
        }
        if self.is_joined {
            let others = self.listeners.spoken(self.socket());
            match (others.http1, others.http2) {
                // Arbitrary bytes do not look like two records.
                (true, false) if self.client_records > 1 => self.decide(Spoken::Http1, out),
                (false, true) => self.decide(Spoken::Http2, out),
                (true, true) => self.decide(Spoken::Unknown, out),
                _ if self.held.len() >= 2 * HELD_CAP => self.decide(Spoken::Unknown, out),
                _ => {}
            }
        } else if self.held.len() >= 2 * HELD_CAP {
            self.decide(Spoken::Http1, out);
        }
    }

    /// Records what the connection speaks, and reports what was held back, if it was right.
    fn decide(&mut self, spoken: Spoken, out: &mut dyn Sink) {
        self.spoken = spoken;
        let held = std::mem::take(&mut self.held);
        let shown = self.handshake.alpn();
        if !self.is_joined {
            out.event(Event::Tls(
                self.records.peer,
                TlsEvent::Secured(Secured {
                    version: self.handshake.version(),
                    alpn: shown.or((spoken == Spoken::Http2).then_some(Alpn::Http2)),
                    resumed: self.handshake.resumed(),
                    client_certificate: self.handshake.client_certificate(),
                    handshake_ns: self.handshake_ns,
                }),
            ));
            if spoken != Spoken::Unknown {
                self.listeners
                    .note_spoken(self.socket(), spoken == Spoken::Http2);
            }
        }
        match spoken {
            Spoken::Http1 | Spoken::Undecided => {
                for event in held {
                    out.event(event);
                }
                return;
            }
            Spoken::Http2 => out.lost(Loss::TlsMultiplexed),
            Spoken::Unknown => out.lost(Loss::TlsUndecided),
        }
        for event in held {
            if let Event::Finished(exchange) = event {
                self.missed_bytes += exchange.request.bytes + exchange.response.bytes;
            }
        }
        if let Some(turns) = &mut self.turns {
            turns.lose(&mut Vec::new());
        }
    }

    /// Counts bytes that could not be followed, and drops what was open.
    fn on_unfollowed(&mut self, bytes: u64, out: &mut dyn Sink) {
        self.missed_bytes += bytes;
        out.lost(Loss::TlsUnfollowed);
        self.lose(out);
    }

    fn end_busy(&mut self, out: &mut dyn Sink) {
        let busy_ns = self.busy.end();
        self.note_busy(busy_ns, out);
    }

    fn note_busy(&self, busy_ns: u64, out: &mut dyn Sink) {
        if busy_ns > 0 {
            out.event(Event::Tls(self.records.peer, TlsEvent::Busy(busy_ns)));
        }
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
