//! Every connection that records speak of, and the ones whose answers are under way.

use std::collections::{HashMap, HashSet};

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, flag, kind, mode},
    view::RecordView,
};

use crate::{
    exchange::{
        Peer,
        byte_accounting::{ByteAccount, ByteCounts, Coverage, ServingSocket},
        event::{Event, Loss, Unfinished},
        http1::Http1Connection,
        http2::Http2Connection,
        opaque::OpaqueConnection,
    },
    protocol::zmtp,
    torchserve::connection::WorkerConnection,
};

/// Connections that are kept; past it, the silent ones go.
const CONNECTION_CAP: usize = 65_536;
/// Silence after which a connection may be forgotten, ns: the kernel tells when TCP ends, but not AF_UNIX.
const FORGET_NS: u64 = 600_000_000_000;
/// Time between looks for silent connections, ns.
const SWEEP_NS: u64 = 30_000_000_000;

/// How long the records of a process that ended may be on their way, ns.
const LAST_RECORDS_NS: u64 = 1_000_000_000;

/// The connections.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    /// Whether no byte of messages comes up from the kernel.
    unread: bool,
    connections: HashMap<u64, Tracked>,
    /// Bytes by server, until they are exported.
    pub coverage: Coverage,
    answering: HashSet<u64>,
    /// When connections were accepted that no other record told of yet, by cookie.
    accepted: HashMap<u64, u64>,
    /// Processes that ended, and when: the kernel does not tell when their AF_UNIX connections do.
    ended: Vec<(u64, u32)>,
    ticked_ns: u64,
    swept_ns: u64,
}

/// A connection, and its bytes.
#[derive(Debug)]
struct Tracked {
    speaker: Speaker,
    /// Of all but [`flag::ANSWERS`], and of these.
    accounts: [ByteAccount; 2],
}

/// A connection, by what it speaks.
#[derive(Debug)]
enum Speaker {
    Http(Box<Http1Connection>),
    Unread(Box<OpaqueConnection>),
    Http2(Box<Http2Connection>),
    Worker(Box<WorkerConnection>),
    /// Between processes of one server, and of no interest.
    Inner {
        /// Latest record, ns.
        latest_ns: u64,
    },
}

impl Tracked {
    fn new(view: &RecordView<'_>, unread: bool, accepted_ns: Option<u64>) -> Self {
        let record = &view.record;
        let peer = Peer {
            accepted_ns,
            ..peer_of(record)
        };
        Self {
            speaker: Speaker::new(view, unread, peer),
            accounts: Default::default(),
        }
    }

    /// What a record that was taken in came to in bytes; `None` on a connection of workers, which no requests come on.
    fn tally(&mut self, record: &Record, alive: bool) -> Option<ByteCounts> {
        let missed_bytes = self.speaker.take_missed_bytes()?;
        let is_settled = !alive || self.speaker.is_idle();
        let side = usize::from(record.flags & flag::ANSWERS != 0);
        let mut tally = self.accounts[side].take(record, is_settled);
        tally.missed_bytes += missed_bytes;
        Some(tally)
    }
}

impl Speaker {
    fn new(view: &RecordView<'_>, unread: bool, peer: Peer) -> Self {
        let record = &view.record;
        match record.mode {
            _ if unread => Self::Unread(Box::new(OpaqueConnection::new(record, peer))),
            mode::FRAMES => Self::Worker(Box::new(WorkerConnection::new(record, peer))),
            mode::STREAMS => Self::Http2(Box::new(Http2Connection::new(peer))),
            _ if zmtp::begins(view.request) || zmtp::begins(view.response) => {
                Self::Inner { latest_ns: 0 }
            }
            _ => Self::Http(Box::new(Http1Connection::new(record, peer))),
        }
    }

    fn take(&mut self, view: &RecordView<'_>, out: &mut Vec<Event>) -> bool {
        match self {
            Self::Http(connection) => connection.take(view, out),
            Self::Unread(connection) => connection.take(view, out),
            Self::Http2(connection) => connection.take(view, out),
            Self::Worker(connection) => connection.take(view, out),
            Self::Inner { latest_ns } => {
                if *latest_ns == 0 {
                    out.push(Event::Lost(Loss::InnerProtocol));
                }
                *latest_ns = view.record.last_write_ns.max(view.record.last_read_ns);
                view.record.kind != kind::CLOSE
            }
        }
    }

    fn is_answering(&self) -> bool {
        match self {
            Self::Http(connection) => connection.is_answering(),
            Self::Unread(connection) => connection.is_answering(),
            Self::Http2(_) | Self::Inner { .. } => false,
            Self::Worker(connection) => connection.awaits_reader(),
        }
    }

    fn is_idle(&self) -> bool {
        match self {
            Self::Http(connection) => connection.is_idle(),
            Self::Unread(connection) => connection.is_idle(),
            Self::Http2(connection) => connection.is_idle(),
            Self::Worker(connection) => connection.is_idle(),
            Self::Inner { .. } => true,
        }
    }

    /// Bytes since the last call that belong to no request; `None` where none come.
    fn take_missed_bytes(&mut self) -> Option<u64> {
        match self {
            Self::Http(connection) => Some(connection.take_missed_bytes()),
            Self::Unread(connection) => Some(connection.take_missed_bytes()),
            Self::Http2(connection) => Some(connection.take_missed_bytes()),
            Self::Worker(_) | Self::Inner { .. } => None,
        }
    }

    fn latest_ns(&self) -> u64 {
        match self {
            Self::Http(connection) => connection.sequence.latest_ns,
            Self::Unread(connection) => connection.sequence.latest_ns,
            Self::Http2(connection) => connection.latest_ns,
            Self::Worker(connection) => connection.sequence.latest_ns,
            Self::Inner { latest_ns } => *latest_ns,
        }
    }

    fn evict(&mut self, out: &mut Vec<Event>) {
        match self {
            Self::Http(connection) => connection.close(Unfinished::Evicted, out),
            Self::Unread(connection) => connection.close(Unfinished::Evicted, out),
            Self::Http2(connection) => connection.close(Unfinished::Evicted, out),
            Self::Worker(connection) => connection.close(out),
            Self::Inner { .. } => {}
        }
    }
}

/// Who serves the connection of a record.
fn place_of(record: &Record) -> ServingSocket {
    let is_unix = record.flags & flag::UNIX != 0;
    (record.tgid, (!is_unix).then_some(record.local_port))
}

/// The connection of a record; when it was accepted is not said there.
fn peer_of(record: &Record) -> Peer {
    let is_unix = record.flags & flag::UNIX != 0;
    let (tgid, local_port) = place_of(record);
    Peer {
        cookie: record.cookie,
        tgid,
        local_port,
        peer_port: (!is_unix).then_some(record.peer_port),
        accepted_ns: None,
    }
}

impl ConnectionTable {
    /// No connections yet; of messages, `reads_payload` says whether their bytes come up from the kernel.
    pub fn new(reads_payload: bool) -> Self {
        Self {
            unread: !reads_payload,
            ..Self::default()
        }
    }

    /// Takes in an entry of the record ring.
    pub fn take(&mut self, entry: &[u8], out: &mut Vec<Event>) {
        let Some(mut view) = RecordView::parse(entry) else {
            out.push(Event::Lost(Loss::Malformed));
            return;
        };
        let record = view.record;
        let cookie = record.cookie;
        if record.kind == kind::ACCEPTED {
            self.accepted(&record, out);
            return;
        }
        let accepted_ns = self.accepted.remove(&cookie);
        let begins = !matches!(record.kind, kind::CLOSE | kind::REPLY_READ);
        if !begins && !self.connections.contains_key(&cookie) {
            return;
        }
        if self.connections.len() >= CONNECTION_CAP && !self.connections.contains_key(&cookie) {
            self.forget_silent(record.last_write_ns.max(record.last_read_ns), 0, out);
        }
        let known = self
            .connections
            .entry(cookie)
            .or_insert_with(|| Tracked::new(&view, self.unread, accepted_ns));
        if record.mode == mode::STREAMS
            && let Speaker::Http(http) = &mut known.speaker
        {
            let (upgraded, rest) = http.upgrade(view, out);
            known.speaker = Speaker::Http2(Box::new(upgraded));
            view = rest;
        }
        let alive = known.speaker.take(&view, out);
        if record.kind != kind::REPLY_READ
            && let Some(tally) = known.tally(&record, alive)
        {
            self.coverage.add(place_of(&record), tally);
        }
        if alive && known.speaker.is_answering() {
            self.answering.insert(cookie);
        } else {
            self.answering.remove(&cookie);
        }
        if !alive {
            self.connections.remove(&cookie);
        }
    }

    /// Takes in when a connection was accepted, of which all else is told later. Those of a frontend to its workers do not
    /// count: no request comes on them.
    fn accepted(&mut self, record: &Record, out: &mut Vec<Event>) {
        if record.mode == mode::FRAMES {
            return;
        }
        // The connections whose next record was lost.
        if self.accepted.len() >= CONNECTION_CAP {
            self.accepted.clear();
        }
        let accepted_ns = record.first_read_ns;
        self.accepted.insert(record.cookie, accepted_ns);
        let wait_ns = accepted_ns.saturating_sub(record.arrival_ns);
        out.push(Event::Accepted(peer_of(record), wait_ns));
    }

    /// Looks after answers that are under way: `progress` gives what the kernel holds back of a connection.
    pub fn tick(
        &mut self,
        now_ns: u64,
        mut progress: impl FnMut(u64, u32) -> Option<ProgressSlot>,
        out: &mut Vec<Event>,
    ) {
        self.ticked_ns = now_ns;
        self.close_ended(now_ns, out);
        let connections = &mut self.connections;
        self.answering.retain(|&cookie| {
            match connections.get_mut(&cookie).map(|known| &mut known.speaker) {
                Some(Speaker::Http(connection)) => {
                    if let Some(slot) = progress(cookie, connection.sequence.number()) {
                        connection.take_progress(&slot, out);
                    }
                    connection.end_if_quiet(now_ns, out);
                    connection.is_answering()
                }
                Some(Speaker::Unread(connection)) => {
                    if let Some(slot) = progress(cookie, connection.sequence.number()) {
                        connection.take_progress(&slot);
                    }
                    connection.end_if_quiet(now_ns, out);
                    connection.is_answering()
                }
                Some(Speaker::Worker(connection)) => {
                    connection.end_if_quiet(now_ns, out);
                    connection.awaits_reader()
                }
                Some(Speaker::Http2(_) | Speaker::Inner { .. }) | None => false,
            }
        });
        if now_ns.saturating_sub(self.swept_ns) >= SWEEP_NS {
            self.swept_ns = now_ns;
            self.forget_silent(now_ns, FORGET_NS, out);
        }
    }

    /// Notes that a process ended: its workers' connections end with it.
    pub fn process_ended(&mut self, tgid: u32) {
        self.ended.push((self.ticked_ns, tgid));
    }

    fn close_ended(&mut self, now_ns: u64, out: &mut Vec<Event>) {
        let due = self
            .ended
            .iter()
            .take_while(|(ended_ns, _)| now_ns.saturating_sub(*ended_ns) >= LAST_RECORDS_NS)
            .count();
        if due == 0 {
            return;
        }
        let gone: HashSet<u32> = self.ended.drain(..due).map(|(_, tgid)| tgid).collect();
        self.connections
            .retain(|_, known| match &mut known.speaker {
                Speaker::Worker(connection) if gone.contains(&connection.sequence.peer.tgid) => {
                    connection.close(out);
                    false
                }
                _ => true,
            });
    }

    /// Forgets connections silent for `silence_ns`: the idle ones, then, if that makes no room, all of them.
    fn forget_silent(&mut self, now_ns: u64, silence_ns: u64, out: &mut Vec<Event>) {
        let silent = |speaker: &Speaker| now_ns.saturating_sub(speaker.latest_ns()) >= silence_ns;
        self.connections
            .retain(|_, known| !(known.speaker.is_idle() && silent(&known.speaker)));
        if self.connections.len() < CONNECTION_CAP {
            return;
        }
        let mut oldest: Vec<(u64, u64)> = self
            .connections
            .iter()
            .map(|(&cookie, known)| (known.speaker.latest_ns(), cookie))
            .collect();
        oldest.sort_unstable();
        for (_, cookie) in oldest.into_iter().take(CONNECTION_CAP / 8) {
            if let Some(mut known) = self.connections.remove(&cookie) {
                known.speaker.evict(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(record: Record, request: &[u8], response: &[u8]) -> Vec<u8> {
        let record = Record {
            request_len: u16::try_from(request.len()).unwrap(),
            answer_len: u16::try_from(response.len()).unwrap(),
            read_bytes: request.len() as u64,
            written_bytes: response.len() as u64,
            ..record
        };
        let mut entry = bytemuck::bytes_of(&record).to_vec();
        entry.extend(request);
        entry.extend(response);
        entry
    }

    fn request_of(cookie: u64, at_ns: u64) -> Vec<u8> {
        let record = Record {
            cookie,
            seq: 1,
            kind: kind::READ,
            last_read_ns: at_ns,
            ..Record::default()
        };
        entry(record, b"GET / HTTP/1.1\r\n\r\n", b"")
    }

    #[test]
    fn a_flood_of_connections_is_bounded_and_counted() {
        let mut table = ConnectionTable::default();
        let mut out = Vec::new();
        let flood = CONNECTION_CAP as u64 + 100;
        for cookie in 1..=flood {
            table.take(&request_of(cookie, cookie), &mut out);
        }
        let kept = table.connections.len();
        assert!(kept <= CONNECTION_CAP);
        assert_eq!(out.len() + kept, usize::try_from(flood).unwrap());
        assert!(
            out.iter()
                .all(|outcome| *outcome == Event::Unfinished(Unfinished::Evicted))
        );
    }

    #[test]
    fn a_connection_of_zeromq_counts_once() {
        const GREETING: &[u8] = b"\xff\0\0\0\0\0\0\0\x01\x7f";
        for (request, response) in [(GREETING, &b""[..]), (b"", GREETING)] {
            let mut table = ConnectionTable::default();
            let mut out = Vec::new();
            for (seq, bytes) in [(1, GREETING), (2, b"\x04\x19frame")] {
                let record = Record {
                    cookie: 1,
                    seq,
                    kind: kind::EXCHANGE,
                    last_read_ns: u64::from(seq),
                    ..Record::default()
                };
                let sides = match seq {
                    1 => (request, response),
                    _ => (bytes, bytes),
                };
                table.take(&entry(record, sides.0, sides.1), &mut out);
            }
            assert_eq!(out, [Event::Lost(Loss::InnerProtocol)]);
            assert_eq!(table.connections[&1].speaker.latest_ns(), 2);
        }
    }

    #[test]
    fn a_silent_connection_with_an_open_request_is_kept() {
        let mut table = ConnectionTable::default();
        table.take(&request_of(1, 1), &mut Vec::new());
        table.tick(FORGET_NS * 2, |_, _| None, &mut Vec::new());
        assert_eq!(table.connections.len(), 1);
    }

    #[test]
    fn a_unix_response_without_a_length_is_finished_when_quiet() {
        let mut table = ConnectionTable::default();
        let record = Record {
            cookie: 1,
            seq: 1,
            kind: kind::EXCHANGE,
            flags: flag::UNIX,
            last_write_ns: 1_000,
            ..Record::default()
        };
        let mut out = Vec::new();
        table.take(
            &entry(
                record,
                b"GET / HTTP/1.0\r\n\r\n",
                b"HTTP/1.0 200 OK\r\n\r\nhi",
            ),
            &mut out,
        );
        table.tick(2_000, |_, _| None, &mut out);
        assert!(out.is_empty());
        table.tick(1_000_000_000, |_, _| None, &mut out);
        let [Event::Finished(exchange)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(
            (exchange.response.status, exchange.response.last_write_ns),
            (200, None)
        );
    }

    #[test]
    fn the_connections_of_a_worker_end_with_it() {
        let mut table = ConnectionTable::default();
        let record = Record {
            cookie: 1,
            seq: 1,
            tgid: 7,
            kind: kind::READ,
            mode: mode::FRAMES,
            flags: flag::UNIX,
            ..Record::default()
        };
        let mut out = Vec::new();
        table.take(&entry(record, b"I\0\0\0\x24", b""), &mut out);
        table.tick(1_000, |_, _| None, &mut out);
        table.process_ended(7);
        table.tick(2_000, |_, _| None, &mut out);
        assert!(out.is_empty());
        table.tick(1_000 + LAST_RECORDS_NS, |_, _| None, &mut out);
        assert_eq!(out, [Event::Lost(Loss::WorkerUnanswered)]);
        assert!(table.connections.is_empty());
    }

    #[test]
    fn an_accept_is_told_once_and_goes_with_every_request_of_its_connection() {
        let mut table = ConnectionTable::default();
        let mut out = Vec::new();
        let accepted = |mode| Record {
            cookie: 1,
            arrival_ns: 40,
            first_read_ns: 100,
            tgid: 7,
            local_port: 80,
            peer_port: 81,
            kind: kind::ACCEPTED,
            mode,
            ..Record::default()
        };
        table.take(&entry(accepted(mode::FRAMES), b"", b""), &mut out);
        assert_eq!(out, []);
        let peer = Peer {
            cookie: 1,
            tgid: 7,
            local_port: Some(80),
            peer_port: Some(81),
            accepted_ns: None,
        };
        table.take(&entry(accepted(mode::MESSAGES), b"", b""), &mut out);
        assert_eq!(out, [Event::Accepted(peer, 60)]);
        for (cookie, seq, accepted_ns) in [(1, 1, Some(100)), (2, 1, None), (1, 2, Some(100))] {
            let record = Record {
                cookie,
                seq,
                kind: kind::EXCHANGE,
                ..Record::default()
            };
            let response = b"HTTP/1.1 204 No Content\r\n\r\n";
            out.clear();
            table.take(
                &entry(record, b"GET / HTTP/1.1\r\n\r\n", response),
                &mut out,
            );
            let [Event::Finished(exchange)] = &out[..] else {
                panic!("{out:?}")
            };
            assert_eq!(exchange.peer.accepted_ns, accepted_ns);
        }
        assert!(table.accepted.is_empty());
    }

    #[test]
    fn short_entries_are_counted() {
        let mut out = Vec::new();
        ConnectionTable::default().take(b"short", &mut out);
        assert_eq!(out, [Event::Lost(Loss::Malformed)]);
    }
}
