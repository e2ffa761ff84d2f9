//! Finds out which bytes of a TCP connection no hook handled, by the positions that the kernel keeps.
//!
//! The kernel may skip a program, and some calls have no hook. The next event of the connection then begins further on than
//! the one before it ended.
//! Does not depend on: how positions are read, when records are emitted.

use crate::{
    abi::mode,
    conn::{Conn, phase},
};

/// Bytes that no hook handled. A number below 0 says that as many bytes were handled twice, or out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unobserved {
    /// Bytes read.
    pub read: i32,
    /// Bytes written.
    pub written: i32,
}

impl Unobserved {
    /// No bytes.
    pub const NONE: Self = Self {
        read: 0,
        written: 0,
    };

    /// Whether all bytes were handled once.
    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.read == 0 && self.written == 0
    }
}

impl Conn {
    /// Returns how many bytes were read before a read that began at `position`, a TCP sequence number, and after the latest
    /// one that was handled. The peer's FIN counts as a byte.
    #[inline(always)]
    pub fn read_before(&self, position: u32) -> i32 {
        if self.queue.positioned != 0 {
            position.wrapping_sub(self.queue.consumed).cast_signed()
        } else {
            0
        }
    }

    /// Returns the write position, which `position` reads, if bytes were written after the latest write that was handled and
    /// no write runs; `None` also if that is unknown.
    #[inline(always)]
    pub fn moved_on(&self, position: impl FnOnce() -> Option<u32>) -> Option<u32> {
        let is_known = self.progress.positioned != 0 && self.progress.reports_starts != 0;
        if !is_known || self.record.mode == mode::STREAMS {
            return None;
        }
        // In this order: a write that begins now moves the position after its start was noted.
        let position = position()?;
        if self.progress.send_start_ns != 0 || self.written_since(position) <= 0 {
            return None;
        }
        Some(position)
    }

    /// Returns how many bytes were written up to `position` and after the latest write that was handled.
    #[inline(always)]
    pub fn written_since(&self, position: u32) -> i32 {
        if self.progress.positioned != 0 {
            position.wrapping_sub(self.progress.written).cast_signed()
        } else {
            0
        }
    }

    /// Notes that all writes up to `position` are handled or reported as unobserved.
    #[inline(always)]
    pub fn set_written(&mut self, position: u32) {
        self.progress.written = position;
        self.progress.positioned = 1;
    }

    /// Notes that a write of `bytes` left the write position at `position`; returns how many bytes were written before it,
    /// and after the latest one that was handled.
    #[inline(always)]
    pub fn on_written(&mut self, position: u32, bytes: u32) -> i32 {
        let before = self.written_since(position.wrapping_sub(bytes));
        self.set_written(position);
        before
    }

    /// Adds bytes that no hook handled. What was pending was emitted: no write belongs to the reads before.
    #[inline(always)]
    pub fn on_unobserved(&mut self, bytes: Unobserved) {
        let both = i64::from(bytes.read) + i64::from(bytes.written);
        self.record.total_bytes = self.record.total_bytes.wrapping_add_signed(both);
        if bytes.written != 0 {
            // The start that was noted is that of a write that no hook handled.
            self.progress.send_start_ns = 0;
        }
        if self.progress.phase == phase::READING {
            self.progress.phase = phase::WRITING;
            self.progress.chunked = 0;
            self.progress.head_left = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection on which 500 bytes were read and 800 were written, and handled.
    fn conn() -> Conn {
        let mut conn = Conn::new();
        conn.queue.positioned = 1;
        conn.queue.consumed = 500;
        conn.set_written(800);
        conn.progress.reports_starts = 1;
        conn.progress.phase = phase::READING;
        conn
    }

    #[test]
    fn bytes_before_a_transfer_are_those_that_no_hook_handled() {
        let mut conn = conn();
        assert_eq!(conn.read_before(500), 0);
        assert_eq!(conn.read_before(560), 60);
        assert_eq!(conn.read_before(400), -100);
        assert_eq!(conn.on_written(850, 50), 0);
        assert_eq!(conn.on_written(1_000, 40), 110);
        assert_eq!(conn.on_written(1_000, 10), -10);
    }

    #[test]
    fn positions_wrap() {
        let mut conn = conn();
        conn.queue.consumed = u32::MAX - 9;
        assert_eq!(conn.read_before(20), 30);
        conn.set_written(u32::MAX - 9);
        assert_eq!(conn.on_written(50, 40), 20);
    }

    #[test]
    fn without_a_position_nothing_is_unobserved() {
        let mut conn = Conn::new();
        assert_eq!(conn.read_before(560), 0);
        assert_eq!(conn.written_since(560), 0);
        assert_eq!(conn.on_written(560, 10), 0);
        assert_eq!(conn.on_written(580, 20), 0);
    }

    #[test]
    fn a_running_write_is_not_unobserved() {
        let mut conn = conn();
        assert_eq!(conn.written_since(900), 100);
        assert_eq!(conn.moved_on(|| Some(900)), Some(900));
        assert_eq!(conn.moved_on(|| Some(800)), None);
        assert_eq!(conn.moved_on(|| None), None);
        conn.on_send_start(|| 5);
        assert_eq!(conn.moved_on(|| Some(900)), None);
        conn.progress.send_start_ns = 0;
        conn.progress.reports_starts = 0;
        assert_eq!(conn.moved_on(|| Some(900)), None);
    }
}
