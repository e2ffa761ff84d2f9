//! Per-socket segments: runs of reads and of writes, cut into records wherever a message may begin.
//!
//! Decides when a record goes up and which bytes it carries. Knows no map, helper or clock, and no protocol beyond
//! `frame`'s hints: whether a request is complete, and whose answer it is, is userspace's to say.

use crate::{
    abi::{ANSWER_HEAD_CAP, REQUEST_HEAD_CAP, flag, kind, mode},
    arrival::Arrival,
    conn::{Conn, phase},
    http2_frames::FrameCursor,
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
pub struct WriteHint {
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
    /// What a read of `bytes` brings about before it is taken in.
    #[inline(always)]
    pub fn plan_recv(&self, bytes: u32, request_like: bool) -> RecvPlan {
        let reading = self.progress.phase == phase::READING;
        let goes_on = reading && self.is_next_piece(bytes);
        let cut = if self.progress.pending != 0 {
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
            _ => bytes <= SMALL_READ || self.is_shorter(bytes) || self.cursors.requests.keeps() > 0,
        }
    }

    /// Whether a read took less than the one before: it emptied the queue, and so may be the last of its request.
    #[inline(always)]
    fn is_shorter(&self, bytes: u32) -> bool {
        self.record.mode == mode::MESSAGES && bytes < self.progress.last_read_bytes
    }

    /// Whether what is pending must go up before a write whose bytes it would hide.
    #[inline(always)]
    pub fn send_cuts(&self, hint: WriteHint) -> bool {
        self.progress.pending != 0 && (hint.answer_like || hint.chunk_like)
    }

    /// Takes in a read of `bytes` that returned at `now_ns`, and says which of its bytes to keep.
    ///
    /// `arrival` is when its first byte came, and whether all others came with it; it is looked at only if the read
    /// begins a record. What [`Conn::is_copied_stepwise`] has nothing to keep: its walk does that.
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
            let kept = self.cursors.requests.keeps();
            let kept = if plan.fresh {
                CARRIED_CAP
            } else if plan.shorter && kept < REQUEST_HEAD_CAP as u32 {
                REQUEST_HEAD_CAP as u32
            } else {
                kept
            };
            self.cursors.requests = FrameCursor::copying(kept);
            self.progress.last_read_bytes = bytes;
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
            self.progress.phase = phase::READING;
        } else {
            self.record.flags &= !flag::ONE_ARRIVAL;
        }
        self.record.last_read_ns = now_ns;
        if self.is_copied_stepwise(bytes) {
            return Capture { at: 0, len: 0 };
        }
        self.record.read_bytes += u64::from(bytes);
        let at = self.record.request_len;
        let passed_over = self.record.mode == mode::FRAMES && bytes > FRAME_READ_CAP;
        let wanted = self.record.mode == mode::FRAMES || self.cursors.requests.keeps() > 0;
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
    pub fn is_copied_stepwise(&self, bytes: u32) -> bool {
        match self.record.mode {
            mode::STREAMS => true,
            mode::MESSAGES => bytes > REQUEST_HEAD_CAP as u32 && self.cursors.requests.keeps() > 0,
            _ => false,
        }
    }

    /// Notes that a record of a walk went up, and that the next one goes on with the same read.
    #[inline(always)]
    pub fn on_record_full(&mut self) {
        self.record.read_offset += self.record.read_bytes as u32;
        self.record.read_bytes = 0;
    }

    /// Notes the steps in which the bytes came of a read that begins a record, the first of them at position `first`.
    #[inline(always)]
    pub fn on_steps(&mut self, first: u32) {
        if self.record.flags & (flag::ARRIVAL_KNOWN | flag::ONE_ARRIVAL) == flag::ARRIVAL_KNOWN {
            self.record.steps = self.queue.arrivals.steps(first, self.record.arrival_ns);
            self.record.flags |= flag::STEPS;
        }
    }

    /// Notes that a write begins, at what `start_ns` says: unless nothing was read before it, or its start is known.
    #[inline(always)]
    pub fn on_send_start(&mut self, start_ns: impl FnOnce() -> u64) {
        if self.progress.phase != phase::IDLE && self.progress.send_start_ns == 0 {
            self.progress.send_start_ns = start_ns();
        }
    }

    /// Takes in a write of `bytes` that returned at `now_ns`.
    ///
    /// `None`: nothing was read before it, so it answers nothing that was seen.
    #[inline(always)]
    pub fn on_send(&mut self, now_ns: u64, bytes: u32, hint: WriteHint) -> Option<SendPlan> {
        let start_ns = self.progress.send_start_ns;
        self.progress.send_start_ns = 0;
        self.record.total_bytes += u64::from(bytes);
        match self.progress.phase {
            phase::READING => {
                self.progress.phase = phase::WRITING;
                self.progress.chunked = 0;
                self.record.writes = 1;
                self.note_first_write(start_ns, now_ns);
                self.record.last_write_ns = now_ns;
                self.record.written_bytes = u64::from(bytes);
                self.progress.answer_budget = ANSWER_HEAD_CAP as u16;
                let len = smaller(bytes, self.progress.answer_budget);
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
                if hint.answer_like {
                    self.progress.chunked = 0;
                } else if hint.chunk_like {
                    self.progress.chunked = 1;
                }
                if self.progress.chunked != 0 {
                    self.progress.answer_budget = if bytes <= SMALL_CHUNK {
                        ANSWER_HEAD_CAP as u16
                    } else {
                        CHUNK_HEAD
                    };
                    self.note_first_write(start_ns, now_ns);
                } else if hint.answer_like || self.record.mode == mode::FRAMES {
                    self.progress.answer_budget = ANSWER_HEAD_CAP as u16;
                    self.note_first_write(start_ns, now_ns);
                }
                let len = smaller(bytes, self.progress.answer_budget);
                let apart = now_ns.saturating_sub(self.progress.emitted_ns) >= COALESCE_NS;
                let emit = if len > 0 || apart || self.progress.chunked != 0 {
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
            self.cursors.answers = conn.cursors.answers;
        }
        let start_ns = conn.progress.send_start_ns;
        conn.progress.send_start_ns = 0;
        self.record.tgid = conn.record.tgid;
        self.record.total_bytes += u64::from(bytes);
        self.note_first_write(start_ns, now_ns);
        self.record.last_write_ns = now_ns;
    }

    /// Notes that a read of a shared connection went up: it waits for no write.
    #[inline(always)]
    pub fn on_stream_read(&mut self) {
        self.progress.phase = phase::WRITING;
    }

    /// Passes over a write of `bytes` on a connection that was joined in the middle: no frame begins with it.
    #[inline(always)]
    pub fn skip_send(&mut self, bytes: u32) {
        self.progress.send_start_ns = 0;
        self.record.total_bytes += u64::from(bytes);
    }

    /// Takes back a write of `bytes`, the first after a read segment, which was taken in as an HTTP/1 answer: the segment
    /// is to go up without it.
    #[inline(always)]
    pub fn undo_write(&mut self, bytes: u32) {
        if self.record.flags & flag::WRITE_AT_RETURN == 0 {
            self.progress.send_start_ns = self.record.first_write_ns;
        }
        self.record.total_bytes -= u64::from(bytes);
        self.record.first_write_ns = 0;
        self.record.last_write_ns = 0;
        self.record.written_bytes = 0;
        self.record.writes = 0;
        self.record.answer_len = 0;
    }

    /// Notes that the walk took `bytes` of one direction, and carries them if `carried`.
    #[inline(always)]
    pub fn on_copied(&mut self, answers: bool, bytes: u32, carried: bool) {
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
    pub fn on_request_captured(&mut self, planned: Capture, len: u16) {
        self.record.request_len += len;
        if self.record.mode == mode::MESSAGES {
            self.cursors.requests.on_payload(u32::from(len));
        }
        if len < planned.len {
            self.record.flags |= flag::REQUEST_CUT;
        }
    }

    /// Notes that `len` answer bytes of the `planned` were copied: none follow behind a hole.
    #[inline(always)]
    pub fn on_answer_captured(&mut self, planned: Capture, len: u16) {
        self.record.answer_len = len;
        self.progress.answer_budget = self.progress.answer_budget.saturating_sub(len);
        if len < planned.len {
            self.progress.answer_budget = 0;
        }
    }

    /// Records still to go up when the server can write no more: what was pending first, then the close itself.
    #[inline(always)]
    pub fn close_emits(&self) -> Option<u8> {
        if self.progress.pending != 0 {
            Some(kind::PROGRESS)
        } else if self.progress.phase == phase::READING {
            Some(kind::READ)
        } else {
            None
        }
    }

    /// Makes `record` ready to go up as `record_kind` at `now_ns`, and says how many payload bytes go with it.
    #[inline(always)]
    pub fn seal(&mut self, record_kind: u8, now_ns: u64) -> u16 {
        self.record.seq = self
            .record
            .seq
            .wrapping_add(1 + u32::from(self.lock.missed));
        self.lock.missed = 0;
        self.record.kind = record_kind;
        self.progress.emitted_ns = now_ns;
        self.progress.pending = 0;
        if record_kind == kind::CLOSE {
            self.record.last_write_ns = now_ns;
        }
        self.record
            .request_len
            .saturating_add(self.record.answer_len)
    }

    /// Forgets the payload that went up.
    #[inline(always)]
    pub fn on_emitted(&mut self) {
        self.record.request_len = 0;
        self.record.answer_len = 0;
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
mod tests;
