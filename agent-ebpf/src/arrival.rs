//! Keeps when the bytes of a socket's receive queue became readable, as a short log of (stream position, time) pairs.
//!
//! The readable hook writes the log, and the read hook reads it. They may run at once on two CPUs, so each field has
//! one writer.
//! Does not depend on: sockets, the clock, what the bytes mean.

use crate::abi::{ArrivalStep, STEPS};

/// One step of the receive queue.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// Time of the step, CLOCK_MONOTONIC nanoseconds; 0: the entry was never used.
    pub ns: u64,
    /// Stream position just after the step's bytes.
    pub end: u32,
    /// 1 if later bytes were merged in, so that `ns` is valid only for the first ones.
    pub merged: u32,
}

/// Steps that are reported one by one because the log is full, until what it could not tell apart is read.
const REPORTED_CAP: u32 = 128;

/// Bytes that became readable at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Stream position of the first byte.
    pub start: u32,
    /// Stream position just after the last one.
    pub end: u32,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub ns: u64,
}

impl Step {
    /// Whether the byte at `position` is one of them.
    pub const fn has(self, position: u32) -> bool {
        position.wrapping_sub(self.start) < self.end.wrapping_sub(self.start)
    }
}

/// Steps to report elsewhere, because the log cannot tell them from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unkept {
    /// The one before, which the log could tell apart until now.
    pub before: Option<Step>,
    /// The newest one.
    pub newest: Step,
}

/// The latest steps of one receive queue, [`STEPS`] of them. More unread packets are merged into the newest.
///
/// Positions wrap: TCP sequence numbers, or a count of buffers for AF_UNIX.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArrivalLog {
    entries: [Entry; STEPS],
    next: u32,
    /// Position up to which unread steps are merged; 0: none is.
    merged_end: u32,
    /// Steps that were reported since.
    reported: u32,
    reserved: u32,
}

/// Returns the distance from `from` forward to `to`, for positions that wrap; negative if `to` is behind `from`.
#[inline(always)]
const fn ahead(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

impl ArrivalLog {
    /// Returns an empty log.
    pub const fn new() -> Self {
        Self {
            entries: [Entry {
                ns: 0,
                end: 0,
                merged: 0,
            }; STEPS],
            next: 0,
            merged_end: 0,
            reported: 0,
            reserved: 0,
        }
    }

    /// Records that the queue reaches to `end` at `now_ns`, while its reader has read everything before `consumed`.
    ///
    /// Returns the steps that the log cannot tell apart, and those behind them, up to a limit.
    #[inline(always)]
    pub fn on_readable(&mut self, end: u32, consumed: u32, now_ns: u64) -> Option<Unkept> {
        let newest = self.next.wrapping_sub(1) as usize & (STEPS - 1);
        let last = *self.entries.get(newest)?;
        if last.ns != 0 && ahead(last.end, end) <= 0 {
            return None;
        }
        let step = Step {
            start: if last.ns != 0 { last.end } else { consumed },
            end,
            ns: now_ns,
        };
        let oldest = *self.entries.get(self.next as usize & (STEPS - 1))?;
        if oldest.ns != 0 && ahead(consumed, oldest.end) > 0 {
            let second = newest.wrapping_sub(1) & (STEPS - 1);
            let before = Step {
                start: self.entries.get(second)?.end,
                end: last.end,
                ns: last.ns,
            };
            let slot = self.entries.get_mut(newest)?;
            slot.merged = 1;
            slot.end = end;
            self.merged_end = end;
            return self.report(if last.merged == 0 { Some(before) } else { None }, step);
        }
        if let Some(slot) = self.entries.get_mut(self.next as usize & (STEPS - 1)) {
            *slot = Entry {
                ns: now_ns,
                end,
                merged: 0,
            };
        }
        self.next = self.next.wrapping_add(1);
        if self.merged_end != 0 && ahead(consumed, self.merged_end) > 0 {
            // The read that takes the merged steps may take this one too, and then reports none of the log.
            return self.report(None, step);
        }
        self.merged_end = 0;
        self.reported = 0;
        None
    }

    #[inline(always)]
    fn report(&mut self, before: Option<Step>, newest: Step) -> Option<Unkept> {
        if self.reported >= REPORTED_CAP {
            return None;
        }
        self.reported += 1;
        Some(Unkept { before, newest })
    }

    /// Returns when the byte at `position` became readable.
    pub fn at(&self, position: u32) -> Arrival {
        self.step_of(position).0
    }

    /// Returns when the byte at `first` became readable, and whether all bytes before `end` arrived with it.
    #[inline(always)]
    pub fn of(&self, first: u32, end: u32) -> (Arrival, bool) {
        let (arrival, reach) = self.step_of(first);
        (arrival, ahead(end, reach) >= 0)
    }

    /// Returns the steps in which the bytes from `first` on arrived, with times after `since_ns`.
    #[inline(always)]
    pub fn steps(&self, first: u32, since_ns: u64) -> [ArrivalStep; STEPS] {
        let mut steps = [ArrivalStep::NONE; STEPS];
        let mut index = 0;
        while index < STEPS {
            if let (Some(entry), Some(step)) = (self.entries.get(index), steps.get_mut(index)) {
                let distance = ahead(first, entry.end);
                if entry.ns != 0 && distance > 0 {
                    let later_ns = entry.ns.wrapping_sub(since_ns);
                    step.end = distance.cast_unsigned();
                    step.later_ns = if entry.merged == 0 && later_ns < u64::from(u32::MAX) {
                        later_ns as u32
                    } else {
                        u32::MAX
                    };
                }
            }
            index += 1;
        }
        steps
    }

    /// Returns when the byte at `position` became readable, and where the step ends that brought it.
    #[inline(always)]
    fn step_of(&self, position: u32) -> (Arrival, u32) {
        let mut best = Arrival::Unseen;
        let mut reach = position;
        let mut best_ahead = i32::MAX;
        let mut index = 0;
        while index < STEPS {
            if let Some(entry) = self.entries.get(index) {
                let distance = ahead(position, entry.end);
                if entry.ns != 0 && distance > 0 && distance < best_ahead {
                    best_ahead = distance;
                    reach = entry.end;
                    best = if entry.merged == 0 {
                        Arrival::At(entry.ns)
                    } else {
                        Arrival::Merged
                    };
                }
            }
            index += 1;
        }
        (best, reach)
    }
}

/// When the byte at one position became readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// At this time, CLOCK_MONOTONIC nanoseconds.
    At(u64),
    /// Unknown, because the log was full: some time after an older byte.
    Merged,
    /// Unknown, because no step covers the byte.
    Unseen,
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_byte_arrives_with_the_step_that_covers_it() {
        let mut log = ArrivalLog::new();
        log.on_readable(100, 0, 1_000);
        log.on_readable(250, 0, 2_000);
        assert_eq!(log.at(0), Arrival::At(1_000));
        assert_eq!(log.at(99), Arrival::At(1_000));
        assert_eq!(log.at(100), Arrival::At(2_000));
        assert_eq!(log.at(250), Arrival::Unseen);
        assert_eq!(log.of(40, 100), (Arrival::At(1_000), true));
        assert_eq!(log.of(40, 101), (Arrival::At(1_000), false));
        assert_eq!(log.of(250, 260), (Arrival::Unseen, false));
    }

    #[test]
    fn the_steps_of_a_read_are_distinguished() {
        let mut log = ArrivalLog::new();
        for (end, ns) in [(100, 1_000), (250, 2_000), (300, 9_000_000_000)] {
            log.on_readable(end, 0, ns);
        }
        let steps = log.steps(40, 1_000);
        let found: Vec<(u32, u32)> = steps
            .iter()
            .filter(|step| step.end > 0)
            .map(|step| (step.end, step.later_ns))
            .collect();
        assert_eq!(found, [(60, 0), (210, 1_000), (260, u32::MAX)]);
    }

    #[test]
    fn a_step_without_bytes_is_not_noted() {
        let mut log = ArrivalLog::new();
        log.on_readable(100, 0, 1_000);
        log.on_readable(100, 100, 5_000);
        log.on_readable(200, 100, 9_000);
        assert_eq!(log.at(100), Arrival::At(9_000));
    }

    #[test]
    fn a_full_log_keeps_the_oldest_unread_steps_and_merges_the_rest() {
        let mut log = ArrivalLog::new();
        for step in 1..=20_u32 {
            log.on_readable(step * 10, 0, u64::from(step));
        }
        assert_eq!(log.at(0), Arrival::At(1));
        assert_eq!(log.at(60), Arrival::At(7));
        assert_eq!(log.at(75), Arrival::Merged);
        assert_eq!(log.at(195), Arrival::Merged);
    }

    #[test]
    fn what_a_full_log_cannot_tell_apart_is_reported_until_it_is_read() {
        let mut log = ArrivalLog::new();
        let mut reported = Vec::new();
        let mut arrive = |step: u32, consumed: u32| {
            let unkept = log.on_readable(step * 10, consumed, u64::from(step));
            for step in unkept
                .into_iter()
                .flat_map(|Unkept { before, newest }| before.into_iter().chain([newest]))
            {
                assert_eq!((step.end, step.start + 10), (step.ns as u32 * 10, step.end));
                reported.push(step.ns);
            }
        };
        (1..=8).for_each(|step| arrive(step, 0));
        (9..=70).for_each(|step| arrive(step, 0));
        // There is room again, but the merged steps are not read yet.
        arrive(71, 40);
        arrive(72, 710);
        assert_eq!(reported, (8..=71).collect::<Vec<u64>>());
    }

    #[test]
    fn a_queue_that_nobody_reads_is_reported_up_to_a_limit() {
        let mut log = ArrivalLog::new();
        let steps = (1..=1_000).filter_map(|step| log.on_readable(step * 10, 0, u64::from(step)));
        assert_eq!(steps.count() as u32, REPORTED_CAP);
    }

    #[test]
    fn a_step_has_the_bytes_between_its_ends() {
        let step = Step {
            start: u32::MAX - 1,
            end: 2,
            ns: 7,
        };
        let has = [u32::MAX - 2, u32::MAX - 1, 0, 1, 2].map(|position| step.has(position));
        assert_eq!(has, [false, true, true, true, false]);
    }

    #[test]
    fn read_entries_make_room() {
        let mut log = ArrivalLog::new();
        for step in 1..=100_u32 {
            log.on_readable(step * 10, (step - 1) * 10, u64::from(step));
            assert_eq!(log.at((step - 1) * 10), Arrival::At(u64::from(step)));
        }
    }

    #[test]
    fn positions_wrap() {
        let start = u32::MAX - 5;
        let mut log = ArrivalLog::new();
        log.on_readable(start.wrapping_add(10), start, 77);
        assert_eq!(log.at(start), Arrival::At(77));
        assert_eq!(log.at(start.wrapping_add(9)), Arrival::At(77));
        assert_eq!(log.at(start.wrapping_add(10)), Arrival::Unseen);
    }

    #[test]
    fn an_entry_survives_a_late_reader() {
        let mut log = ArrivalLog::new();
        log.on_readable(100, 0, 1_000);
        log.on_readable(200, 100, 2_000);
        assert_eq!(log.at(0), Arrival::At(1_000));
    }
}
