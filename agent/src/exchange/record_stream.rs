//! What every kind of connection keeps of its records: whose they are, whether one is missing, and what was told before.

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, kind},
    view::RecordView,
};

use crate::exchange::{Peer, writes::Writes};

/// Silence after which a response whose end cannot be observed counts as finished, at an unknown time, ns.
pub const QUIET_NS: u64 = 500_000_000;

/// The records of one connection, as far as they were taken in.
#[derive(Debug)]
pub struct Sequence {
    /// Whose they are; `tgid` is the latest process.
    pub peer: Peer,
    /// Time of the latest record, ns.
    pub latest_ns: u64,
    seq: u32,
    /// Bytes and sends of the present run of writes that were told.
    written_bytes: u64,
    sends: u32,
}

impl Sequence {
    /// The sequence of a connection of which `record` is the first sign. If it is not the connection's first, the ones
    /// before were forgotten or lost: either way it starts anew.
    pub fn new(record: &Record, peer: Peer) -> Self {
        Self {
            peer,
            latest_ns: 0,
            seq: record.seq.wrapping_sub(1),
            written_bytes: 0,
            sends: 0,
        }
    }

    /// Takes note of a record; returns whether none is missing before it.
    pub fn follows(&mut self, record: &Record) -> bool {
        let follows = record.seq == self.seq.wrapping_add(1);
        self.seq = record.seq;
        self.peer.tgid = record.tgid;
        self.latest_ns = record.last_write_ns.max(record.last_read_ns);
        if !follows || matches!(record.kind, kind::READ | kind::EXCHANGE) {
            self.written_bytes = 0;
            self.sends = 0;
        }
        follows
    }

    /// The writes that a record tells of and none before it told.
    pub fn writes<'a>(&mut self, view: &RecordView<'a>) -> Writes<'a> {
        let record = &view.record;
        let writes = Writes {
            sends: record.writes.saturating_sub(self.sends),
            ..Writes::of(view, self.written_bytes)
        };
        self.written_bytes = record.written_bytes;
        self.sends = record.writes;
        writes
    }

    /// The writes that the kernel holds back.
    pub fn held_back(&mut self, slot: &ProgressSlot) -> Writes<'static> {
        let sends = u32::try_from(slot.writes).unwrap_or(u32::MAX);
        let writes = Writes {
            start_ns: slot.last_write_ns,
            start_bounded: true,
            end_ns: slot.last_write_ns,
            sends: sends.saturating_sub(self.sends),
            bytes: slot.written_bytes.saturating_sub(self.written_bytes),
            visible: &[],
            tail: slot.tail,
        };
        self.written_bytes = slot.written_bytes;
        self.sends = sends;
        self.latest_ns = slot.last_write_ns;
        writes
    }

    /// Number of the latest record.
    pub fn number(&self) -> u32 {
        self.seq
    }
}
