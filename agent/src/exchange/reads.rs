//! Describes the reads that a record reports: how many bytes, which of them were copied, and when each of them arrived.
//!
//! The counterpart of `writes`, for the other direction.
//! Does not depend on: any protocol.

use inferprobe_ebpf::{
    abi::{ArrivalStep, Record, STEPS, flag},
    view::RecordView,
};

use crate::exchange::threads::reader_of;

/// A read, or several that were reported together.
#[derive(Debug, Clone, Copy)]
pub struct Reads<'a> {
    /// When their bytes became readable.
    pub arrivals: Arrivals,
    /// First read, ns.
    pub first_ns: u64,
    /// Last read, ns.
    pub last_ns: u64,
    /// Thread of the last one; `None` if that is unknown.
    pub reader_tid: Option<u32>,
    /// Bytes read.
    pub bytes: u64,
    /// The first of them, as many as were copied.
    pub visible: &'a [u8],
    /// Whether the kernel half copied no more of the present body from their first byte on, for lack of room.
    pub body_dropped: bool,
}

impl<'a> Reads<'a> {
    /// The reads that a record reports.
    pub fn of(view: &RecordView<'a>) -> Self {
        let record = &view.record;
        Self {
            arrivals: Arrivals::of(record),
            first_ns: record.first_read_ns,
            last_ns: record.last_read_ns,
            reader_tid: reader_of(record),
            bytes: record.read_bytes,
            visible: view.request,
            body_dropped: record.flags & flag::BODY_DROPPED != 0,
        }
    }
}

/// When the bytes of a read became readable.
#[derive(Debug, Clone, Copy)]
pub struct Arrivals {
    /// Of the read's first byte, ns; `None` if that was not observed.
    first_ns: Option<u64>,
    /// Whether the others arrived with it.
    at_once: bool,
    /// In which steps they arrived, as far as these are known.
    steps: [ArrivalStep; STEPS],
    /// Bytes of the read that earlier records reported.
    before: u64,
}

impl Arrivals {
    /// The arrivals that a record reports.
    pub fn of(record: &Record) -> Self {
        let is_set = |bit| record.flags & bit != 0;
        Self {
            first_ns: is_set(flag::ARRIVAL_KNOWN).then_some(record.arrival_ns),
            at_once: is_set(flag::ONE_ARRIVAL),
            steps: match is_set(flag::STEPS) {
                true => record.steps,
                false => [ArrivalStep::NONE; STEPS],
            },
            before: record.read_offset.into(),
        }
    }

    /// Returns when the byte `offset` bytes after the first one of the record became readable, ns; `None` if that was not
    /// observed.
    pub fn at(&self, offset: u64) -> Option<u64> {
        let first_ns = self.first_ns?;
        let offset = offset + self.before;
        if offset == 0 || self.at_once {
            return Some(first_ns);
        }
        let later = self.steps.iter();
        let later = later.filter(|step| u64::from(step.end) > offset);
        let step = later.min_by_key(|step| step.end)?;
        (step.later_ns != u32::MAX).then(|| first_ns.saturating_add(step.later_ns.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_arrives_with_its_step() {
        let mut record = Record {
            flags: flag::ARRIVAL_KNOWN | flag::STEPS,
            arrival_ns: 1_000,
            ..Record::NONE
        };
        for (step, (end, later_ns)) in [(90, 700), (30, 0), (60, 200), (120, u32::MAX)]
            .into_iter()
            .enumerate()
        {
            record.steps[step] = ArrivalStep { end, later_ns };
        }
        let at = |record: &Record, offset| Arrivals::of(record).at(offset);
        for (offset, expected) in [
            (0, Some(1_000)),
            (29, Some(1_000)),
            (30, Some(1_200)),
            (89, Some(1_700)),
            (90, None),
            (120, None),
        ] {
            assert_eq!(at(&record, offset), expected, "{offset}");
        }
        record.read_offset = 50;
        assert_eq!(at(&record, 0), Some(1_200));
        record.flags = flag::ARRIVAL_KNOWN;
        assert_eq!(at(&record, 0), None);
        record.flags = flag::ARRIVAL_KNOWN | flag::ONE_ARRIVAL;
        assert_eq!(at(&record, 9_000), Some(1_000));
        record.flags = flag::STEPS;
        assert_eq!(at(&record, 0), None);
    }
}
