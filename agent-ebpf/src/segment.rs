//! Per-socket segments: runs of reads and of writes, cut into records wherever a message may begin.
//!
//! Decides when a record goes up and which bytes it carries. Knows no map, helper or clock, and no protocol beyond
//! `frame`'s hints: whether a request is complete, and whose answer it is, is userspace's to say.

use crate::{
    abi::{ANSWER_HEAD_CAP, COPY_CAP, PAYLOAD_CAP, REQUEST_HEAD_CAP, Record, flag, kind, mode},
    arrival::{Arrival, ArrivalLog},
    walk::Walk,
};

/// Bytes that are carried of a run of reads: heads, requests that one read brings together, and what names a model.
pub const CARRIED_CAP: u32 = 4096;
/// Bytes that are carried of the end of a read that is longer than what else is carried of it: behind the rest of a body,
/// it may bring the next request.
pub const READ_END_CAP: u32 = 1024;
/// Reads up to this size always go up: one may bring the first bytes of a request.
pub const SMALL_READ: u32 = 256;
/// Writes up to this size are carried, of a body in chunks: they may bring several.
pub const SMALL_CHUNK: u32 = 4096;
/// Bytes that are carried of larger ones: the size of the first chunk.
pub const CHUNK_HEAD: u16 = 64;
/// Later writes that follow each other within this time are told together.
pub const COALESCE_NS: u64 = 200_000;
/// Longest read of a frame that is carried: names and lengths are shorter, and a longer value tells nothing.
pub const FRAME_READ_CAP: u32 = 256;

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
    pub request_walk: Walk,
    /// HTTP/2: where the answers' direction stands.
    pub answer_walk: Walk,
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
}

const _: () = assert!(size_of::<Conn>() == 176 + 3072 + 136 + 32 + 48);

/// Bytes of the user's buffer to copy: `len` of them, to `payload[at..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// Where in the payload.
    pub at: u16,
    /// How many at most.
    pub len: u16,
}

/// What a read asks for before it is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvPlan {
    /// Record that must go up first: the rest of an answer, or reads that this one does not belong to.
    pub cut: Option<u8>,
    /// Whether the read begins a record, so that its arrival is wanted.
    pub begins: bool,
    /// Whether it may begin a request, so that its bytes are carried.
    pub fresh: bool,
    /// Whether it may end one, behind which another begins, so that its end is carried.
    pub shorter: bool,
}

/// What a write looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looks {
    /// An answer's head.
    pub answer_like: bool,
    /// A chunk's size.
    pub chunk_like: bool,
}

/// What a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendPlan {
    /// Record to send up once the bytes are copied; `None`: the progress slot will do.
    pub emit: Option<u8>,
    /// Answer bytes to copy first.
    pub capture: Capture,
}

impl Conn {
    /// The state of a socket of which nothing is known: zeros, as the kernel makes it.
    pub const fn new() -> Self {
        Self {
            record: Record::NONE,
            payload: [0; PAYLOAD_CAP + COPY_CAP],
            arrivals: ArrivalLog::new(),
            request_walk: Walk::START,
            answer_walk: Walk::START,
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
        }
    }

    /// What a read of `bytes` brings about before it is taken in.
    #[inline(always)]
    pub fn plan_recv(&self, bytes: u32, request_like: bool) -> RecvPlan {
        let reading = self.phase == phase::READING;
        let goes_on = reading && self.is_next_piece(bytes);
        let cut = if self.pending != 0 {
            Some(kind::PROGRESS)
        } else if reading && (request_like || goes_on) {
            Some(kind::READ)
        } else {
            None
        };
        RecvPlan {
            cut,
            begins: !reading || request_like || goes_on,
            fresh: !reading || request_like || bytes <= SMALL_READ,
            shorter: self.is_shorter(bytes),
        }
    }

    /// Whether a read within a run of reads goes into a record of its own.
    #[inline(always)]
    fn is_next_piece(&self, bytes: u32) -> bool {
        match self.record.mode {
            mode::FRAMES => {
                let at = u32::from(self.record.request_len);
                let behind_a_hole = self.record.read_bytes != u64::from(at);
                bytes <= FRAME_READ_CAP && (behind_a_hole || at + bytes > REQUEST_HEAD_CAP as u32)
            }
            mode::STREAMS => true,
            _ => bytes <= SMALL_READ || self.is_shorter(bytes) || self.request_walk.keeps() > 0,
        }
    }

    /// Whether a read took less than the one before: it emptied the queue, and so may be the last of its request.
    #[inline(always)]
    fn is_shorter(&self, bytes: u32) -> bool {
        self.record.mode == mode::MESSAGES && bytes < self.last_read_bytes
    }

    /// Whether what is pending must go up before a write whose bytes it would hide.
    #[inline(always)]
    pub fn send_cuts(&self, looks: Looks) -> bool {
        self.pending != 0 && (looks.answer_like || looks.chunk_like)
    }

    /// Takes in a read of `bytes` that returned at `now_ns`, and says which of its bytes to keep.
    ///
    /// `arrival` is when its first byte came, and whether all others came with it; it is looked at only if the read
    /// begins a record. What [`Conn::is_walked`] has nothing to keep: its walk does that.
    #[inline(always)]
    pub fn on_recv(
        &mut self,
        now_ns: u64,
        bytes: u32,
        arrival: (Arrival, bool),
        plan: RecvPlan,
    ) -> Capture {
        self.record.total_bytes += u64::from(bytes);
        if self.record.mode == mode::MESSAGES {
            let kept = self.request_walk.keeps();
            let kept = if plan.fresh {
                CARRIED_CAP
            } else if plan.shorter && kept < REQUEST_HEAD_CAP as u32 {
                REQUEST_HEAD_CAP as u32
            } else {
                kept
            };
            self.request_walk = Walk::carrying(kept);
            self.last_read_bytes = bytes;
        }
        if plan.begins {
            self.record.flags &= flag::UNIX;
            self.record.arrival_ns = 0;
            if let Arrival::At(ns) = arrival.0 {
                self.record.arrival_ns = if ns < now_ns { ns } else { now_ns };
                self.record.flags |= flag::ARRIVAL_KNOWN;
                if arrival.1 {
                    self.record.flags |= flag::ONE_ARRIVAL;
                }
            }
            self.record.first_read_ns = now_ns;
            self.record.read_bytes = 0;
            self.record.read_offset = 0;
            self.record.request_len = 0;
            self.record.answer_len = 0;
            self.record.first_write_ns = 0;
            self.record.last_write_ns = 0;
            self.record.written_bytes = 0;
            self.record.writes = 0;
            self.record.tail = 0;
            self.phase = phase::READING;
        } else {
            self.record.flags &= !flag::ONE_ARRIVAL;
        }
        self.record.last_read_ns = now_ns;
        if self.is_walked(bytes) {
            return Capture { at: 0, len: 0 };
        }
        self.record.read_bytes += u64::from(bytes);
        let at = self.record.request_len;
        let passed_over = self.record.mode == mode::FRAMES && bytes > FRAME_READ_CAP;
        let wanted = self.record.mode == mode::FRAMES || self.request_walk.keeps() > 0;
        let room = if self.record.flags & flag::REQUEST_CUT == 0 && !passed_over && wanted {
            (REQUEST_HEAD_CAP as u16).saturating_sub(at)
        } else {
            0
        };
        Capture {
            at,
            len: smaller(bytes, room),
        }
    }

    /// Whether the bytes of a read are taken in by a walk, which counts and copies them.
    #[inline(always)]
    pub fn is_walked(&self, bytes: u32) -> bool {
        match self.record.mode {
            mode::STREAMS => true,
            mode::MESSAGES => bytes > REQUEST_HEAD_CAP as u32 && self.request_walk.keeps() > 0,
            _ => false,
        }
    }

    /// Notes that a record of a walk went up, and that the next one goes on with the same read.
    #[inline(always)]
    pub fn on_split(&mut self) {
        self.record.read_offset += self.record.read_bytes as u32;
        self.record.read_bytes = 0;
    }

    /// Notes the steps in which the bytes came of a read that begins a record, the first of them at position `first`.
    #[inline(always)]
    pub fn on_steps(&mut self, first: u32) {
        if self.record.flags & (flag::ARRIVAL_KNOWN | flag::ONE_ARRIVAL) == flag::ARRIVAL_KNOWN {
            self.record.steps = self.arrivals.steps(first, self.record.arrival_ns);
            self.record.flags |= flag::STEPS;
        }
    }

    /// Takes in a write of `bytes` that returned at `now_ns`.
    ///
    /// `None`: nothing was read before it, so it answers nothing that was seen.
    #[inline(always)]
    pub fn on_send(&mut self, now_ns: u64, bytes: u32, looks: Looks) -> Option<SendPlan> {
        let start_ns = self.send_start_ns;
        self.send_start_ns = 0;
        self.record.total_bytes += u64::from(bytes);
        match self.phase {
            phase::READING => {
                self.phase = phase::WRITING;
                self.chunked = 0;
                self.record.writes = 1;
                self.note_first_write(start_ns, now_ns);
                self.record.last_write_ns = now_ns;
                self.record.written_bytes = u64::from(bytes);
                self.answer_budget = ANSWER_HEAD_CAP as u16;
                let len = smaller(bytes, self.answer_budget);
                Some(SendPlan {
                    emit: Some(kind::EXCHANGE),
                    capture: Capture {
                        at: self.record.request_len,
                        len,
                    },
                })
            }
            phase::WRITING => {
                self.record.last_write_ns = now_ns;
                self.record.written_bytes += u64::from(bytes);
                self.record.writes = self.record.writes.wrapping_add(1);
                if looks.answer_like {
                    self.chunked = 0;
                } else if looks.chunk_like {
                    self.chunked = 1;
                }
                if self.chunked != 0 {
                    self.answer_budget = if bytes <= SMALL_CHUNK {
                        ANSWER_HEAD_CAP as u16
                    } else {
                        CHUNK_HEAD
                    };
                    self.note_first_write(start_ns, now_ns);
                } else if looks.answer_like || self.record.mode == mode::FRAMES {
                    self.answer_budget = ANSWER_HEAD_CAP as u16;
                    self.note_first_write(start_ns, now_ns);
                }
                let len = smaller(bytes, self.answer_budget);
                let apart = now_ns.saturating_sub(self.emitted_ns) >= COALESCE_NS;
                let emit = if len > 0 || apart || self.chunked != 0 {
                    Some(kind::PROGRESS)
                } else {
                    None
                };
                Some(SendPlan {
                    emit,
                    capture: Capture { at: 0, len },
                })
            }
            _ => None,
        }
    }

    /// Takes in a write of `bytes` on a shared connection that returned at `now_ns`: `self` is the state of its answers, and
    /// `conn` that of its requests. The walk counts and copies.
    #[inline(always)]
    pub fn on_stream_send(&mut self, conn: &mut Self, now_ns: u64, bytes: u32) {
        if self.record.cookie == 0 {
            self.record.cookie = conn.record.cookie;
            self.record.local_port = conn.record.local_port;
            self.record.peer_port = conn.record.peer_port;
            self.record.flags = conn.record.flags & flag::UNIX | flag::ANSWERS;
            self.record.mode = mode::STREAMS;
            self.answer_walk = conn.answer_walk;
        }
        let start_ns = conn.send_start_ns;
        conn.send_start_ns = 0;
        self.record.tgid = conn.record.tgid;
        self.record.total_bytes += u64::from(bytes);
        self.note_first_write(start_ns, now_ns);
        self.record.last_write_ns = now_ns;
    }

    /// Notes that a read of a shared connection went up: it waits for no write.
    #[inline(always)]
    pub fn on_stream_read(&mut self) {
        self.phase = phase::WRITING;
    }

    /// How a connection that may be an HTTP/2 client's begins.
    #[inline(always)]
    pub fn set_mode(&mut self, spoken: u8) {
        self.record.mode = spoken;
        if spoken == mode::STREAMS {
            self.request_walk = Walk::BEFORE_PREFACE;
        }
    }

    /// Takes the connection, of which nothing was seen, for an HTTP/2 one that was joined in the middle: before a frame of
    /// the client.
    #[inline(always)]
    pub fn join(&mut self) {
        self.record.mode = mode::STREAMS;
        self.joined = 1;
    }

    /// Passes over a write of `bytes` on a connection that was joined in the middle: no frame begins with it.
    #[inline(always)]
    pub fn pass_over_send(&mut self, bytes: u32) {
        self.send_start_ns = 0;
        self.record.total_bytes += u64::from(bytes);
    }

    /// Takes the connection to speak HTTP/2 from here on: before the client's preface.
    #[inline(always)]
    pub fn switch(&mut self) {
        self.switching = 0;
        self.set_mode(mode::STREAMS);
    }

    /// Takes back a write of `bytes`, the first after a read segment, which was taken in as an HTTP/1 answer: the segment
    /// is to go up without it.
    #[inline(always)]
    pub fn take_back_write(&mut self, bytes: u32) {
        if self.record.flags & flag::WRITE_AT_RETURN == 0 {
            self.send_start_ns = self.record.first_write_ns;
        }
        self.record.total_bytes -= u64::from(bytes);
        self.record.first_write_ns = 0;
        self.record.last_write_ns = 0;
        self.record.written_bytes = 0;
        self.record.writes = 0;
        self.record.answer_len = 0;
    }

    /// Where one direction of a shared connection stands.
    #[inline(always)]
    pub fn walk(&mut self, answers: bool) -> &mut Walk {
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

    /// Notes that the walk took `bytes` of one direction, and carries them if `carried`.
    #[inline(always)]
    pub fn on_walked(&mut self, answers: bool, bytes: u32, carried: bool) {
        let carried = if carried { bytes as u16 } else { 0 };
        if answers {
            self.record.written_bytes += u64::from(bytes);
            self.record.answer_len += carried;
        } else {
            self.record.read_bytes += u64::from(bytes);
            self.record.request_len += carried;
        }
    }

    #[inline(always)]
    fn note_first_write(&mut self, start_ns: u64, now_ns: u64) {
        if start_ns == 0 {
            self.record.first_write_ns = now_ns;
            self.record.flags |= flag::WRITE_AT_RETURN;
        } else {
            self.record.first_write_ns = start_ns;
            self.record.flags &= !flag::WRITE_AT_RETURN;
        }
    }

    /// Notes that `len` request bytes of the `planned` were copied: none follow behind a hole.
    #[inline(always)]
    pub fn captured_request(&mut self, planned: Capture, len: u16) {
        self.record.request_len += len;
        if self.record.mode == mode::MESSAGES {
            self.request_walk.on_payload(u32::from(len));
        }
        if len < planned.len {
            self.record.flags |= flag::REQUEST_CUT;
        }
    }

    /// Notes that `len` answer bytes of the `planned` were copied: none follow behind a hole.
    #[inline(always)]
    pub fn captured_answer(&mut self, planned: Capture, len: u16) {
        self.record.answer_len = len;
        self.answer_budget = self.answer_budget.saturating_sub(len);
        if len < planned.len {
            self.answer_budget = 0;
        }
    }

    /// Records still to go up when the server can write no more: what was pending first, then the close itself.
    #[inline(always)]
    pub fn close_cuts(&self) -> Option<u8> {
        if self.pending != 0 {
            Some(kind::PROGRESS)
        } else if self.phase == phase::READING {
            Some(kind::READ)
        } else {
            None
        }
    }

    /// Makes `record` ready to go up as `record_kind` at `now_ns`, and says how many payload bytes go with it.
    #[inline(always)]
    pub fn seal(&mut self, record_kind: u8, now_ns: u64) -> u16 {
        self.record.seq = self.record.seq.wrapping_add(1 + u32::from(self.missed));
        self.missed = 0;
        self.record.kind = record_kind;
        self.emitted_ns = now_ns;
        self.pending = 0;
        if record_kind == kind::CLOSE {
            self.record.last_write_ns = now_ns;
        }
        self.record
            .request_len
            .saturating_add(self.record.answer_len)
    }

    /// Forgets the payload that went up.
    #[inline(always)]
    pub fn sent(&mut self) {
        self.record.request_len = 0;
        self.record.answer_len = 0;
    }
}

impl Default for Conn {
    fn default() -> Self {
        Self::new()
    }
}

#[inline(always)]
fn smaller(bytes: u32, cap: u16) -> u16 {
    if bytes < u32::from(cap) {
        bytes as u16
    } else {
        cap
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    /// Plays transfers against a socket's state as the hooks do, and keeps the records that went up.
    struct Player {
        conn: Conn,
        up: Vec<Record>,
    }

    impl Player {
        fn new() -> Self {
            Self {
                conn: Conn::new(),
                up: vec![],
            }
        }

        fn emit(&mut self, record_kind: u8, now_ns: u64) {
            self.conn.seal(record_kind, now_ns);
            self.up.push(self.conn.record);
            self.conn.sent();
        }

        fn recv(
            &mut self,
            now_ns: u64,
            bytes: u32,
            arrival: Arrival,
            request_like: bool,
        ) -> Capture {
            let plan = self.conn.plan_recv(bytes, request_like);
            if let Some(cut) = plan.cut {
                self.emit(cut, now_ns);
            }
            let arrival = (arrival, false);
            let capture = self.conn.on_recv(now_ns, bytes, arrival, plan);
            if self.conn.is_walked(bytes) && self.conn.record.mode == mode::MESSAGES {
                self.walk(now_ns, bytes);
            }
            self.conn.captured_request(capture, capture.len);
            capture
        }

        /// Takes a read in as the walker does.
        fn walk(&mut self, now_ns: u64, bytes: u32) {
            let mut left = bytes;
            let mut end = READ_END_CAP;
            while left > 0 {
                if self.conn.request_walk.keeps() == 0 && left <= end {
                    self.emit(kind::READ, now_ns);
                    self.conn.on_split();
                    self.conn.request_walk = Walk::carrying(left);
                    end = 0;
                }
                let kept = self.conn.request_walk.keeps().min(left).min(512);
                if kept > self.conn.room(false) {
                    self.emit(kind::READ, now_ns);
                    self.conn.on_split();
                    continue;
                }
                let taken = if kept > 0 { kept } else { left - end };
                self.conn.request_walk.on_payload(taken);
                self.conn.on_walked(false, taken, kept > 0);
                left -= taken;
            }
        }

        fn send(&mut self, start_ns: u64, now_ns: u64, bytes: u32, answer_like: bool) {
            let looks = Looks {
                answer_like,
                chunk_like: false,
            };
            self.send_looking(start_ns, now_ns, bytes, looks);
        }

        fn send_looking(&mut self, start_ns: u64, now_ns: u64, bytes: u32, looks: Looks) {
            if self.conn.send_cuts(looks) {
                self.emit(kind::PROGRESS, now_ns);
            }
            self.conn.send_start_ns = start_ns;
            let Some(plan) = self.conn.on_send(now_ns, bytes, looks) else {
                return;
            };
            self.conn.captured_answer(plan.capture, plan.capture.len);
            match plan.emit {
                Some(record_kind) => self.emit(record_kind, now_ns),
                None => self.conn.pending = 1,
            }
        }
    }

    #[test]
    fn a_request_and_its_answer_are_one_exchange() {
        let mut player = Player::new();
        player.recv(2_000, 300, Arrival::At(1_000), true);
        player.send(9_000, 9_500, 120, true);
        let [record] = player.up[..] else {
            panic!("{:?}", player.up)
        };
        assert_eq!(record.kind, kind::EXCHANGE);
        assert_eq!(
            (record.arrival_ns, record.first_read_ns, record.last_read_ns),
            (1_000, 2_000, 2_000)
        );
        assert_eq!(
            (record.first_write_ns, record.last_write_ns),
            (9_000, 9_500)
        );
        assert_eq!((record.read_bytes, record.written_bytes), (300, 120));
        assert_eq!((record.request_len, record.answer_len), (300, 120));
        assert_eq!(record.flags, flag::ARRIVAL_KNOWN);
        assert_eq!(record.seq, 1);
    }

    /// What went up: kind, first read, bytes, and how many of them were carried.
    fn told(player: &Player) -> Vec<(u8, u64, u64, u16)> {
        let told = |record: &Record| {
            let Record {
                kind,
                first_read_ns,
                read_bytes,
                request_len,
                ..
            } = *record;
            (kind, first_read_ns, read_bytes, request_len)
        };
        player.up.iter().map(told).collect()
    }

    #[test]
    fn each_read_of_a_request_goes_up() {
        let mut player = Player::new();
        player.recv(10, 24, Arrival::At(5), true);
        player.recv(20, 800, Arrival::At(15), false);
        player.recv(30, 1, Arrival::At(25), false);
        player.send(50, 60, 10, true);
        assert_eq!(
            told(&player),
            [
                (kind::READ, 10, 24, 24),
                (kind::READ, 20, 800, 800),
                (kind::EXCHANGE, 30, 1, 1)
            ]
        );
        assert_eq!(player.up[1].arrival_ns, 15);
        assert_eq!(player.up[2].total_bytes, 24 + 800 + 1 + 10);
    }

    #[test]
    fn the_reads_of_a_long_body_are_told_together_behind_its_beginning() {
        let mut player = Player::new();
        player.recv(10, 1_000, Arrival::At(5), true);
        for step in 2..=10 {
            player.recv(step * 10, 2_000, Arrival::Unseen, false);
        }
        player.recv(200, 100, Arrival::Unseen, false);
        player.recv(210, 600, Arrival::Unseen, false);
        player.send(250, 260, 10, true);
        let [.., long, small, last] = &told(&player)[..] else {
            panic!("{:?}", player.up)
        };
        // The end of the second read of 2,000 bytes, and seven more; a small read may begin a request, and is followed.
        assert_eq!(*long, (kind::READ, 30, 14_904, 904));
        assert_eq!(*small, (kind::READ, 200, 100, 100));
        assert_eq!(*last, (kind::EXCHANGE, 210, 600, 600));
        let read: u64 = player.up.iter().map(|record| record.read_bytes).sum();
        assert_eq!(read, 1_000 + 9 * 2_000 + 100 + 600);
    }

    #[test]
    fn the_end_of_a_read_that_may_be_the_last_is_carried() {
        let mut player = Player::new();
        for (now_ns, bytes) in [(10, 8_000), (20, 8_000), (30, 7_000), (40, 7_000)] {
            player.recv(now_ns, bytes, Arrival::Unseen, false);
        }
        player.send(250, 260, 10, true);
        assert_eq!(
            told(&player)[3..],
            [
                (kind::READ, 10, 3_904, 1_024),
                (kind::READ, 10, 9_024, 1_024),
                (kind::READ, 30, 5_976, 1_024),
                (kind::EXCHANGE, 30, 8_024, 1_024),
            ]
        );
    }

    #[test]
    fn one_read_that_does_not_fit_a_record_goes_up_in_several() {
        let mut player = Player::new();
        player.recv(10, 9_000, Arrival::At(5), true);
        player.send(50, 60, 10, true);
        assert_eq!(
            told(&player),
            [
                (kind::READ, 10, 1_024, 1_024),
                (kind::READ, 10, 1_024, 1_024),
                (kind::READ, 10, 1_024, 1_024),
                (kind::READ, 10, 4_904, 1_024),
                // Its end, behind what was not carried.
                (kind::EXCHANGE, 10, 1_024, 1_024)
            ]
        );
        for (record, offset) in player.up.iter().zip([0, 1_024, 2_048, 3_072, 7_976]) {
            assert_eq!((record.arrival_ns, record.read_offset), (5, offset));
        }
    }

    #[test]
    fn writes_in_chunks_each_go_up_with_their_beginning() {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::At(1), true);
        player.send(20, 21, 130, true);
        let chunk = Looks {
            answer_like: false,
            chunk_like: true,
        };
        player.send_looking(22, 23, 900, chunk);
        player.send(24, 25, 900, false);
        player.send(26, 27, 20_000, false);
        let written: Vec<(u64, u64, u16, u32)> = player
            .up
            .iter()
            .map(|record| {
                (
                    record.first_write_ns,
                    record.written_bytes,
                    record.answer_len,
                    record.writes,
                )
            })
            .collect();
        assert_eq!(
            written,
            [
                (20, 130, 130, 1),
                (22, 1_030, 900, 2),
                (24, 1_930, 900, 3),
                (26, 21_930, 64, 4)
            ]
        );
        player.recv(100, 100, Arrival::At(90), true);
        player.send(110, 111, 3_000, true);
        player.send(112, 113, 3_000, false);
        assert_eq!(player.conn.pending, 1);
    }

    #[test]
    fn no_bytes_follow_a_hole() {
        let mut conn = Conn::new();
        conn.record.mode = mode::FRAMES;
        let plan = conn.plan_recv(200, true);
        let first = conn.on_recv(10, 200, (Arrival::Unseen, false), plan);
        conn.captured_request(first, 100);
        let plan = RecvPlan {
            cut: None,
            begins: false,
            fresh: false,
            shorter: false,
        };
        let next = conn.on_recv(20, 100, (Arrival::Unseen, false), plan);
        assert_eq!(next.len, 0);
        let looks = Looks::default();
        let next = conn.on_send(30, 100, looks).unwrap().capture;
        conn.captured_answer(next, 0);
        conn.record.mode = mode::MESSAGES;
        assert_eq!(conn.on_send(40, 100, looks).unwrap().capture.len, 0);
    }

    #[test]
    fn a_second_request_read_before_the_answer_cuts_the_segment() {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::At(1), true);
        player.recv(20, 50, Arrival::At(15), true);
        player.send(90, 95, 10, true);
        assert_eq!(player.up[0].kind, kind::READ);
        assert_eq!(
            (player.up[0].read_bytes, player.up[0].first_write_ns),
            (100, 0)
        );
        assert_eq!(player.up[1].kind, kind::EXCHANGE);
        assert_eq!((player.up[1].read_bytes, player.up[1].arrival_ns), (50, 15));
    }

    #[test]
    fn a_send_whose_start_was_not_seen_is_marked() {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::Unseen, true);
        player.send(0, 95, 10, true);
        assert_eq!(player.up[0].flags, flag::WRITE_AT_RETURN);
        assert_eq!(player.up[0].first_write_ns, 95);
    }

    #[test]
    fn small_answers_go_up_write_by_write() {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::At(1), true);
        player.send(20, 21, 130, true);
        player.send(22, 23, 40, false);
        let kinds: Vec<u8> = player.up.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [kind::EXCHANGE, kind::PROGRESS]);
        assert_eq!(
            (player.up[1].written_bytes, player.up[1].last_write_ns),
            (170, 23)
        );
        assert_eq!((player.up[1].request_len, player.up[1].answer_len), (0, 40));
    }

    #[test]
    fn long_answers_are_coalesced_and_their_end_is_never_lost() {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::At(1), true);
        for step in 1..=300_u64 {
            player.send(step * 1_000, step * 1_000 + 10, 16_384, step == 1);
        }
        assert!(player.up.len() < 5, "{} records", player.up.len());
        assert_eq!(player.conn.pending, 1);
        player.recv(9_000_000, 100, Arrival::At(8_000_000), true);
        let last = player.up.last().unwrap();
        assert_eq!(last.kind, kind::PROGRESS);
        assert_eq!(last.written_bytes, 300 * 16_384);
        assert_eq!(last.last_write_ns, 300_010);
    }

    #[test]
    fn slow_chunks_each_go_up() {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::At(1), true);
        for step in 1..=10_u64 {
            player.send(step * 1_000_000, step * 1_000_000 + 10, 2_000, step == 1);
        }
        assert_eq!(player.up.len(), 10);
    }

    #[test]
    fn a_second_answer_in_one_run_of_writes_brings_its_head_and_start() {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::At(1), true);
        player.send(20, 21, 2_000, true);
        player.send(22, 23, 2_000, false);
        assert_eq!(player.conn.pending, 1);
        player.send(24, 25, 90, true);
        let [.., rest, second] = &player.up[..] else {
            panic!("{:?}", player.up)
        };
        assert_eq!((rest.written_bytes, rest.answer_len), (4_000, 0));
        assert_eq!((second.written_bytes, second.answer_len), (4_090, 90));
        assert_eq!((second.first_write_ns, second.last_write_ns), (24, 25));
    }

    #[test]
    fn the_small_reads_of_a_frame_all_go_up() {
        let mut player = Player::new();
        player.conn.record.mode = mode::FRAMES;
        player.recv(10, 1, Arrival::At(5), false);
        for step in 0..400_u64 {
            player.recv(20 + step, 4, Arrival::Unseen, false);
        }
        player.recv(1_000, 300_000, Arrival::Unseen, false);
        player.recv(1_001, 17, Arrival::Unseen, false);
        player.recv(1_002, 4, Arrival::Unseen, false);
        player.send(0, 2_000, 150, false);
        let pieces: Vec<(u8, u16, u64)> = player
            .up
            .iter()
            .map(|record| (record.kind, record.request_len, record.read_bytes))
            .collect();
        assert_eq!(
            pieces,
            [
                (kind::READ, 1_021, 1_021),
                (kind::READ, 580, 300_580),
                (kind::EXCHANGE, 21, 21),
            ]
        );
        assert_eq!(player.up[0].arrival_ns, 5);
        assert_eq!(
            (player.up[2].last_read_ns, player.up[2].first_write_ns),
            (1_002, 2_000)
        );
    }

    #[test]
    fn each_write_of_a_framed_answer_goes_up_with_its_beginning() {
        let mut player = Player::new();
        player.conn.record.mode = mode::FRAMES;
        player.recv(10, 1, Arrival::At(5), false);
        for step in 1..=20_u64 {
            player.send(0, 10 + step, 5_000, false);
        }
        assert_eq!(player.up.len(), 20);
        assert!(player.up.iter().all(|record| record.answer_len == 1_024));
        assert_eq!(player.up[19].first_write_ns, 30);
    }

    #[test]
    fn each_transfer_of_shared_connections_goes_up_by_itself() {
        let mut player = Player::new();
        player.conn.set_mode(mode::STREAMS);
        player.conn.record.cookie = 7;
        let mut answers = Conn::new();
        let read = |player: &mut Player, now_ns, bytes, arrival| {
            player.recv(now_ns, bytes, arrival, false);
            player.conn.on_walked(false, bytes, true);
            player.emit(kind::READ, now_ns);
            player.conn.on_stream_read();
        };
        let mut write = |player: &mut Player, start_ns, now_ns, bytes| {
            player.conn.send_start_ns = start_ns;
            answers.on_stream_send(&mut player.conn, now_ns, bytes);
            answers.on_walked(true, bytes, true);
            answers.seal(kind::PROGRESS, now_ns);
            player.up.push(answers.record);
            answers.sent();
        };
        read(&mut player, 10, 100, Arrival::At(5));
        write(&mut player, 28, 30, 50);
        read(&mut player, 35, 200, Arrival::At(31));
        write(&mut player, 38, 40, 60);
        let told: Vec<_> = player
            .up
            .iter()
            .map(|record| {
                let times = (record.arrival_ns, record.first_write_ns);
                let bytes = (record.read_bytes, record.written_bytes);
                (record.kind, record.seq, times, bytes, record.total_bytes)
            })
            .collect();
        assert_eq!(
            told,
            [
                (kind::READ, 1, (5, 0), (100, 0), 100),
                (kind::PROGRESS, 1, (0, 28), (0, 50), 50),
                (kind::READ, 2, (31, 0), (200, 0), 300),
                (kind::PROGRESS, 2, (0, 38), (0, 110), 110),
            ]
        );
        assert!(
            player
                .up
                .iter()
                .all(|record| record.cookie == 7 && record.mode == mode::STREAMS)
        );
        assert_eq!(
            (player.up[0].request_len, player.up[1].answer_len),
            (100, 50)
        );
        assert_eq!(player.conn.close_cuts(), None);
    }

    #[test]
    fn a_server_that_speaks_first_is_not_recorded() {
        let mut player = Player::new();
        player.send(1, 2, 50, false);
        assert!(player.up.is_empty());
    }

    #[test]
    fn an_unanswered_request_goes_up_at_the_close() {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::At(1), true);
        assert_eq!(player.conn.close_cuts(), Some(kind::READ));
        player.send(20, 21, 100, true);
        assert_eq!(player.conn.close_cuts(), None);
    }

    #[test]
    fn a_write_taken_back_leaves_the_reads_and_is_the_answers() {
        let mut player = Player::new();
        player.conn.record.cookie = 7;
        player.recv(10, 100, Arrival::At(1), true);
        player.conn.send_start_ns = 18;
        let first = player.conn.on_send(20, 80, Looks::default()).unwrap();
        player.conn.captured_answer(first.capture, 80);
        player.conn.answer_walk = Walk::behind(60);
        player.conn.take_back_write(80);
        player.emit(kind::READ, 20);
        player.conn.switch();
        let told = player.up[0];
        assert_eq!(
            (
                told.mode,
                told.read_bytes,
                told.request_len,
                told.answer_len
            ),
            (mode::MESSAGES, 100, 100, 0)
        );
        assert_eq!((told.written_bytes, told.total_bytes), (0, 100));
        assert_eq!(player.conn.walk(false).keeps(), 24);
        let mut answers = Conn::new();
        answers.on_stream_send(&mut player.conn, 20, 80);
        let told = answers.record;
        assert_eq!(
            (told.cookie, told.mode, told.flags, told.total_bytes),
            (7, mode::STREAMS, flag::ANSWERS, 80)
        );
        assert_eq!((told.first_write_ns, told.last_write_ns), (18, 20));
        assert_eq!(answers.walk(true).keeps(), 60);
    }

    #[test]
    fn a_joined_connection_passes_over_writes_that_begin_no_frame() {
        let mut player = Player::new();
        player.conn.join();
        player.recv(10, 100, Arrival::Unseen, false);
        assert!(player.conn.walk(false).is_before_head());
        player.conn.send_start_ns = 15;
        player.conn.pass_over_send(1_000);
        assert_eq!(player.conn.record.total_bytes, 1_100);
        let mut answers = Conn::new();
        answers.on_stream_send(&mut player.conn, 30, 9);
        assert_eq!(answers.record.first_write_ns, 30);
        assert_eq!(answers.record.total_bytes, 9);
    }
}
