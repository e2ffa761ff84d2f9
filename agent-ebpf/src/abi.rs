//! Defines the layout of everything that the program hands to the agent: records, events, progress slots, drop reasons.
//!
//! Every type is `repr(C)` with fixed-width integers and named padding, so that both sides agree and the verifier sees
//! every byte written.
//! Does not depend on: anything else of the crate.

use bytemuck::{Pod, Zeroable};

/// Most bytes of reads in one record.
pub const REQUEST_HEAD_CAP: usize = 1024;
/// Most bytes of writes in one record.
pub const RESPONSE_HEAD_CAP: usize = 1024;
/// Bytes of the largest record's payload; a power of two.
pub const PAYLOAD_CAP: usize = REQUEST_HEAD_CAP + RESPONSE_HEAD_CAP;
/// Steps that a record distinguishes in the arrival of one read: the entries of the arrival log; a power of two.
pub const STEPS: usize = 8;
/// Most bytes of one copy into a connection's record.
pub const COPY_CAP: usize = 1024;
/// Most bytes of a body that are copied straight into the ring at once.
pub const PIECE_CAP: usize = 4 << 10;

/// What a [`Record`] reports.
pub mod kind {
    /// A read, or several, before another read or the end of the connection, without a write in between.
    pub const READ: u8 = 1;
    /// The last read before a write, and that write.
    pub const EXCHANGE: u8 = 2;
    /// A later write of the same response, or several in quick succession.
    pub const PROGRESS: u8 = 3;
    /// The server can write no more on this connection.
    pub const CLOSE: u8 = 4;
    /// The other end of a worker's connection read `read_bytes` of a reply, at `last_read_ns`. Another process than the
    /// connection's own causes it, and it has no `seq`.
    pub const REPLY_READ: u8 = 5;
    /// The connection was established at `arrival_ns` and accepted at `first_read_ns`. It is emitted at the first read,
    /// before every other record of the connection, and has no `seq`.
    pub const ACCEPTED: u8 = 6;
    /// Bytes moved on a TCP connection and no hook handled the call: none reports it, as with splice, or the kernel skipped
    /// the program. Since the latest record, and before the next one, `read_bytes` left the receive queue and `written_bytes`
    /// were sent. Both are 0 if transfers were handled out of order. Its `seq` is the next record's.
    pub const UNOBSERVED: u8 = 7;
    /// `read_bytes` bytes became readable at `arrival_ns`, from `position` on, and the arrival log had no room to tell them
    /// from others. It is emitted before the bytes are read, and has no `seq`.
    pub const ARRIVED: u8 = 8;
    /// A TLS library read `read_bytes` of plaintext, or began to write `written_bytes`, on its connection at the address
    /// `cookie` of process `tgid`. `seq` numbers such records, and [`PLAINTEXT_CUT`]s, of thread `reader_tid`; the payload
    /// has the first bytes.
    pub const PLAINTEXT: u8 = 9;
    /// The library wrote only `written_bytes` of what the latest [`PLAINTEXT`] of this thread and connection says.
    pub const PLAINTEXT_CUT: u8 = 10;
}

/// How a connection's transfers are cut into records. Its first read decides.
pub mod mode {
    /// Messages with heads: one record for each read, except within a long body, and for writes that begin a response
    /// or a chunk.
    pub const MESSAGES: u8 = 0;
    /// Frames that a TorchServe worker reads field by field: a run of reads in pieces, with every small read, and one
    /// record for each write.
    pub const FRAMES: u8 = 1;
    /// Requests that share a connection, as in HTTP/2: at least one record for each read and each write.
    pub const STREAMS: u8 = 2;
    /// Records of TLS, of which the headers are copied, and the two hellos: one record for each read, except within one
    /// of theirs, and for each write.
    pub const RECORDS: u8 = 3;
}

/// Most bytes of plaintext in one record: what a record of TLS holds.
pub const PLAINTEXT_CAP: usize = 16 << 10;

/// Bits of [`Record::flags`].
pub mod flag {
    /// `arrival_ns` is valid; otherwise the arrival is unknown.
    pub const ARRIVAL_KNOWN: u8 = 1;
    /// `first_write_ns` is the return of the send, an upper bound of its start.
    pub const WRITE_AT_RETURN: u8 = 1 << 1;
    /// Request bytes from some point on were not copied (io_uring, a page that was not in memory, too many buffers).
    pub const REQUEST_CUT: u8 = 1 << 2;
    /// The connection is AF_UNIX: it has no ports, and no hook reports its close.
    pub const UNIX: u8 = 1 << 3;
    /// The record is about writes of a connection of [`super::mode::STREAMS`]. They have their own numbers and counts,
    /// because reads and writes may run at once.
    pub const RESPONSES: u8 = 1 << 5;
    /// The read's last byte arrived with its first: `arrival_ns` is valid for each of its bytes.
    pub const ONE_ARRIVAL: u8 = 1 << 4;
    /// `steps` are valid: the read's bytes arrived in several steps.
    pub const STEPS: u8 = 1 << 6;
    /// From the record's first byte on, nothing more of the present body was copied, because the ring was filling up.
    pub const BODY_DROPPED: u8 = 1 << 7;
}

/// Bits of [`Record::thread`]: what is known about the thread that read the last bytes and wrote the first ones.
pub mod thread {
    /// The first write of the segment was compared with its last read.
    pub const COMPARED: u8 = 1;
    /// One thread did both: `starved_ns` is valid.
    pub const SAME: u8 = 1 << 1;
    /// That thread never gave up its CPU by itself in between: it waited for nothing but a CPU.
    pub const NEVER_SLEPT: u8 = 1 << 2;
}

/// When bytes of a read arrived that did not arrive with its first one.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ArrivalStep {
    /// Bytes from the read's first byte up to the end of this step; 0: no step.
    pub end: u32,
    /// Time after `arrival_ns`; `u32::MAX`: unknown, or longer.
    pub later_ns: u32,
}

impl ArrivalStep {
    /// No step.
    pub const NONE: Self = Self {
        end: 0,
        later_ns: 0,
    };
}

/// Value of [`Record::undrained_us`] if that is unknown.
pub const UNKNOWN_US: u32 = u32::MAX;

/// The fixed part of every entry of the `RECORDS` ring; `request_len` then `response_len` payload bytes follow it.
///
/// All times are CLOCK_MONOTONIC nanoseconds.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Record {
    /// Socket cookie: unique for the life of the kernel.
    pub cookie: u64,
    /// First byte became readable; valid only with [`flag::ARRIVAL_KNOWN`].
    pub arrival_ns: u64,
    /// First reported read returned.
    pub first_read_ns: u64,
    /// Last reported read returned.
    pub last_read_ns: u64,
    /// Bytes of these reads.
    pub read_bytes: u64,
    /// First write after the segment began to run (returned, with [`flag::WRITE_AT_RETURN`]).
    pub first_write_ns: u64,
    /// Latest write returned; for a CLOSE, the time of the close.
    pub last_write_ns: u64,
    /// Bytes written since the segment's first write, this one included.
    pub written_bytes: u64,
    /// The last eight bytes written, the newest in the low byte; 0: unknown.
    pub tail: u64,
    /// Bytes read and written on the connection since its watch began, whether or not a record reported them; with
    /// [`mode::STREAMS`], only those of the record's direction.
    pub total_bytes: u64,
    /// Number of this record on its connection, from 1: a gap is a loss. Records with [`flag::RESPONSES`] have their
    /// own.
    pub seq: u32,
    /// Process of the latest read or write.
    pub tgid: u32,
    /// Request bytes in the payload.
    pub request_len: u16,
    /// Response bytes in the payload, after the request's.
    pub response_len: u16,
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
    /// Bits of [`thread`].
    pub thread: u8,
    /// Writes since the segment's first, this one included.
    pub writes: u32,
    /// When the other bytes arrived of the read that [`Record::arrival_ns`] belongs to, in no order; valid only with
    /// [`flag::STEPS`].
    pub steps: [ArrivalStep; STEPS],
    /// Bytes of that read that earlier records reported.
    pub read_offset: u32,
    /// Process at the other end, if that is on this host and was seen to connect; 0: unknown. With
    /// [`flag::RESPONSES`] always 0.
    pub client_tgid: u32,
    /// How long that thread had waited for a CPU since it began, when it read (`task_struct.sched_info.run_delay`).
    pub run_delay_ns: u64,
    /// How long it waited for a CPU from there to the segment's first write; valid only with [`thread::SAME`].
    pub starved_ns: u64,
    /// Thread of the latest read, in the kernel's own PID namespace; 0: unknown.
    pub reader_tid: u32,
    /// Position of the first byte of the read that [`Record::arrival_ns`] belongs to, a TCP sequence number; valid only
    /// where one read begins a record, on TCP.
    pub position: u32,
    /// With [`flag::WRITE_AT_RETURN`]: 1 if a hook reports when writes of this connection begin, and did not report this
    /// one.
    pub start_unobserved: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// How long the connection's send buffer kept the server from writing, from the segment's first write to the latest,
    /// µs: bytes waited in it for the client. [`UNKNOWN_US`]: unknown. Always 0 with [`flag::RESPONSES`].
    pub undrained_us: u32,
}

const _: () = assert!(size_of::<Record>() == 104 + 8 * STEPS + 40);

impl Record {
    /// An empty record.
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
        response_len: 0,
        local_port: 0,
        peer_port: 0,
        kind: 0,
        flags: 0,
        mode: mode::MESSAGES,
        thread: 0,
        writes: 0,
        steps: [ArrivalStep::NONE; STEPS],
        read_offset: 0,
        client_tgid: 0,
        run_delay_ns: 0,
        starved_ns: 0,
        reader_tid: 0,
        position: 0,
        start_unobserved: 0,
        reserved: [0; 3],
        undrained_us: 0,
    };
}

/// Latest write of a response whose writes are not emitted one by one; an entry of `PROGRESSES`.
///
/// The agent reads it while the kernel writes: it is valid only if [`ProgressSlot::is_whole`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ProgressSlot {
    /// Socket that holds the slot; 0: free.
    pub cookie: u64,
    /// As [`Record::last_write_ns`].
    pub last_write_ns: u64,
    /// As [`Record::written_bytes`].
    pub written_bytes: u64,
    /// As [`Record::tail`].
    pub tail: u64,
    /// As [`Record::writes`].
    pub writes: u32,
    /// As [`Record::undrained_us`].
    pub undrained_us: u32,
    /// As [`Record::total_bytes`].
    pub total_bytes: u64,
    /// Number of the last record that was emitted before.
    pub seq: u64,
    /// [`ProgressSlot::checksum`] of the fields above, written last.
    pub check: u64,
}

impl ProgressSlot {
    /// Returns the value of `check` for these fields.
    #[inline(always)]
    pub const fn checksum(&self) -> u64 {
        self.cookie
            ^ self.last_write_ns.rotate_left(1)
            ^ self.written_bytes.rotate_left(2)
            ^ self.tail
            ^ self.seq.rotate_left(3)
            ^ (self.writes as u64 | (self.undrained_us as u64) << 32).rotate_left(4)
            ^ self.total_bytes.rotate_left(5)
    }

    /// Whether no write ran while the slot was copied.
    pub const fn is_whole(&self) -> bool {
        self.cookie != 0 && self.check == self.checksum()
    }
}

/// Number of slots in `PROGRESSES`; a power of two.
pub const PROGRESS_SLOTS: usize = 4_096;

/// CPUs with counters of their own in `DROPS`, one for each [`DropReason`]; CPUs with higher numbers share them.
pub const DROP_CPUS: usize = 512;

/// Most processes, ports and reasons whose losses are counted apart, in `LOSERS`.
pub const LOSERS: usize = 1_024;

/// Whose losses an entry of `LOSERS` counts, and for which reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Loser {
    /// The process.
    pub tgid: u32,
    /// Its TCP port; 0 if it has none.
    pub port: u16,
    /// [`DropReason`], as a number.
    pub reason: u16,
}

impl Loser {
    /// Returns the key of its entry.
    #[inline(always)]
    pub const fn key(self) -> u64 {
        (self.tgid as u64) << 32 | (self.port as u64) << 16 | self.reason as u64
    }

    /// Returns whose entry has this key.
    pub const fn of_key(key: u64) -> Self {
        Self {
            tgid: (key >> 32) as u32,
            port: (key >> 16) as u16,
            reason: key as u16,
        }
    }
}

/// What a [`ProcessEvent`] reports.
pub mod process {
    /// The process began to run another program.
    pub const EXEC: u32 = 1;
    /// A watched process ended.
    pub const EXIT: u32 = 2;
    /// A watched process forked `tgid`.
    pub const FORK: u32 = 3;
    /// The process began to listen on `port`.
    pub const LISTEN: u32 = 4;
    /// A thread of a watched process, called `name`, started another one. TorchServe's threads for its workers do so
    /// for each frame, on two CPUs or fewer.
    pub const THREAD: u32 = 5;
    /// A connection to `port` began, of which the agent wants to know ([`super::port_bit::ARMED`]).
    pub const CONNECTED: u32 = 6;
}

/// What a bit of `PORTS` says of a TCP port. The bits of all ports that say the same follow each other.
pub mod port_bit {
    /// Requests to it are reported.
    pub const WATCHED: u32 = 0;
    /// Its listener is undecided: its connections are not marked, so that the agent can leave it.
    pub const UNDECIDED: u32 = 1;
    /// Its next connection is reported, once.
    pub const ARMED: u32 = 2;
    /// The next pass over open sockets removes the state of its connections, except for those of watched processes.
    pub const RELEASED: u32 = 3;
    /// Words of 64 ports for each meaning.
    pub const WORDS: u32 = 1024;
}

/// Slots of `MAY_BE_WATCHED`, one for each value of a process id's low bits: 0 if no process with them is watched.
pub const PROCESS_SLOTS: u32 = 16_384;

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
    /// Its parent; only for a FORK.
    pub parent: u32,
    /// The port; only for a LISTEN and a CONNECTED.
    pub port: u32,
    /// When it happened, CLOCK_MONOTONIC nanoseconds; only for a THREAD.
    pub at_ns: u64,
    /// Name of the thread that did it, NUL at its end; only for a THREAD.
    pub name: [u8; 16],
}

const _: () = assert!(size_of::<ProcessEvent>() == 40);

impl ProcessEvent {
    /// An empty event.
    pub const NONE: Self = Self {
        kind: 0,
        tgid: 0,
        parent: 0,
        port: 0,
        at_ns: 0,
        name: [0; 16],
    };
}

/// What a scan of this host's open sockets writes about one of them. `len` bytes follow it: a [`Record`] and its request
/// bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct OpenSocket {
    /// Socket cookie; 0 for a listener.
    pub cookie: u64,
    /// Process that has it open.
    pub tgid: u32,
    /// Its TCP port, host order; 0 for AF_UNIX.
    pub port: u32,
    /// Bytes that follow; 0, unless the server has read bytes since its latest write that no record reports yet.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<OpenSocket>() == 24);

/// Why the program lost something; each reason has one counter in `DROPS`.
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
    /// The first bytes of a request or a response could not be read.
    HeadUnreadable = 4,
    /// A watched server answered a request that it had read before its watch began.
    ReadBeforeWatch = 5,
    /// Two threads used one HTTP/1 connection at the same moment, and the second stopped waiting for the first.
    Contended = 6,
    /// The kernel skipped the return of a call on a watched socket: too many threads were in such calls at once.
    ReturnMissed = 7,
    /// The rest of a request's body was not copied, because the `RECORDS` ring was filling up.
    BodyDropped = 8,
}

impl DropReason {
    /// Every reason, in slot order.
    pub const ALL: [Self; 9] = [
        Self::RingFull,
        Self::ProcessRingFull,
        Self::NoStorage,
        Self::MapFull,
        Self::HeadUnreadable,
        Self::ReadBeforeWatch,
        Self::Contended,
        Self::ReturnMissed,
        Self::BodyDropped,
    ];

    /// The reasons for which the program knows the process, and so the agent the server.
    pub const OF_PROCESSES: [Self; 5] = [
        Self::RingFull,
        Self::HeadUnreadable,
        Self::ReadBeforeWatch,
        Self::Contended,
        Self::BodyDropped,
    ];

    /// Returns the reason's name in metrics.
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
            Self::BodyDropped => "body_dropped",
        }
    }

    /// Returns what was lost and what the reader can do: one sentence of at most 120 characters, for the metrics page
    /// and the docs.
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
            Self::BodyDropped => {
                "Bodies not searched for their model to the end because the agent was slow; give the agent more CPU time."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_reasons_are_in_slot_order() {
        for (slot, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, slot);
        }
    }

    #[test]
    fn a_key_names_who_lost_what() {
        let loser = Loser {
            tgid: 4_000_000,
            port: 65_535,
            reason: DropReason::BodyDropped as u16,
        };
        assert_eq!(Loser::of_key(loser.key()), loser);
    }

    #[test]
    fn every_reason_has_one_sentence_of_help() {
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
            undrained_us: 6,
            total_bytes: 11,
            seq: 2,
            check: 0,
        };
        slot.check = slot.checksum();
        assert!(slot.is_whole());
        slot.written_bytes += 1;
        assert!(!slot.is_whole());
        slot.written_bytes -= 1;
        slot.undrained_us += 1;
        assert!(!slot.is_whole());
    }
}
