//! Decides when a record is emitted, and which bytes it contains.
//!
//! A segment is a run of reads or of writes. It is cut into records wherever a message may begin. Whether a request is
//! complete, and which response belongs to it, is decided in the agent.
//! Does not depend on: maps, helpers, the clock, protocols beyond the hints of `sniff`.

use crate::{
    abi::{PAYLOAD_CAP, REQUEST_HEAD_CAP, RESPONSE_HEAD_CAP, flag, kind, mode},
    arrival::Arrival,
    conn::{Conn, phase},
    http2_frames::FrameCursor,
    sniff::ends_json,
};

/// Fewest bytes that are copied of a run of reads, whatever the limit for bodies is: heads, several requests in one read.
pub const COPIED_LEAST: u32 = 4096;
/// Bytes that are copied of a run of reads unless the agent is told otherwise: 64 KiB of heads, and 1 MiB of bodies.
pub const COPIED_DEFAULT: u32 = (64 << 10) + (1 << 20);
/// Bytes that are copied from the end of a read whose middle is not copied: after the rest of a body, the next request
/// may begin there.
pub const READ_END_CAP: u32 = 1024;
/// Reads up to this size always have a record of their own, because one may contain the first bytes of a request.
pub const SMALL_READ: u32 = 256;
/// Bytes that are copied of a write of events: several of them, or one long one.
pub const EVENTS_CAP: u32 = 16 << 10;
/// Most bytes of a response's head that are copied.
pub const HEAD_CAP: u32 = 16 << 10;
/// Bytes that are copied from the end of a write of JSON whose middle is not copied: a language model's response states
/// there how many tokens it used.
pub const WRITE_END_CAP: u32 = 1024;
/// Bytes of a record's tail.
pub const TAIL_BYTES: u32 = 8;
/// Later writes of a response that follow each other within this time share a record.
pub const COALESCE_NS: u64 = 200_000;
/// The end of a head.
const BLANK_LINE: u32 = u32::from_be_bytes(*b"\r\n\r\n");
/// Longest read of a worker's frame that is copied: names and lengths are shorter, and longer values are not needed.
pub const FRAME_READ_CAP: u32 = 256;

/// Bytes of the user's buffer to copy: `len` of them, to `payload[at..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// Position in the payload.
    pub at: u16,
    /// Most bytes to copy.
    pub len: u16,
}

/// What a read requires before it is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvPlan {
    /// Record to emit first: the rest of a response, or reads that this one does not belong to.
    pub cut: Option<u8>,
    /// Whether the read begins a record, so that its arrival is wanted.
    pub begins: bool,
    /// Whether it may begin a request, so that its bytes are copied.
    pub fresh: bool,
    /// Whether it may end one request and begin the next, so that its end is copied.
    pub shorter: bool,
}

/// What a write looks like, by its first bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteHint {
    /// Whether it looks like a response's head.
    pub response_like: bool,
    /// Whether it looks like the size of a chunk, or the start of an event.
    pub chunk_like: bool,
}

/// What a write requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendPlan {
    /// Record to emit once the bytes are copied; `None`: the progress slot is enough.
    pub emit: Option<u8>,
    /// Response bytes to copy first.
    pub capture: Capture,
}

impl Conn {
    /// Returns what a read of `bytes` requires before it is added.
    #[inline(always)]
    pub fn plan_recv(&self, bytes: u32, request_like: bool) -> RecvPlan {
        let reading = self.progress.phase == phase::READING;
        let is_next_piece = reading && self.is_next_piece(bytes);
        let unreported = self.record.read_bytes > 0;
        let cut = if self.progress.pending != 0 {
            Some(kind::PROGRESS)
        } else if unreported && reading && (request_like || is_next_piece) {
            Some(kind::READ)
        } else {
            None
        };
        RecvPlan {
            cut,
            begins: !reading || request_like || is_next_piece,
            fresh: !reading || request_like || bytes <= SMALL_READ,
            shorter: self.is_shorter(bytes),
        }
    }

    /// Whether a read within a run of reads begins a record.
    #[inline(always)]
    fn is_next_piece(&self, bytes: u32) -> bool {
        match self.record.mode {
            mode::FRAMES => {
                let at = u32::from(self.record.request_len);
                let after_a_gap = self.record.read_bytes != u64::from(at);
                bytes <= FRAME_READ_CAP && (after_a_gap || at + bytes > REQUEST_HEAD_CAP as u32)
            }
            mode::STREAMS => true,
            mode::RECORDS => !self.cursors.requests.holds(bytes),
            _ => bytes <= SMALL_READ || self.is_shorter(bytes) || self.cursors.requests.keeps() > 0,
        }
    }

    /// Whether a read is shorter than the one before. It then emptied the queue, and may be the last of its request.
    #[inline(always)]
    fn is_shorter(&self, bytes: u32) -> bool {
        self.record.mode == mode::MESSAGES && bytes < self.progress.last_read_bytes
    }

    /// Whether a pending write must be emitted before this one, which begins a response or a chunk.
    #[inline(always)]
    pub fn send_cuts(&self, hint: WriteHint) -> bool {
        self.progress.pending != 0 && (hint.response_like || hint.chunk_like)
    }

    /// Adds a read of `bytes` that returned at `now_ns`; returns which of its bytes to copy. Of a run of reads, `most`
    /// bytes are copied.
    ///
    /// `arrival` is when its first byte arrived, and whether all others arrived with it; it is used only if the read
    /// begins a record. A read that [`Conn::is_copied_stepwise`] has nothing to copy here.
    #[inline(always)]
    pub fn on_recv(
        &mut self,
        now_ns: u64,
        bytes: u32,
        arrival: (Arrival, bool),
        plan: RecvPlan,
        most: u32,
    ) -> Capture {
        if self.record.mode == mode::MESSAGES {
            let kept = self.cursors.requests.keeps();
            let kept = if plan.fresh {
                most
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
            self.record.response_len = 0;
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
        self.record.total_bytes += u64::from(bytes);
        self.record.read_bytes += u64::from(bytes);
        let at = self.record.request_len;
        let is_skipped = self.record.mode == mode::FRAMES && bytes > FRAME_READ_CAP;
        let wanted = self.record.mode == mode::FRAMES || self.cursors.requests.keeps() > 0;
        let room = if self.record.flags & flag::REQUEST_CUT == 0 && !is_skipped && wanted {
            (REQUEST_HEAD_CAP as u16).saturating_sub(at)
        } else {
            0
        };
        Capture {
            at,
            len: smaller(bytes, room),
        }
    }

    /// Whether the bytes of a read are counted and copied step by step, by [`Conn::on_copied`].
    #[inline(always)]
    pub fn is_copied_stepwise(&self, bytes: u32) -> bool {
        match self.record.mode {
            mode::STREAMS | mode::RECORDS => true,
            mode::MESSAGES => bytes > REQUEST_HEAD_CAP as u32 && self.cursors.requests.keeps() > 0,
            _ => false,
        }
    }

    /// Whether the program may copy no more of the present request, if `most` bytes of a request are copied: its first bytes,
    /// and all frames of HTTP/2 but DATA, are needed in any case.
    #[inline(always)]
    pub fn may_drop_body(&self, most: u32) -> bool {
        if self.record.mode == mode::STREAMS {
            self.cursors.requests.is_data()
        } else {
            self.cursors.requests.keeps() + COPIED_LEAST <= most
        }
    }

    /// Copies no more of the body whose bytes follow, and says so in the record.
    #[inline(always)]
    pub fn drop_body(&mut self) {
        self.cursors.requests.stop_copying();
        self.record.flags |= flag::BODY_DROPPED;
    }

    /// Begins the next record of the same read, after a full one was emitted.
    #[inline(always)]
    pub fn on_record_full(&mut self) {
        self.record.read_offset += self.record.read_bytes as u32;
        self.record.read_bytes = 0;
    }

    /// Adds the steps in which the bytes of a read arrived. The read begins a record, with its first byte at position
    /// `first`.
    #[inline(always)]
    pub fn on_steps(&mut self, first: u32) {
        self.record.position = first;
        if self.record.flags & (flag::ARRIVAL_KNOWN | flag::ONE_ARRIVAL) == flag::ARRIVAL_KNOWN {
            self.record.steps = self.queue.arrivals.steps(first, self.record.arrival_ns);
            self.record.flags |= flag::STEPS;
        }
    }

    /// Records that a write begins, at the time that `start_ns` returns, unless nothing was read before or the start is
    /// known.
    #[inline(always)]
    pub fn on_send_start(&mut self, start_ns: impl FnOnce() -> u64) {
        if self.progress.phase != phase::IDLE && self.progress.send_start_ns == 0 {
            self.progress.send_start_ns = start_ns();
        }
    }

    /// Adds a write of `bytes` on a connection from which nothing was read yet.
    #[inline(always)]
    pub fn on_unread_send(&mut self, bytes: u32) {
        self.progress.send_start_ns = 0;
        self.record.written_bytes += u64::from(bytes);
    }

    /// Forgets the start of a write that gave no bytes to the socket.
    #[inline(always)]
    pub fn on_send_refused(&mut self) {
        self.progress.send_start_ns = 0;
        if self.progress.phase == phase::READING {
            self.record.thread = 0;
        }
    }

    /// Adds a write of `bytes` that returned at `now_ns`.
    ///
    /// Returns `None` if nothing was read before it, so that it answers no known request.
    #[inline(always)]
    pub fn on_send(&mut self, now_ns: u64, bytes: u32, hint: WriteHint) -> Option<SendPlan> {
        let start_ns = self.progress.send_start_ns;
        let reports_starts = self.progress.reports_starts;
        self.progress.send_start_ns = 0;
        self.progress.last_write_bytes = bytes;
        self.record.total_bytes += u64::from(bytes);
        match self.progress.phase {
            phase::READING => {
                self.progress.phase = phase::WRITING;
                self.progress.chunked = 0;
                self.record.writes = 1;
                self.note_first_write(start_ns, now_ns, reports_starts);
                self.record.last_write_ns = now_ns;
                self.record.written_bytes = u64::from(bytes);
                self.begin_head();
                let len = smaller(bytes, self.progress.response_budget);
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
                if hint.response_like {
                    self.progress.chunked = 0;
                    self.begin_head();
                } else if hint.chunk_like {
                    self.progress.chunked = 1;
                    self.progress.head_left = 0;
                }
                // A write of chunks may have several, and the first may name the model.
                if self.progress.chunked != 0
                    || hint.response_like
                    || self.record.mode != mode::MESSAGES
                {
                    self.progress.response_budget = RESPONSE_HEAD_CAP as u16;
                    self.note_first_write(start_ns, now_ns, reports_starts);
                }
                let most = smaller(RESPONSE_HEAD_CAP as u32, self.progress.response_budget);
                let len = smaller(bytes, most);
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

    /// Prepares for the head of a response.
    #[inline(always)]
    fn begin_head(&mut self) {
        self.progress.response_budget = RESPONSE_HEAD_CAP as u16;
        self.progress.head_left = HEAD_CAP as u16;
    }

    /// Ends the response's head if the latest bytes, `tail`, are its end: one record then holds what is wanted of the body.
    #[inline(always)]
    pub fn end_head(&mut self, tail: u64) {
        if tail as u32 == BLANK_LINE {
            self.progress.head_left = 0;
            self.progress.response_budget =
                smaller(RESPONSE_HEAD_CAP as u32, self.progress.response_budget);
        }
    }

    /// Whether a write of `bytes`, if it is in one buffer, begins a response and is copied whole to its record, and
    /// fills the record's tail.
    #[inline(always)]
    pub fn carries_whole(&self, bytes: u32) -> bool {
        self.record.mode == mode::MESSAGES
            && self.progress.phase == phase::READING
            && bytes >= TAIL_BYTES
            && bytes < RESPONSE_HEAD_CAP as u32
    }

    /// Whether a write of `bytes` in many buffers (`scattered`) or in few may have a part of the response's head that does not
    /// fit one record. It then is copied piece by piece, unless its first bytes show the head's end.
    #[inline(always)]
    pub fn may_exceed_head(&self, bytes: u32, hint: WriteHint, scattered: bool) -> bool {
        if self.record.mode != mode::MESSAGES {
            return false;
        }
        if self.progress.phase == phase::READING || hint.response_like {
            return scattered || bytes >= RESPONSE_HEAD_CAP as u32;
        }
        let budget = u32::from(self.progress.response_budget);
        self.progress.head_left > 0
            && !hint.chunk_like
            && budget > 0
            && (scattered || bytes >= budget || bytes > RESPONSE_HEAD_CAP as u32)
    }

    /// Whether a write of `bytes`, after which the last bytes are `tail`, is copied piece by piece: it is JSON, or events,
    /// and longer than one record may be, or it is of chunks in many buffers.
    ///
    /// Of a plain response, that is so for the writes that may be its last: the first two, and any that is shorter than
    /// the one before.
    #[inline(always)]
    pub fn is_written_stepwise(
        &self,
        bytes: u32,
        hint: WriteHint,
        tail: u64,
        scattered: bool,
    ) -> bool {
        if self.record.mode != mode::MESSAGES {
            return false;
        }
        let chunked = hint.chunk_like || self.progress.chunked != 0;
        if scattered && chunked {
            return true;
        }
        if !ends_json(tail) {
            return false;
        }
        let begins = self.progress.phase == phase::READING || hint.response_like;
        if begins || chunked {
            return bytes > RESPONSE_HEAD_CAP as u32;
        }
        let may_end = self.record.writes <= 1 || bytes < self.progress.last_write_bytes;
        may_end && bytes > u32::from(self.progress.response_budget)
    }

    /// Prepares to copy a write of `bytes` piece by piece, by [`Conn::on_copied`]. It was added as `plan` says. `in_head`: the
    /// response's head reaches beyond what one record holds of the write, whose last bytes are `tail`.
    #[inline(always)]
    pub fn on_send_stepwise(&mut self, bytes: u32, plan: SendPlan, in_head: bool, tail: u64) {
        self.record.written_bytes -= u64::from(bytes);
        self.record.total_bytes -= u64::from(bytes);
        self.record.response_len = 0;
        self.record.tail = 0;
        self.progress.opens = u8::from(plan.emit == Some(kind::EXCHANGE));
        if self.record.mode == mode::RECORDS {
            return;
        }
        let kept = if self.progress.chunked != 0 {
            EVENTS_CAP
        } else if in_head {
            u32::from(self.progress.head_left)
        } else {
            u32::from(plan.capture.len)
        };
        if in_head {
            self.progress.head_left -= smaller(bytes, self.progress.head_left);
            self.progress.response_budget = self.progress.head_left;
            self.end_head(tail);
        } else {
            self.progress.response_budget = 0;
        }
        self.cursors.responses = FrameCursor::copying(kept);
    }

    /// Returns the kind of the next record of a write that is copied piece by piece.
    #[inline(always)]
    pub fn next_piece(&mut self) -> u8 {
        if self.progress.opens != 0 {
            self.progress.opens = 0;
            kind::EXCHANGE
        } else {
            kind::PROGRESS
        }
    }

    /// Adds a write on an HTTP/2 connection that returned at `now_ns`. `self` is the state of its responses, `conn` that
    /// of its requests. [`Conn::on_copied`] counts the bytes.
    #[inline(always)]
    pub fn on_stream_send(&mut self, conn: &mut Self, now_ns: u64) {
        if self.record.cookie == 0 {
            self.record.cookie = conn.record.cookie;
            self.record.local_port = conn.record.local_port;
            self.record.peer_port = conn.record.peer_port;
            self.record.flags = conn.record.flags & flag::UNIX | flag::RESPONSES;
            self.record.mode = mode::STREAMS;
            self.cursors.responses = conn.cursors.responses;
        }
        let start_ns = conn.progress.send_start_ns;
        conn.progress.send_start_ns = 0;
        self.record.tgid = conn.record.tgid;
        self.note_first_write(start_ns, now_ns, conn.progress.reports_starts);
        self.record.last_write_ns = now_ns;
    }

    /// Ends a read of an HTTP/2 connection, which was emitted: no write belongs to it.
    #[inline(always)]
    pub fn on_stream_read(&mut self) {
        self.progress.phase = phase::WRITING;
    }

    /// Counts a write of `bytes` with which no frame begins, on a connection that was joined midway.
    #[inline(always)]
    pub fn skip_send(&mut self, bytes: u32) {
        self.progress.send_start_ns = 0;
        self.record.total_bytes += u64::from(bytes);
    }

    /// Removes a write of `bytes`, the first after a read segment, which was added as an HTTP/1 response. The segment
    /// is then emitted without it.
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
        self.record.response_len = 0;
    }

    /// Counts `bytes` of one direction, which are in the payload if `copied`. So a record in the middle of a transfer
    /// does not count the bytes that later ones report.
    #[inline(always)]
    pub fn on_copied(&mut self, responses: bool, bytes: u32, copied: bool) {
        self.record.total_bytes += u64::from(bytes);
        let copied = if copied { bytes as u16 } else { 0 };
        if responses {
            self.record.written_bytes += u64::from(bytes);
            self.record.response_len += copied;
        } else {
            self.record.read_bytes += u64::from(bytes);
            self.record.request_len += copied;
        }
    }

    /// Returns the last bytes of a write, as [`crate::abi::Record::tail`], if all of its end was copied piece by piece; 0 if it
    /// was not.
    #[inline(always)]
    pub fn copied_tail(&self) -> u64 {
        let end = usize::from(self.record.request_len) + usize::from(self.record.response_len);
        if self.cursors.buffer.left > 0 || self.record.response_len < 8 {
            return 0;
        }
        // One masked position: Linux 6.1 loses the bound of one that is checked byte by byte.
        let start = end.wrapping_sub(8) & (PAYLOAD_CAP - 1);
        let mut tail = 0;
        let mut at = 0;
        while at < 8 {
            tail = tail << 8 | u64::from(self.payload[start + at]);
            at += 1;
        }
        tail
    }

    #[inline(always)]
    fn note_first_write(&mut self, start_ns: u64, now_ns: u64, reports_starts: u8) {
        if start_ns == 0 {
            self.record.first_write_ns = now_ns;
            self.record.flags |= flag::WRITE_AT_RETURN;
            self.record.start_unobserved = reports_starts;
        } else {
            self.record.first_write_ns = start_ns;
            self.record.flags &= !flag::WRITE_AT_RETURN;
        }
    }

    /// Counts `len` request bytes that were copied of those `planned`. If bytes are missing, no later ones are copied.
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

    /// Counts `len` response bytes that were copied of those `planned`. If bytes are missing, no later ones are copied.
    #[inline(always)]
    pub fn on_response_captured(&mut self, planned: Capture, len: u16) {
        self.record.response_len = len;
        self.progress.response_budget = self.progress.response_budget.saturating_sub(len);
        if len < planned.len {
            self.progress.response_budget = 0;
        }
    }

    /// Returns the record to emit before the CLOSE, when the server can write no more.
    #[inline(always)]
    pub fn before_close(&self) -> Option<u8> {
        if self.progress.pending != 0 {
            Some(kind::PROGRESS)
        } else if self.progress.phase == phase::READING && self.record.read_bytes > 0 {
            Some(kind::READ)
        } else {
            None
        }
    }

    /// Completes `record` to be emitted as `record_kind` at `now_ns`; returns the length of its payload.
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
            .saturating_add(self.record.response_len)
    }

    /// Clears the payload, which was emitted.
    #[inline(always)]
    pub fn on_emitted(&mut self) {
        self.record.request_len = 0;
        self.record.response_len = 0;
        self.record.flags &= !flag::BODY_DROPPED;
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
