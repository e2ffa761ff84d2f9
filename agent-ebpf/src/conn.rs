//! Holds the state of one watched socket from one hook to the next.
//!
//! The hooks find it by the socket; `segment` decides with it when a record is emitted.
//! Does not depend on: maps, helpers, the clock, protocols.

use crate::{
    abi::{COPY_CAP, PAYLOAD_CAP, REQUEST_HEAD_CAP, RESPONSE_HEAD_CAP, Record, flag, mode, thread},
    arrival::ArrivalLog,
    http2_frames::FrameCursor,
};

/// Direction of the latest transfer.
pub mod phase {
    /// Nothing yet.
    pub const IDLE: u8 = 0;
    /// The latest transfer was a read.
    pub const READING: u8 = 1;
    /// The latest transfer was a write.
    pub const WRITING: u8 = 2;
}

/// State of one watched socket.
///
/// Each group says which hooks write it: several run at once on one socket.
///
/// A yes or no is a `u8`, 1 or 0. With `bool`, the compiler builds other branches, and the verifier takes up to 35 %
/// more steps for the programs that send (6.18).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Conn {
    /// The record being filled.
    pub record: Record,
    /// Its payload, followed by the room that a copy to its last byte may need.
    pub payload: [u8; PAYLOAD_CAP + COPY_CAP],
    /// What is in the receive queue.
    pub queue: Queue,
    /// How far the current segment is.
    pub progress: Progress,
    /// Which bytes of each direction are copied.
    pub cursors: Cursors,
    /// What only HTTP/2 connections have.
    pub h2: H2,
    /// The thread of the latest read.
    pub reader: Reader,
    /// Which hook fills the record.
    pub lock: HookLock,
    /// Which events the primary copies of the programs handled.
    pub handled: LastHandled,
    /// Room for numbers that a program hides from the verifier.
    pub scratch: [u64; 4],
}

const _: () = assert!(size_of::<Conn>() == 208 + 3072 + 160 + 48 + 88 + 8 + 16 + 8 + 16 + 32);

/// What is in the receive queue, and when it arrived.
///
/// The readable hook writes `arrivals`, `unix_produced` and `unix_floor`, and initial values of the others; the read
/// hook writes the later values of `consumed`, `positioned` and `tracked`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// When the bytes arrived.
    pub arrivals: ArrivalLog,
    /// AF_UNIX: buffers that arrived.
    pub unix_produced: u32,
    /// AF_UNIX: buffers that were surely read when the latest one arrived.
    pub unix_floor: u32,
    /// Position up to which the bytes were read: a TCP sequence number, or buffers for AF_UNIX.
    pub consumed: u32,
    /// 1 once `consumed` is valid.
    pub positioned: u8,
    /// 1 once every byte yet to be read has its arrival noted.
    pub tracked: u8,
    reserved: [u8; 2],
}

/// How far the current segment is. The read and write hooks write it; `send_start_ns` also the hooks at a send's start.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Start of the running send; 0: unknown.
    pub send_start_ns: u64,
    /// When the latest record was emitted.
    pub emitted_ns: u64,
    /// Messages: bytes of the latest read.
    pub last_read_bytes: u32,
    /// Response bytes that may still be copied.
    pub response_budget: u16,
    /// One of [`phase`].
    pub phase: u8,
    /// 1 while a write was not emitted.
    pub pending: u8,
    /// 1 in a response of which a chunk or an event was seen.
    pub chunked: u8,
    /// 1 until the first record of a write in pieces is emitted, if the write is the first after a read.
    pub opens: u8,
    /// Messages: bytes of the present response's head that may still be copied, as far as the head may go on; 0: it ended.
    pub head_left: u16,
    /// Messages: bytes of the latest write.
    pub last_write_bytes: u32,
    /// Position up to which writes were handled, a TCP sequence number.
    pub written: u32,
    /// HTTP/2: bytes that no hook handled before the present write.
    pub unobserved: i32,
    /// 1 once `written` is valid, as only on TCP.
    pub positioned: u8,
    /// 1 once a hook at a write's start has reported one.
    pub reports_starts: u8,
    /// 1 if the send buffer was full after the latest write.
    pub send_buffer_full: u8,
    reserved: u8,
    /// Bytes in the send buffer when the running write began; on TCP.
    pub held_bytes: u32,
}

/// Which bytes of each direction are copied. The read and write hooks write it.
///
/// It is in the map value, not on a program's stack, because the verifier follows every value on the stack separately.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Cursors {
    /// Requests: the position in HTTP/2 frames; for messages, how many bytes are still copied.
    pub requests: FrameCursor,
    /// HTTP/2: the position in the frames of the responses.
    pub responses: FrameCursor,
    /// The position in the user's buffers of the current transfer.
    pub buffer: BufferCursor,
}

/// How the connection's HTTP/2 began. The read and write hooks write it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct H2 {
    /// 1 if the connection was joined midway, until a write begins with a frame.
    pub joined: u8,
    /// 1 after a 101, until the server's next write or the next read says whether HTTP/2 follows.
    pub switching: u8,
    /// 1 after a 101: from there on, reads and writes may run at once.
    pub duplex: u8,
    reserved: [u8; 5],
}

/// The thread of the latest read, to compare the writer with; its other figures are in the record. The read hook writes
/// it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// How often it had given up its CPU by itself (`task_struct.nvcsw`).
    pub sleeps: u64,
    /// The thread; 0: unknown.
    pub tid: u32,
    reserved: u32,
}

/// What the scheduler counts of a thread, since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// How long it waited for a CPU, ns (`task_struct.sched_info.run_delay`).
    pub run_delay_ns: u64,
    /// How often it gave up its CPU by itself (`task_struct.nvcsw`).
    pub sleeps: u64,
}

/// Lets one hook at a time fill the record; HTTP/2 connections do without, because each direction has its own record.
/// The read and write hooks write it, and those that find the end of the connection.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HookLock {
    /// 1 while a hook fills the record.
    pub busy: u32,
    /// 1 once a transfer was dropped ([`crate::abi::DropReason::Contended`]), until the next record's number shows a
    /// gap.
    pub missed: u8,
    /// 1 once the server could write no more. The hook that fills the record then emits the end.
    pub ended: u8,
    /// 1 once the end was emitted.
    pub closed: u8,
    /// 1 if the connection is watched only once a watched process reads from it. The readable hook writes it once, and the
    /// read hook clears it.
    pub candidate: u8,
}

/// Marks of the events on a socket, by their kind: [`crate::duplicate::Attached`]. Only the hook of an event writes its
/// mark.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LastHandled {
    /// Bytes became readable.
    pub arrival: u32,
    /// A read returned.
    pub read: u32,
    /// A write returned.
    pub write: u32,
    /// The other end read a reply of this worker.
    pub reply_read: u32,
}

/// Position in the user's buffers of one transfer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct BufferCursor {
    /// Address of the next byte.
    pub start: u64,
    /// Address of the next vector.
    pub next: u64,
    /// When the transfer returned.
    pub now_ns: u64,
    /// Bytes left in the current buffer.
    pub here: u32,
    /// Vectors left.
    pub vectors: u32,
    /// Bytes left in the transfer.
    pub left: u32,
    /// Bytes at the transfer's end that are copied in any case; 0: none, or the cursor has reached them.
    pub end: u32,
}

impl BufferCursor {
    /// Before the first transfer.
    pub const NONE: Self = Self {
        start: 0,
        next: 0,
        now_ns: 0,
        here: 0,
        vectors: 0,
        left: 0,
        end: 0,
    };
}

impl BufferCursor {
    /// Advances by `bytes` bytes of the current buffer.
    #[inline(always)]
    pub fn advance(&mut self, bytes: u32) {
        self.start += u64::from(bytes);
        self.here = self.here.saturating_sub(bytes);
        self.left = self.left.saturating_sub(bytes);
    }
}

impl Conn {
    /// Returns the state of an unknown socket: zeros, as the kernel makes it.
    pub const fn new() -> Self {
        Self {
            record: Record::NONE,
            payload: [0; PAYLOAD_CAP + COPY_CAP],
            queue: Queue {
                arrivals: ArrivalLog::new(),
                unix_produced: 0,
                unix_floor: 0,
                consumed: 0,
                positioned: 0,
                tracked: 0,
                reserved: [0; 2],
            },
            progress: Progress {
                send_start_ns: 0,
                emitted_ns: 0,
                last_read_bytes: 0,
                response_budget: 0,
                phase: phase::IDLE,
                pending: 0,
                chunked: 0,
                opens: 0,
                head_left: 0,
                last_write_bytes: 0,
                written: 0,
                unobserved: 0,
                positioned: 0,
                reports_starts: 0,
                send_buffer_full: 0,
                reserved: 0,
                held_bytes: 0,
            },
            cursors: Cursors {
                requests: FrameCursor::START,
                responses: FrameCursor::START,
                buffer: BufferCursor::NONE,
            },
            h2: H2 {
                joined: 0,
                switching: 0,
                duplex: 0,
                reserved: [0; 5],
            },
            reader: Reader {
                sleeps: 0,
                tid: 0,
                reserved: 0,
            },
            lock: HookLock {
                busy: 0,
                missed: 0,
                ended: 0,
                closed: 0,
                candidate: 0,
            },
            handled: LastHandled {
                arrival: 0,
                read: 0,
                write: 0,
                reply_read: 0,
            },
            scratch: [0; 4],
        }
    }

    /// Sets the mode `spoken` of a connection before its first read.
    #[inline(always)]
    pub fn set_mode(&mut self, spoken: u8) {
        self.record.mode = spoken;
        if spoken == mode::STREAMS {
            self.cursors.requests = FrameCursor::BEFORE_PREFACE;
        } else if spoken == mode::RECORDS {
            self.cursors.requests = FrameCursor::BEFORE_RECORDS;
            self.cursors.responses = FrameCursor::BEFORE_RECORDS;
        }
    }

    /// Sets the mode of an HTTP/2 connection that was open before its watch: its next read begins with a frame.
    #[inline(always)]
    pub fn join_midway(&mut self) {
        self.record.mode = mode::STREAMS;
        self.h2.joined = 1;
    }

    /// Switches the connection to HTTP/2: its next read begins with the client's preface.
    #[inline(always)]
    pub fn switch_to_http2(&mut self) {
        self.h2.switching = 0;
        self.set_mode(mode::STREAMS);
    }

    /// Notes the thread that reads, and its waits, on a connection whose writes answer its reads; `None`: the kernel
    /// does not count them.
    #[inline(always)]
    pub fn on_reader(&mut self, tid: u32, waits: Option<Waits>) {
        self.record.thread = 0;
        self.record.reader_tid = tid;
        match waits {
            Some(waits) => {
                self.reader.tid = tid;
                self.reader.sleeps = waits.sleeps;
                self.record.run_delay_ns = waits.run_delay_ns;
            }
            None => self.reader.tid = 0,
        }
    }

    /// Compares the thread that writes with the latest reader, unless an earlier write of the segment did.
    #[inline(always)]
    pub fn on_writer(&mut self, tid: u32, waits: impl FnOnce() -> Option<Waits>) {
        if self.progress.phase != phase::READING || self.record.thread != 0 {
            return;
        }
        self.record.thread = thread::COMPARED;
        if self.reader.tid != tid {
            return;
        }
        if let Some(waits) = waits() {
            self.record.thread |= thread::SAME;
            if waits.sleeps == self.reader.sleeps {
                self.record.thread |= thread::NEVER_SLEPT;
            }
            self.record.starved_ns = waits.run_delay_ns.wrapping_sub(self.record.run_delay_ns);
        }
    }

    /// Whether the socket is AF_UNIX.
    #[inline(always)]
    pub fn is_unix(&self) -> bool {
        self.record.flags & flag::UNIX != 0
    }

    /// Whether reads and writes fill the same record. On HTTP/2, each direction has its own and need not wait for the
    /// other.
    #[inline(always)]
    pub fn shares_record(&self) -> bool {
        self.record.mode != mode::STREAMS
    }

    /// Returns the position in the frames of one direction.
    #[inline(always)]
    pub fn frames(&mut self, responses: bool) -> &mut FrameCursor {
        if responses {
            &mut self.cursors.responses
        } else {
            &mut self.cursors.requests
        }
    }

    /// Returns how many more bytes of one direction fit in the record.
    #[inline(always)]
    pub fn room(&self, responses: bool) -> u32 {
        let (cap, len) = if responses {
            (RESPONSE_HEAD_CAP as u32, self.record.response_len)
        } else {
            (REQUEST_HEAD_CAP as u32, self.record.request_len)
        };
        cap.saturating_sub(u32::from(len))
    }
}

impl Default for Conn {
    fn default() -> Self {
        Self::new()
    }
}
