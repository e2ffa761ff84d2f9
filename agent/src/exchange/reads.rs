//! Describes the reads that a record reports: how many bytes, which of them were copied, and when each of them arrived.
//!
//! The counterpart of `writes`, for the other direction.
//! Does not depend on: any protocol.

use inferprobe_ebpf::{
    abi::{ArrivalStep, Record, STEPS, flag},
    arrival::Step,
    view::RecordView,
};

use crate::exchange::threads::reader_of;

/// A read, or several that were reported together.
#[derive(Debug, Clone, Copy)]
pub struct Reads<'a> {
    /// When their bytes became readable.
    pub arrivals: Arrivals<'a>,
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
            arrivals: Arrivals {
                reported: view.arrived,
                ..Arrivals::of(record)
            },
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
pub struct Arrivals<'a> {
    /// Of the read's first byte, ns; `None` if that was not observed.
    first_ns: Option<u64>,
    /// Whether the others arrived with it.
    at_once: bool,
    /// In which steps they arrived, as far as these are known.
    steps: [ArrivalStep; STEPS],
    /// Bytes of the read that earlier records reported.
    before: u64,
    /// Position of the read's first byte.
    position: u32,
    /// Steps of the connection that were reported apart.
    reported: &'a [Step],
}

impl Arrivals<'_> {
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
            position: record.position,
            reported: &[],
        }
    }

    /// The arrivals of `bytes` bytes of which only the first and the last are known, ns.
    pub fn of_ends(first_ns: Option<u64>, last_ns: Option<u64>, bytes: u64) -> Self {
        let later_ns = match (first_ns, last_ns) {
            (Some(first_ns), Some(last_ns)) => u32::try_from(last_ns.saturating_sub(first_ns)).ok(),
            _ => None,
        };
        let mut steps = [ArrivalStep::NONE; STEPS];
        steps[0] = ArrivalStep {
            end: u32::try_from(bytes).unwrap_or(u32::MAX),
            later_ns: later_ns.unwrap_or(u32::MAX),
        };
        Self {
            first_ns,
            at_once: first_ns.is_some() && first_ns == last_ns,
            steps,
            before: 0,
            position: 0,
            reported: &[],
        }
    }

    /// Returns when the byte `offset` bytes after the first one of the record became readable, ns; `None` if that was not
    /// observed.
    pub fn at(&self, offset: u64) -> Option<u64> {
        let offset = offset + self.before;
        let in_record = self.in_record(offset);
        in_record.or_else(|| {
            // A position is the low 32 bits of a count.
            let position = self.position.wrapping_add(offset as u32);
            let step = self.reported.iter().find(|step| step.has(position))?;
            Some(step.ns)
        })
    }

    fn in_record(&self, offset: u64) -> Option<u64> {
        let first_ns = self.first_ns?;
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

    #[test]
    fn a_byte_of_an_unknown_step_arrives_with_the_one_that_was_reported() {
        let mut record = Record {
            flags: flag::ARRIVAL_KNOWN | flag::STEPS,
            arrival_ns: 1_000,
            position: u32::MAX - 9,
            ..Record::NONE
        };
        record.steps[0] = ArrivalStep {
            end: 10,
            later_ns: 0,
        };
        record.steps[1] = ArrivalStep {
            end: 40,
            later_ns: u32::MAX,
        };
        let reported =
            [(0, 20, 1_300), (20, 30, 1_400)].map(|(start, end, ns)| Step { start, end, ns });
        let mut arrivals = Arrivals {
            reported: &reported,
            ..Arrivals::of(&record)
        };
        let at = [0, 9, 10, 29, 30, 39, 40].map(|offset| arrivals.at(offset));
        let known = |ns: &[u64]| ns.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(at[..6], known(&[1_000, 1_000, 1_300, 1_300, 1_400, 1_400]));
        assert_eq!(at[6], None);
        arrivals.first_ns = None;
        assert_eq!(
            [0, 10].map(|offset| arrivals.at(offset)),
            [None, Some(1_300)]
        );
    }
}
