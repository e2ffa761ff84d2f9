//! Keeps every connection that records name, and the ones that need ticks.
//!
//! Gives each record to its connection, counts its bytes, and forgets silent connections.
//! Does not depend on: protocols, what becomes of events.

mod arrived;

use std::collections::{BTreeMap, HashSet};

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, flag, kind, mode},
    segment::COPIED_DEFAULT,
    view::RecordView,
};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    bpf::open_sockets,
    exchange::{
        Peer, Request,
        byte_accounting::{ByteAccount, ByteCounts, Coverage, ServingSocket},
        event::{Event, Latest, Loss, Place},
        tls::{listeners::Listeners, plaintext::Plaintexts},
    },
    pipeline::{
        connection::{self, Connection},
        connections::arrived::Arrived,
    },
    torchserve::connection::WorkerSink,
};

/// Connections that are kept; beyond it, silent ones are forgotten.
const CONNECTION_CAP: usize = 65_536;
/// Silence after which a connection may be forgotten, ns: the kernel reports the end of TCP connections, but not of
/// AF_UNIX ones.
const FORGET_NS: u64 = 600_000_000_000;
/// Time between two searches for silent connections, ns.
const SWEEP_NS: u64 = 30_000_000_000;
/// How long after a process ended its last records may arrive, ns.
const LAST_RECORDS_NS: u64 = 1_000_000_000;

/// The connections.
#[derive(Debug)]
pub struct ConnectionTable {
    /// Bytes of a request that the kernel half copies; `None`: no payload.
    copied_bytes: Option<u32>,
    // The kernel numbers sockets one by one: nobody chooses numbers whose hashes collide.
    connections: FxHashMap<u64, Tracked>,
    /// What TLS connections share.
    listeners: Listeners,
    /// What TLS libraries read and write; `None`: that is not observed.
    plaintexts: Option<Plaintexts>,
    /// Processes that spoke TLS which was not read, since the last call of [`ConnectionTable::take_unread`].
    unread: FxHashSet<u32>,
    /// Bytes by server, until they are exported.
    pub coverage: Coverage,
    /// Connections that need ticks, by cookie.
    ticking: FxHashSet<u64>,
    /// When connections were accepted that have no other record yet, by cookie.
    accepted: FxHashMap<u64, u64>,
    /// Arrivals of bytes whose reads are not reported yet.
    arrived: Arrived,
    /// Processes that ended, and when: the kernel does not report the end of their AF_UNIX connections.
    ended: Vec<(u64, u32)>,
    ticked_ns: u64,
    swept_ns: u64,
}

/// A connection, and its bytes.
#[derive(Debug)]
struct Tracked {
    connection: Box<dyn Connection>,
    /// Whose it was at its first record.
    peer: Peer,
    latest: Latest,
    /// Of all records but those with [`flag::RESPONSES`], and of these.
    accounts: [ByteAccount; 2],
    /// Whether it is among the connections that need ticks.
    ticks: bool,
    /// Whether it carries requests of clients.
    is_of_client: bool,
}

impl Tracked {
    fn new(
        view: &RecordView<'_>,
        copied_bytes: Option<u32>,
        accepted_ns: Option<u64>,
        listeners: &Listeners,
        plaintexts: Option<&Plaintexts>,
    ) -> Self {
        let peer = Peer {
            accepted_ns,
            ..peer_of(&view.record)
        };
        Self {
            connection: connection::open(view, peer, copied_bytes, listeners, plaintexts),
            peer,
            latest: Latest::default(),
            accounts: Default::default(),
            ticks: false,
            is_of_client: false,
        }
    }

    /// Counts the bytes of a record that was processed; `None` on a connection that carries no requests of clients.
    fn count(&mut self, record: &Record, alive: bool) -> Option<ByteCounts> {
        let missed_bytes = self.connection.take_missed_bytes();
        self.is_of_client = missed_bytes.is_some();
        let missed_bytes = missed_bytes?;
        let is_settled = !alive || self.connection.is_idle();
        let side = usize::from(record.flags & flag::RESPONSES != 0);
        let mut counts = self.accounts[side].push(record, is_settled);
        counts.missed_bytes += missed_bytes;
        if self.connection.is_unread() {
            counts.unread_bytes = counts.seen_bytes;
        }
        Some(counts)
    }
}

/// The socket that serves the connection of a record.
fn socket_of(record: &Record) -> ServingSocket {
    let is_unix = record.flags & flag::UNIX != 0;
    (record.tgid, (!is_unix).then_some(record.local_port))
}

/// The connection of a record, which does not say when it was accepted.
fn peer_of(record: &Record) -> Peer {
    let is_unix = record.flags & flag::UNIX != 0;
    let (tgid, local_port) = socket_of(record);
    Peer {
        cookie: record.cookie,
        tgid,
        local_port,
        peer_port: (!is_unix).then_some(record.peer_port),
        accepted_ns: None,
        client: Some(record.client_tgid).filter(|&tgid| tgid != 0),
    }
}

impl ConnectionTable {
    /// Makes an empty table; `reads_payload` says whether the kernel half copies the bytes of messages.
    pub fn new(reads_payload: bool) -> Self {
        Self {
            copied_bytes: reads_payload.then_some(COPIED_DEFAULT),
            connections: FxHashMap::default(),
            listeners: Listeners::default(),
            plaintexts: None,
            unread: FxHashSet::default(),
            coverage: Coverage::default(),
            ticking: FxHashSet::default(),
            accepted: FxHashMap::default(),
            arrived: Arrived::default(),
            ended: Vec::new(),
            ticked_ns: 0,
            swept_ns: 0,
        }
    }

    /// Returns the table for a kernel half that copies so many bytes of a request, if it copies any payload.
    pub fn with_copied_bytes(self, bytes: u32) -> Self {
        Self {
            copied_bytes: self.copied_bytes.map(|_| bytes),
            ..self
        }
    }

    /// Returns the table for a kernel half that copies what TLS libraries read and write.
    pub fn with_plaintext(self) -> Self {
        Self {
            plaintexts: Some(Plaintexts::default()),
            ..self
        }
    }

    /// Returns the processes that spoke TLS since the last call, of which something was not read that may be.
    pub fn take_unread(&mut self) -> FxHashSet<u32> {
        std::mem::take(&mut self.unread)
    }

    /// Calls `each` with every open request of the sockets in `written`, which is what a pass over them wrote, and with its
    /// connection. A socket that is not among them is closed, whatever was reported of it.
    pub fn open_requests(&self, written: &[u8], mut each: impl FnMut(Peer, Request)) {
        let mut seen = HashSet::new();
        for open in open_sockets::parse(written) {
            let cookie = open.socket.cookie;
            // Processes may share a socket.
            if !seen.insert(cookie) {
                continue;
            }
            let view = open.reads();
            let (peer, requests) = match (self.connections.get(&cookie), &view) {
                (Some(tracked), view) => {
                    let peer = Peer {
                        tgid: open.socket.tgid,
                        ..tracked.peer
                    };
                    (peer, tracked.connection.open_requests(view.as_ref()))
                }
                (None, Some(view)) => (
                    peer_of(&view.record),
                    connection::requests_before_records(view, self.copied_bytes.is_some()),
                ),
                (None, None) => continue,
            };
            for request in requests {
                each(peer, request);
            }
        }
    }

    /// Returns how many connections on which clients sent something are open at each serving socket; `written` is what a pass
    /// over the open sockets wrote.
    pub fn open_connections(&self, written: &[u8]) -> BTreeMap<ServingSocket, u64> {
        let mut seen = HashSet::new();
        let mut open_at = BTreeMap::new();
        for open in open_sockets::parse(written) {
            let cookie = open.socket.cookie;
            let peer = match (self.connections.get(&cookie), open.reads()) {
                (Some(tracked), _) if tracked.is_of_client => tracked.peer,
                (None, Some(view)) if self.has_request(&view) => peer_of(&view.record),
                _ => continue,
            };
            // Processes may share a socket.
            if seen.insert(cookie) {
                let socket = (open.socket.tgid, peer.local_port);
                *open_at.entry(socket).or_default() += 1;
            }
        }
        open_at
    }

    /// Whether there is a request in the reads of a connection without records.
    fn has_request(&self, view: &RecordView<'_>) -> bool {
        !connection::requests_before_records(view, self.copied_bytes.is_some()).is_empty()
    }

    /// Processes an entry of the record ring.
    pub fn on_record(&mut self, entry: &[u8], out: &mut dyn WorkerSink) {
        let Some(view) = RecordView::parse(entry) else {
            out.lost(Loss::Malformed);
            return;
        };
        let record = view.record;
        let cookie = record.cookie;
        if record.kind == kind::ARRIVED {
            self.arrived.add(&record);
            return;
        }
        if record.kind == kind::ACCEPTED {
            self.on_accept(&record, out);
            return;
        }
        if matches!(record.kind, kind::PLAINTEXT | kind::PLAINTEXT_CUT) {
            if let Some(plaintexts) = &self.plaintexts {
                plaintexts.push(&view);
            }
            return;
        }
        let accepted_ns = self.accepted.remove(&cookie);
        let arrived = self.arrived.take(cookie);
        let mut view = RecordView {
            arrived: &arrived,
            ..view
        };
        let begins = !matches!(record.kind, kind::CLOSE | kind::REPLY_READ);
        if !begins && !self.connections.contains_key(&cookie) {
            return;
        }
        if self.connections.len() >= CONNECTION_CAP && !self.connections.contains_key(&cookie) {
            self.forget_silent(record.last_write_ns.max(record.last_read_ns), 0, out);
        }
        let tracked = self.connections.entry(cookie).or_insert_with(|| {
            Tracked::new(
                &view,
                self.copied_bytes,
                accepted_ns,
                &self.listeners,
                self.plaintexts.as_ref(),
            )
        });
        out.enter(Place::of(&record, tracked.peer).after(&mut tracked.latest));
        if record.mode == mode::STREAMS
            && record.kind != kind::UNOBSERVED
            && let Some(upgraded) = tracked.connection.upgrade(&mut view, out)
        {
            tracked.connection = upgraded;
        }
        let alive = match record.kind {
            kind::UNOBSERVED => {
                tracked.connection.on_unobserved(&record, out);
                true
            }
            _ => tracked.connection.on_record(&view, out),
        };
        if record.kind != kind::REPLY_READ
            && let Some(counts) = tracked.count(&record, alive)
        {
            self.coverage.add(socket_of(&record), counts);
        }
        if self.plaintexts.is_some() && tracked.connection.is_unread() {
            self.unread.insert(record.tgid);
        }
        let ticks = alive && tracked.connection.needs_ticks();
        if ticks != std::mem::replace(&mut tracked.ticks, ticks) {
            if ticks {
                self.ticking.insert(cookie);
            } else {
                self.ticking.remove(&cookie);
            }
        }
        if alive {
            self.arrived.keep(&record, arrived);
        } else {
            self.connections.remove(&cookie);
        }
    }

    /// Records when a connection was accepted; its other records follow. Connections from a frontend to its workers do not
    /// count, because they carry no requests of clients.
    fn on_accept(&mut self, record: &Record, out: &mut dyn WorkerSink) {
        if record.mode == mode::FRAMES {
            return;
        }
        // These are connections whose next record was lost.
        if self.accepted.len() >= CONNECTION_CAP {
            self.accepted.clear();
        }
        let accepted_ns = record.first_read_ns;
        self.accepted.insert(record.cookie, accepted_ns);
        let wait_ns = accepted_ns.saturating_sub(record.arrival_ns);
        out.event(Event::Accepted(peer_of(record), wait_ns));
    }

    /// Ends what ends without a record: `progress` returns what the kernel half has not reported yet of the connection with
    /// this cookie, whose latest record has this number.
    pub fn tick(
        &mut self,
        now_ns: u64,
        mut progress: impl FnMut(u64, u32) -> Option<ProgressSlot>,
        out: &mut dyn WorkerSink,
    ) {
        self.ticked_ns = now_ns;
        self.close_ended(now_ns, out);
        let connections = &mut self.connections;
        self.ticking.retain(|&cookie| {
            let Some(Tracked {
                connection,
                peer,
                latest,
                ticks,
                ..
            }) = connections.get_mut(&cookie)
            else {
                return false;
            };
            out.enter(Place::of_silence(*peer, now_ns, *latest));
            connection.on_tick(now_ns, &mut |seq| progress(cookie, seq), out);
            *ticks = connection.needs_ticks();
            *ticks
        });
        if now_ns.saturating_sub(self.swept_ns) >= SWEEP_NS {
            self.swept_ns = now_ns;
            self.forget_silent(now_ns, FORGET_NS, out);
        }
    }

    /// Records that a process ended: if it is a worker, its connections end with it.
    pub fn on_process_exit(&mut self, tgid: u32) {
        self.ended.push((self.ticked_ns, tgid));
    }

    fn close_ended(&mut self, now_ns: u64, out: &mut dyn WorkerSink) {
        let due = self
            .ended
            .iter()
            .take_while(|(ended_ns, _)| now_ns.saturating_sub(*ended_ns) >= LAST_RECORDS_NS)
            .count();
        if due == 0 {
            return;
        }
        let ended: HashSet<u32> = self.ended.drain(..due).map(|(_, tgid)| tgid).collect();
        if let Some(plaintexts) = &self.plaintexts {
            ended.iter().for_each(|&tgid| plaintexts.forget(tgid));
        }
        self.connections.retain(|_, tracked| {
            out.enter(Place::of_silence(tracked.peer, now_ns, tracked.latest));
            tracked.connection.on_process_exits(&ended, out)
        });
    }

    /// Forgets connections silent for `silence_ns`: idle ones first, then, if the table is still full, the oldest.
    fn forget_silent(&mut self, now_ns: u64, silence_ns: u64, out: &mut dyn WorkerSink) {
        self.connections.retain(|_, Tracked { connection, .. }| {
            let silent_ns = now_ns.saturating_sub(connection.latest_ns());
            !connection.is_idle() || silent_ns < silence_ns
        });
        if self.connections.len() < CONNECTION_CAP {
            return;
        }
        let mut oldest: Vec<(u64, u64)> = self
            .connections
            .iter()
            .map(|(&cookie, tracked)| (tracked.connection.latest_ns(), cookie))
            .collect();
        oldest.sort_unstable();
        for (_, cookie) in oldest.into_iter().take(CONNECTION_CAP / 8) {
            if let Some(mut tracked) = self.connections.remove(&cookie) {
                out.enter(Place::of_silence(tracked.peer, now_ns, tracked.latest));
                tracked.connection.evict(out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
