//! Follows the records of one connection: whose they are, whether one is missing, and what earlier ones reported.
//!
//! Every kind of connection that numbers its records in one row keeps one.
//! Does not depend on: any protocol.

use inferprobe_ebpf::{
    abi::{ProgressSlot, Record, kind},
    view::RecordView,
};

use crate::exchange::{
    Peer,
    writes::{Writes, undrained_ns},
};

/// Silence after which a response whose end cannot be observed counts as finished, at an unknown time, ns.
pub const QUIET_NS: u64 = 500_000_000;

/// The records of one connection, as far as they were processed.
#[derive(Debug)]
pub struct RecordStream {
    /// Whose they are; `tgid` is the latest process.
    pub peer: Peer,
    /// Time of the latest record, ns.
    pub latest_ns: u64,
    seq: u32,
    /// Bytes and sends of the present run of writes that were reported.
    written_bytes: u64,
    sends: u32,
    /// Time of them in which the send buffer was too full, µs.
    undrained_us: u32,
}

impl RecordStream {
    /// Starts before `record`. If it is not the connection's first, earlier ones were forgotten or lost.
    pub fn new(record: &Record, peer: Peer) -> Self {
        Self {
            peer,
            latest_ns: 0,
            seq: record.seq.wrapping_sub(1),
            written_bytes: 0,
            sends: 0,
            undrained_us: 0,
        }
    }

    /// Adds a record; returns whether none is missing before it.
    pub fn push(&mut self, record: &Record) -> bool {
        let follows = record.seq == self.seq.wrapping_add(1);
        self.seq = record.seq;
        self.peer.tgid = record.tgid;
        self.latest_ns = record.last_write_ns.max(record.last_read_ns);
        if !follows || matches!(record.kind, kind::READ | kind::EXCHANGE) {
            self.written_bytes = 0;
            self.sends = 0;
            self.undrained_us = 0;
        }
        follows
    }

    /// Returns the writes that a record reports and no earlier one did.
    pub fn writes<'a>(&mut self, view: &RecordView<'a>) -> Writes<'a> {
        let record = &view.record;
        let writes = Writes {
            sends: record.writes.saturating_sub(self.sends),
            ..Writes::of(view, self.written_bytes, self.undrained_us)
        };
        self.written_bytes = record.written_bytes;
        self.sends = record.writes;
        self.undrained_us = record.undrained_us;
        writes
    }

    /// Returns the writes of `slot`, which the kernel half has not reported in a record.
    pub fn unreported(&mut self, slot: &ProgressSlot) -> Writes<'static> {
        let sends = slot.writes;
        let writes = Writes {
            start_ns: slot.last_write_ns,
            start_bounded: true,
            thread_wait: None,
            end_ns: slot.last_write_ns,
            undrained_ns: undrained_ns(slot.undrained_us, self.undrained_us),
            sends: sends.saturating_sub(self.sends),
            bytes: slot.written_bytes.saturating_sub(self.written_bytes),
            visible: &[],
            tail: slot.tail,
        };
        self.written_bytes = slot.written_bytes;
        self.sends = sends;
        self.undrained_us = slot.undrained_us;
        self.latest_ns = slot.last_write_ns;
        writes
    }

    /// Number of the latest record.
    pub fn latest_seq(&self) -> u32 {
        self.seq
    }
}
