//! The layout of everything that crosses between the kernel and the agent: records, events, offsets, drop reasons.
//!
//! Every type is `repr(C)` with fixed-width integers and no padding that is not named, so that both halves agree and the
//! verifier sees every byte written.

use bytemuck::{Pod, Zeroable};

/// Bytes of reads that a record carries at most.
pub const REQUEST_HEAD_CAP: usize = 1024;
/// Bytes of an answer's beginning that records carry at most, in all.
pub const ANSWER_HEAD_CAP: usize = 1024;
/// Payload of the largest record; a power of two.
pub const PAYLOAD_CAP: usize = REQUEST_HEAD_CAP + ANSWER_HEAD_CAP;
/// Steps that a record distinguishes in the arrival of one read: the entries of the arrival log. A power of two.
pub const STEPS: usize = 8;
/// Bytes that are copied at once at most.
pub const COPY_CAP: usize = 1024;

/// What a [`Record`] reports.
pub mod kind {
    /// A read, or several, that another one or the end of the connection followed before any write.
    pub const READ: u8 = 1;
    /// The last read before a write, and that write.
    pub const EXCHANGE: u8 = 2;
    /// A later write of the same answer, or several that followed each other closely.
    pub const PROGRESS: u8 = 3;
    /// The server can write no more on this connection.
    pub const CLOSE: u8 = 4;
    /// The other end of a connection of frames took bytes of a reply: `read_bytes` of them, at `last_read_ns`. It comes
    /// from another process than all else of the connection, and has no `seq`.
    pub const TAKEN: u8 = 5;
    /// When the connection was established, `arrival_ns`, and when it was accepted, `first_read_ns`. It comes with the
    /// first read, before every other record of the connection, and has no `seq`.
    pub const ACCEPTED: u8 = 6;
}

/// How a connection's transfers are cut into records, decided by its first read.
pub mod mode {
    /// Every read goes up, but those of a long body, and of writes what tells heads and chunks: messages with heads.
    pub const MESSAGES: u8 = 0;
    /// A run of reads goes up in pieces, so that each of its small reads is carried, and every write goes up: frames
    /// that a TorchServe worker reads field by field.
    pub const FRAMES: u8 = 1;
    /// Every read and every write goes up: requests that share a connection, as in HTTP/2.
    pub const STREAMS: u8 = 2;
}

/// Bits of [`Record::flags`].
pub mod flag {
    /// `arrival_ns` holds; without it the arrival was not seen.
    pub const ARRIVAL_KNOWN: u8 = 1;
    /// `first_write_ns` is the return of the send, an upper bound of its start.
    pub const WRITE_AT_RETURN: u8 = 1 << 1;
    /// Request bytes from some point on were not copied (io_uring, a page that was gone, too many buffers).
    pub const REQUEST_CUT: u8 = 1 << 2;
    /// The connection is AF_UNIX: it has no ports, and its close is not seen.
    pub const UNIX: u8 = 1 << 3;
    /// The record tells of the writes of a connection of [`super::mode::STREAMS`], which are numbered and counted apart from
    /// its reads: both may be under way at once.
    pub const ANSWERS: u8 = 1 << 5;
    /// The read's last byte came with its first: `arrival_ns` holds for each of its bytes.
    pub const ONE_ARRIVAL: u8 = 1 << 4;
    /// `steps` hold: the read's bytes came in several steps.
    pub const STEPS: u8 = 1 << 6;
}

/// When bytes of a read came that did not come with its first.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ArrivalStep {
    /// Bytes from the read's first byte to behind the last that came with this step; 0: no step.
    pub end: u32,
    /// Time after `arrival_ns`; `u32::MAX`: not known, or longer.
    pub later_ns: u32,
}

impl ArrivalStep {
    /// No step.
    pub const NONE: Self = Self {
        end: 0,
        later_ns: 0,
    };
}

/// Head of every record on the `RECORDS` ring; `request_len` then `answer_len` payload bytes follow it.
///
/// All times are CLOCK_MONOTONIC nanoseconds.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Record {
    /// Socket cookie: unique for the life of the kernel.
    pub cookie: u64,
    /// First byte readable; holds only with [`flag::ARRIVAL_KNOWN`].
    pub arrival_ns: u64,
    /// First read of those told returned.
    pub first_read_ns: u64,
    /// Last read of them returned.
    pub last_read_ns: u64,
    /// Bytes of these reads.
    pub read_bytes: u64,
    /// First write after the segment began to run (returned, with [`flag::WRITE_AT_RETURN`]).
    pub first_write_ns: u64,
    /// Latest write returned; of a CLOSE, the close.
    pub last_write_ns: u64,
    /// Bytes written since the segment's first write, this one included.
    pub written_bytes: u64,
    /// The last bytes written, the newest in the low byte; 0 where they are not known.
    pub tail: u64,
    /// Bytes read and written on the connection since it is watched, whether or not a record told of them; with
    /// [`mode::STREAMS`], those of the record's direction.
    pub total_bytes: u64,
    /// Number of this record on its connection, from 1: a gap is a loss. Records with [`flag::ANSWERS`] have their own.
    pub seq: u32,
    /// Process that read or wrote last.
    pub tgid: u32,
    /// Bytes of the request's beginning in the payload.
    pub request_len: u16,
    /// Answer bytes in the payload, after the request's.
    pub answer_len: u16,
    /// TCP port of the server's side, host order; 0 for AF_UNIX.
    pub local_port: u16,
    /// TCP port of the client's side, host order; 0 for AF_UNIX.
    pub peer_port: u16,
    /// One of [`kind`].
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// One of [`mode`].
    pub mode: u8,
    /// Zero.
    pub reserved: u8,
    /// Writes since the segment's first, this one included.
    pub writes: u32,
    /// When the bytes of the read came that [`Record::arrival_ns`] is of, in no order; hold only with [`flag::STEPS`].
    pub steps: [ArrivalStep; STEPS],
    /// Bytes of that read that earlier records told of.
    pub read_offset: u32,
    /// Zero.
    pub reserved_too: u32,
}

const _: () = assert!(size_of::<Record>() == 104 + 8 * STEPS + 8);

impl Record {
    /// A record of nothing.
    pub const NONE: Self = Self {
        cookie: 0,
        arrival_ns: 0,
        first_read_ns: 0,
        last_read_ns: 0,
        read_bytes: 0,
        first_write_ns: 0,
        last_write_ns: 0,
        written_bytes: 0,
        tail: 0,
        total_bytes: 0,
        seq: 0,
        tgid: 0,
        request_len: 0,
        answer_len: 0,
        local_port: 0,
        peer_port: 0,
        kind: 0,
        flags: 0,
        mode: mode::MESSAGES,
        reserved: 0,
        writes: 0,
        steps: [ArrivalStep::NONE; STEPS],
        read_offset: 0,
        reserved_too: 0,
    };
}

/// Latest write of an answer whose small steps are not sent up one by one; an entry of `PROGRESSES`.
///
/// The agent reads it while the kernel writes: it holds only if [`ProgressSlot::is_whole`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ProgressSlot {
    /// Socket that the slot is taken by; 0: free.
    pub cookie: u64,
    /// As [`Record::last_write_ns`].
    pub last_write_ns: u64,
    /// As [`Record::written_bytes`].
    pub written_bytes: u64,
    /// As [`Record::tail`].
    pub tail: u64,
    /// As [`Record::writes`].
    pub writes: u64,
    /// As [`Record::total_bytes`].
    pub total_bytes: u64,
    /// Number of the last record that went up before.
    pub seq: u64,
    /// [`ProgressSlot::checksum`] of the fields above, written last.
    pub check: u64,
}

impl ProgressSlot {
    /// Value that `check` has when the other fields were written together.
    #[inline(always)]
    pub const fn checksum(&self) -> u64 {
        self.cookie
            ^ self.last_write_ns.rotate_left(1)
            ^ self.written_bytes.rotate_left(2)
            ^ self.tail
            ^ self.seq.rotate_left(3)
            ^ self.writes.rotate_left(4)
            ^ self.total_bytes.rotate_left(5)
    }

    /// Whether no write was under way while the slot was copied.
    pub const fn is_whole(&self) -> bool {
        self.cookie != 0 && self.check == self.checksum()
    }
}

/// Number of slots in `PROGRESSES`; a power of two.
pub const PROGRESS_SLOTS: usize = 16_384;

/// CPUs that count losses apart, each by [`DropReason`], in `DROPS`; others share their places.
pub const DROP_CPUS: usize = 512;

/// What a [`ProcessEvent`] reports.
pub mod process {
    /// The process runs a new program.
    pub const EXEC: u32 = 1;
    /// A watched process ended.
    pub const EXIT: u32 = 2;
    /// A watched process forked `tgid`.
    pub const FORK: u32 = 3;
    /// The process began to listen on `port`.
    pub const LISTEN: u32 = 4;
    /// A thread of a watched process, called `name`, started another: TorchServe's threads for its workers do so for
    /// each frame, on two CPUs or fewer.
    pub const THREAD: u32 = 5;
}

/// Beginning of the names of TorchServe's threads for its workers: `W-9000-resnet_1.0`.
pub const WORKER_THREAD: [u8; 2] = *b"W-";

/// An entry of the `PROCESSES` ring.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ProcessEvent {
    /// One of [`process`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// Its parent, for a FORK.
    pub parent: u32,
    /// The port, for a LISTEN.
    pub port: u32,
    /// When it happened, CLOCK_MONOTONIC nanoseconds; for a THREAD alone.
    pub at_ns: u64,
    /// Name of the thread that did it, NUL at its end; for a THREAD alone.
    pub name: [u8; 16],
}

const _: () = assert!(size_of::<ProcessEvent>() == 40);

impl ProcessEvent {
    /// An event that tells of nothing.
    pub const NONE: Self = Self {
        kind: 0,
        tgid: 0,
        parent: 0,
        port: 0,
        at_ns: 0,
        name: [0; 16],
    };
}

/// Ways in which the kernel half can lose something; each has one slot in `DROPS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DropReason {
    /// The `RECORDS` ring was full.
    RingFull = 0,
    /// The `PROCESSES` ring was full.
    ProcessRingFull = 1,
    /// No memory for a socket's state.
    NoStorage = 2,
    /// `WATCHED`, `LISTENERS`, `ACCEPTS`, `MARKED` or `CALLS` was full.
    MapFull = 3,
    /// The first bytes of a request or an answer could not be read.
    HeadUnreadable = 4,
    /// A watched server answered a request that it had read before it was watched.
    ReadBeforeWatch = 5,
    /// Two threads read and wrote one HTTP/1 connection at the same moment, and the second gave up waiting for the first.
    Contended = 6,
    /// The return of a call on a watched socket was passed over: too many threads were in such calls at once.
    ReturnMissed = 7,
}

impl DropReason {
    /// Every reason, in slot order.
    pub const ALL: [Self; 8] = [
        Self::RingFull,
        Self::ProcessRingFull,
        Self::NoStorage,
        Self::MapFull,
        Self::HeadUnreadable,
        Self::ReadBeforeWatch,
        Self::Contended,
        Self::ReturnMissed,
    ];

    /// The reason's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::ProcessRingFull => "process_ring_full",
            Self::NoStorage => "no_socket_storage",
            Self::MapFull => "map_full",
            Self::HeadUnreadable => "head_unreadable",
            Self::ReadBeforeWatch => "read_before_watch",
            Self::Contended => "contended",
            Self::ReturnMissed => "return_missed",
        }
    }

    /// What was lost and what the reader can do, as one sentence for the metrics page and the docs.
    pub const fn help(self) -> &'static str {
        match self {
            Self::RingFull => {
                "Records dropped because the agent read their ring too slowly; give the agent more CPU time."
            }
            Self::ProcessRingFull => {
                "Process events dropped because their ring was full; restart the agent if a server is not measured."
            }
            Self::NoStorage => {
                "Connections not measured for lack of memory or a table entry; free memory or use attach mode tracepoint or fentry."
            }
            Self::MapFull => {
                "Processes, listeners or calls not watched because a table was full; watch fewer processes or ports."
            }
            Self::HeadUnreadable => {
                "Requests or responses with unreadable first bytes; have the server use read and write, not io_uring or sendfile."
            }
            Self::ReadBeforeWatch => {
                "Requests not measured because they were read before the watch; start the agent before the server."
            }
            Self::Contended => {
                "Transfers dropped because two threads used one connection at once; give each thread its own connection."
            }
            Self::ReturnMissed => {
                "Calls not measured because the kernel skipped their return; use fewer threads or another attach mode."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_reasons_stand_in_slot_order() {
        for (slot, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, slot);
        }
    }

    #[test]
    fn each_reason_has_one_sentence_of_help() {
        for reason in DropReason::ALL {
            let help = reason.help();
            assert!(help.ends_with('.'), "{help}");
            assert!(!help[..help.len() - 1].contains(". "), "{help}");
            assert!(help.len() <= 120, "{help}");
        }
    }

    #[test]
    fn a_torn_slot_is_not_whole() {
        let mut slot = ProgressSlot {
            cookie: 7,
            last_write_ns: 5,
            written_bytes: 9,
            tail: 1,
            writes: 3,
            total_bytes: 11,
            seq: 2,
            check: 0,
        };
        slot.check = slot.checksum();
        assert!(slot.is_whole());
        slot.written_bytes += 1;
        assert!(!slot.is_whole());
    }
}
