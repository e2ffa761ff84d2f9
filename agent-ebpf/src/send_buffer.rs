//! Tells how long a full send buffer kept the server from writing, because the client had not received what is in it.
//!
//! The kernel lets a server write again once a third of the buffer is free (include/net/sock.h, `sk_stream_min_wspace`).
//! So a buffer that is fuller after a write has stopped the server, or is about to. Whether it still stopped it when the
//! next write began shows in how much is left then: of a client that keeps up, next to nothing. The same shows whether a
//! write waited, by what is left when it returns: the server may wake up late, and then less is left than a third.
//!
//! Where no hook tells when a write begins, a write that waited looks like a pause before it. The time is then known only
//! while the buffer is never full.
//! Does not depend on: sockets, maps, the clock.

use crate::{
    abi::flag,
    conn::{Conn, phase},
};

/// How full a send buffer is, in bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendBuffer {
    /// What is in it.
    pub queued: u32,
    /// Its size.
    pub size: u32,
}

impl SendBuffer {
    /// Returns 1 if the kernel does not let the server write more, else 0. Without a branch, which the verifier would follow.
    #[inline(always)]
    pub fn is_full(self) -> u64 {
        (2 * u64::from(self.size)).wrapping_sub(3 * u64::from(self.queued)) >> 63
    }

    /// Returns 1 if more than an eighth of it is in use, else 0.
    #[inline(always)]
    pub fn holds(self) -> u64 {
        u64::from(self.size).wrapping_sub(8 * u64::from(self.queued)) >> 63
    }
}

impl Conn {
    /// Notes what is in the buffer when a write begins, unless the beginning of the running write was noted.
    #[inline(always)]
    pub fn on_send_buffer_before(&mut self, queued: impl FnOnce() -> u32) {
        if self.progress.send_start_ns == 0 {
            self.progress.held_bytes = queued();
        }
    }

    /// Adds the time in which the buffer kept the server from writing: in a write that returned at `now_ns`, and between
    /// the write before and this one. Comes before [`Conn::on_send`]: time before a response that follows another one without a
    /// read counts for that one.
    #[inline(always)]
    pub fn on_send_buffer_after(&mut self, now_ns: u64, buffer: SendBuffer) {
        let is_later = u64::from(self.progress.phase / phase::WRITING) & 1;
        let was_full = u64::from(self.progress.send_buffer_full) & is_later;
        let held = SendBuffer {
            queued: self.progress.held_bytes,
            ..buffer
        };
        let holds = buffer.holds();
        let start_ns = self.progress.send_start_ns;
        let between_ns = start_ns.wrapping_sub(self.record.last_write_ns);
        let within_ns = now_ns.wrapping_sub(start_ns);
        let between_ns = between_ns & (was_full & held.holds()).wrapping_neg();
        let within_ns = within_ns & holds.wrapping_neg();
        let before_us = u64::from(self.record.undrained_us) & is_later.wrapping_neg();
        let begun = (start_ns | start_ns.wrapping_neg()) >> 63;
        let added_us = ((between_ns + within_ns) / 1_000) & begun.wrapping_neg();
        // On AF_UNIX, what a write finds in the buffer is not read.
        let is_unix = u64::from(self.record.flags & flag::UNIX != 0);
        let is_unseen = ((begun ^ 1) & (was_full | holds)) | (is_unix & was_full);
        // Once unknown, it is unknown for the rest of the segment.
        let is_unknown = is_unseen | ((before_us + 1) >> 32);
        self.record.undrained_us = ((before_us + added_us) | is_unknown.wrapping_neg()) as u32;
        self.progress.send_buffer_full = buffer.is_full() as u8;
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use crate::abi::UNKNOWN_US;

    use super::*;

    const SIZE: u32 = 90_000;
    const MS: u64 = 1_000_000;

    /// Plays writes, each with its start, its return, what is in the buffer before it and after it; returns the undrained
    /// time after each.
    fn play(writes: &[(u64, u64, u32, u32)], sees_starts: bool) -> Vec<u32> {
        let mut conn = Conn::new();
        conn.progress.phase = phase::READING;
        let mut undrained = Vec::new();
        for &(start_ms, end_ms, before, after) in writes {
            let at = |queued| SendBuffer { queued, size: SIZE };
            if sees_starts {
                conn.on_send_buffer_before(|| before);
                conn.on_send_start(|| start_ms * MS);
            }
            conn.on_send_buffer_after(end_ms * MS, at(after));
            conn.on_send(end_ms * MS, 1_000, Default::default());
            undrained.push(conn.record.undrained_us);
        }
        undrained
    }

    #[test]
    fn a_buffer_is_full_where_the_kernel_stops_the_writer() {
        for (queued, full, holds) in [
            (0, 0, 0),
            (11_250, 0, 0),
            (11_251, 0, 1),
            (60_000, 0, 1),
            (60_001, 1, 1),
            (2_000_000_000, 1, 1),
        ] {
            let buffer = SendBuffer { queued, size: SIZE };
            assert_eq!(
                (buffer.is_full(), buffer.holds()),
                (full, holds),
                "{queued}"
            );
        }
    }

    #[test]
    fn a_client_that_keeps_up_is_not_waited_for() {
        let writes = [
            (10, 11, 0, 5_000),
            (60, 61, 0, 9_000),
            (110, 111, 0, 50_000),
        ];
        assert_eq!(play(&writes, true), vec![0, 0, 1_000]);
        // Large pieces fill the buffer for the time of the write alone.
        let writes = [
            (10, 15, 0, 80_000),
            (60, 65, 0, 80_000),
            (110, 115, 100, 80_000),
        ];
        assert_eq!(play(&writes, true), [5_000, 10_000, 15_000]);
    }

    #[test]
    fn a_write_that_waits_and_the_pauses_until_it_can_go_on_are_the_clients() {
        assert_eq!(play(&[(10, 900, 0, 80_000)], true), [890_000]);
        let writes = [
            (10, 10, 0, 88_000),
            (200, 200, 58_000, 85_000),
            (700, 700, 58_000, 59_000),
            (900, 900, 31_000, 40_000),
        ];
        assert_eq!(play(&writes, true), [0, 190_000, 690_000, 690_000]);
    }

    #[test]
    fn without_the_start_of_writes_the_time_is_known_until_the_buffer_fills() {
        let writes = [
            (0, 10, 0, 4_000),
            (0, 200, 0, 11_000),
            (0, 700, 0, 40_000),
            (0, 900, 0, 4_000),
        ];
        assert_eq!(play(&writes, false), [0, 0, UNKNOWN_US, UNKNOWN_US]);
    }

    #[test]
    fn a_write_after_a_full_buffer_may_have_waited_although_it_left_none() {
        let mut conn = Conn::new();
        conn.progress.phase = phase::WRITING;
        conn.progress.send_buffer_full = 1;
        let buffer = SendBuffer {
            queued: 0,
            size: SIZE,
        };
        conn.on_send_buffer_after(6 * MS, buffer);
        assert_eq!(conn.record.undrained_us, UNKNOWN_US);
    }

    #[test]
    fn on_a_unix_socket_only_the_writes_themselves_are_known() {
        let mut conn = Conn::new();
        conn.record.flags = flag::UNIX;
        conn.progress.phase = phase::READING;
        let write = |conn: &mut Conn, start_ms, end_ms, queued| {
            conn.on_send_start(|| start_ms * MS);
            let size = SIZE;
            conn.on_send_buffer_after(end_ms * MS, SendBuffer { queued, size });
            conn.on_send(end_ms * MS, 1_000, Default::default());
            conn.record.undrained_us
        };
        assert_eq!(write(&mut conn, 10, 90, 50_000), 80_000);
        assert_eq!(write(&mut conn, 100, 190, 70_000), 170_000);
        assert_eq!(write(&mut conn, 200, 201, 1_000), UNKNOWN_US);
    }

    #[test]
    fn the_next_response_is_known_again() {
        let mut conn = Conn::new();
        conn.progress.phase = phase::READING;
        conn.record.undrained_us = UNKNOWN_US;
        let buffer = SendBuffer {
            queued: 0,
            size: SIZE,
        };
        conn.on_send_buffer_after(6 * MS, buffer);
        assert_eq!(conn.record.undrained_us, 0);
    }

    #[test]
    fn each_response_counts_from_its_own_first_write() {
        let mut conn = Conn::new();
        conn.progress.phase = phase::WRITING;
        conn.record.undrained_us = 7_000;
        conn.progress.send_buffer_full = 1;
        conn.progress.phase = phase::READING;
        let buffer = SendBuffer {
            queued: 80_000,
            size: SIZE,
        };
        conn.on_send_buffer_before(|| 80_000);
        conn.on_send_start(|| 5 * MS);
        conn.on_send_buffer_after(6 * MS, buffer);
        assert_eq!(conn.record.undrained_us, 1_000);
    }
}
