//! Holds the state of one watched socket, between its hooks.
//!
//! The hooks find it by the socket; `segment` decides with it when a record is emitted.
//! Does not depend on: maps, helpers, the clock, protocols.

use crate::{
    abi::{ANSWER_HEAD_CAP, COPY_CAP, PAYLOAD_CAP, REQUEST_HEAD_CAP, Record, mode},
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

/// State of one watched socket, kept in its SK_STORAGE.
///
/// `arrivals` and the two `unix_` counters of the producer are written by the readable hook alone, all else by the
/// read, write and close hooks.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Conn {
    /// The record being filled.
    pub record: Record,
    /// Its payload, and behind it the room that a copy to its last byte could take.
    pub payload: [u8; PAYLOAD_CAP + COPY_CAP],
    /// When the receive queue's bytes came.
    pub arrivals: ArrivalLog,
    /// Where the requests' direction stands: in the frames of HTTP/2; of messages, how much is to be carried.
    pub request_walk: FrameCursor,
    /// HTTP/2: where the answers' direction stands.
    pub answer_walk: FrameCursor,
    /// Start of the send under way; 0: not seen.
    pub send_start_ns: u64,
    /// When the latest record went up.
    pub emitted_ns: u64,
    /// AF_UNIX: buffers that came; the producer's.
    pub unix_produced: u32,
    /// AF_UNIX: buffers that were surely taken when the latest came; the producer's.
    pub unix_floor: u32,
    /// Position up to which the reader has taken the bytes: TCP sequence number, or buffers for AF_UNIX. The first value
    /// on TCP is the producer's, every later one the read hook's.
    pub consumed: u32,
    /// Bytes of the latest read, of messages.
    pub last_read_bytes: u32,
    /// Answer bytes that may still be carried up.
    pub answer_budget: u16,
    /// One of [`phase`].
    pub phase: u8,
    /// 1 once every byte yet to come has its arrival noted.
    pub tracked: u8,
    /// 1 while a write has not gone up.
    pub pending: u8,
    /// 1 once the server can write no more.
    pub closed: u8,
    /// 1 once `consumed` holds.
    pub positioned: u8,
    /// 1 in an answer of which a chunk was seen.
    pub chunked: u8,
    /// HTTP/2: 1 once it was joined in the middle, until the answers were met at the beginning of a frame.
    pub joined: u8,
    /// 1 once the server agreed to speak something else, until its next write or the next read tells whether that is HTTP/2.
    pub switching: u8,
    /// 1 once a transfer was left out, until the next record is numbered so that it shows.
    pub missed: u8,
    /// 1 once the server could write no more while a hook filled the record in, which then tells of it.
    pub ended: u8,
    /// 1 while a hook fills the record in: [`crate::abi::DropReason::Contended`].
    pub busy: u32,
    /// Who was last told of an arrival, a read, a write and, of a worker, of its reply that was taken:
    /// [`crate::duplicate::Turn`].
    pub told: Told,
    reserved: u32,
    /// Where the walk of the latest transfer stands.
    pub cursor: CopyCursor,
    /// Where a program puts numbers down to take them up again.
    pub scratch: [u64; 4],
}

const _: () = assert!(size_of::<Conn>() == 176 + 3072 + 136 + 32 + 72 + 32 + 48);

/// Marks of the events on a socket, by their kind.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Bytes became readable.
    pub arrival: u32,
    /// A read returned.
    pub read: u32,
    /// A write returned.
    pub write: u32,
    /// The other end read what this worker wrote.
    pub taken: u32,
}

/// Where the walk of one transfer stands in the user's buffers.
///
/// It lies with the connection, not on a program's stack: of what lies there the verifier follows every value apart.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CopyCursor {
    /// Address of the next byte.
    pub start: u64,
    /// Address of the next vector.
    pub next: u64,
    /// When the transfer returned.
    pub now_ns: u64,
    /// Bytes to come in the buffer at hand.
    pub here: u32,
    /// Vectors to come.
    pub vectors: u32,
    /// Bytes to come in the transfer.
    pub left: u32,
    /// 1: answers; 0: requests.
    pub answers: u32,
    /// Bytes at the end of the transfer that are carried whatever the walk says; 0: none, or they are at hand.
    pub end: u32,
    /// Zero.
    pub reserved: u32,
}

impl CopyCursor {
    /// Before the first transfer.
    pub const NONE: Self = Self {
        start: 0,
        next: 0,
        now_ns: 0,
        here: 0,
        vectors: 0,
        left: 0,
        answers: 0,
        end: 0,
        reserved: 0,
    };
}

impl Conn {
    /// The state of a socket of which nothing is known: zeros, as the kernel makes it.
    pub const fn new() -> Self {
        Self {
            record: Record::NONE,
            payload: [0; PAYLOAD_CAP + COPY_CAP],
            arrivals: ArrivalLog::new(),
            request_walk: FrameCursor::START,
            answer_walk: FrameCursor::START,
            send_start_ns: 0,
            emitted_ns: 0,
            unix_produced: 0,
            unix_floor: 0,
            consumed: 0,
            answer_budget: 0,
            phase: phase::IDLE,
            tracked: 0,
            pending: 0,
            closed: 0,
            positioned: 0,
            chunked: 0,
            last_read_bytes: 0,
            joined: 0,
            switching: 0,
            missed: 0,
            ended: 0,
            busy: 0,
            told: Told {
                arrival: 0,
                read: 0,
                write: 0,
                taken: 0,
            },
            reserved: 0,
            cursor: CopyCursor::NONE,
            scratch: [0; 4],
        }
    }

    /// How a connection that may be an HTTP/2 client's begins.
    #[inline(always)]
    pub fn set_mode(&mut self, spoken: u8) {
        self.record.mode = spoken;
        if spoken == mode::STREAMS {
            self.request_walk = FrameCursor::BEFORE_PREFACE;
        }
    }

    /// Takes the connection, of which nothing was seen, for an HTTP/2 one that was joined in the middle: before a frame of
    /// the client.
    #[inline(always)]
    pub fn join(&mut self) {
        self.record.mode = mode::STREAMS;
        self.joined = 1;
    }

    /// Takes the connection to speak HTTP/2 from here on: before the client's preface.
    #[inline(always)]
    pub fn switch(&mut self) {
        self.switching = 0;
        self.set_mode(mode::STREAMS);
    }

    /// Whether reads and writes fill the same record in; on HTTP/2 each side has its own, and need not wait for the other.
    #[inline(always)]
    pub fn fills_one_record(&self) -> bool {
        self.record.mode != mode::STREAMS
    }

    /// Where one direction of a shared connection stands.
    #[inline(always)]
    pub fn walk(&mut self, answers: bool) -> &mut FrameCursor {
        if answers {
            &mut self.answer_walk
        } else {
            &mut self.request_walk
        }
    }

    /// Bytes that a record has left to carry of one direction.
    #[inline(always)]
    pub fn room(&self, answers: bool) -> u32 {
        let (cap, len) = if answers {
            (ANSWER_HEAD_CAP as u32, self.record.answer_len)
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
