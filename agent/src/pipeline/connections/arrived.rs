//! Keeps the arrivals that the kernel half reports one by one, until the reads of their bytes are reported.
//!
//! Does not depend on: what the bytes mean.

use std::collections::HashMap;

use inferprobe_ebpf::{
    abi::{Record, kind, mode},
    arrival::Step,
};

/// Connections whose arrivals are kept; beyond it, all are forgotten.
const CONNECTION_CAP: usize = 1024;
/// Arrivals that are kept of one connection.
const STEP_CAP: usize = 256;

/// Arrivals by the cookie of their connection.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    steps: HashMap<u64, Vec<Step>>,
}

impl Arrived {
    /// Adds an arrival.
    pub(super) fn add(&mut self, record: &Record) {
        if self.steps.len() >= CONNECTION_CAP && !self.steps.contains_key(&record.cookie) {
            self.steps.clear();
        }
        let steps = self.steps.entry(record.cookie).or_default();
        if steps.len() < STEP_CAP {
            steps.push(Step {
                start: record.position,
                // A position is the low 32 bits of a count.
                end: record.position.wrapping_add(record.read_bytes as u32),
                ns: record.arrival_ns,
            });
        }
    }

    /// Removes and returns those of a connection.
    pub(super) fn take(&mut self, cookie: u64) -> Vec<Step> {
        if self.steps.is_empty() {
            return Vec::new();
        }
        self.steps.remove(&cookie).unwrap_or_default()
    }

    /// Keeps those of `steps` whose bytes are behind the reads that `record` reports.
    pub(super) fn keep(&mut self, record: &Record, mut steps: Vec<Step>) {
        if record.mode != mode::STREAMS {
            return;
        }
        if record.kind == kind::READ {
            let bytes = u64::from(record.read_offset) + record.read_bytes;
            let read = record.position.wrapping_add(bytes as u32);
            steps.retain(|step| step.end.wrapping_sub(read).cast_signed() > 0);
        }
        if !steps.is_empty() {
            self.steps.insert(record.cookie, steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(record_kind: u8, position: u32, bytes: u64) -> Record {
        Record {
            cookie: 7,
            kind: record_kind,
            mode: mode::STREAMS,
            position,
            read_bytes: bytes,
            arrival_ns: 50,
            ..Record::NONE
        }
    }

    #[test]
    fn an_arrival_is_kept_until_its_bytes_are_read() {
        let mut arrived = Arrived::default();
        arrived.add(&record(kind::ARRIVED, u32::MAX - 9, 20));
        arrived.add(&record(kind::ARRIVED, 10, 30));
        assert!(arrived.take(8).is_empty());
        for (read, left) in [
            (record(kind::READ, u32::MAX - 9, 19), 2),
            (record(kind::PROGRESS, 0, 0), 2),
            (record(kind::READ, 9, 1), 1),
            (record(kind::READ, 10, 30), 0),
        ] {
            let steps = arrived.take(7);
            arrived.keep(&read, steps);
            let steps = arrived.take(7);
            assert_eq!(steps.len(), left, "{read:?}");
            steps.iter().for_each(|step| assert_eq!(step.ns, 50));
            arrived.keep(&record(kind::PROGRESS, 0, 0), steps);
        }
    }

    #[test]
    fn arrivals_of_what_is_no_http2_are_forgotten() {
        let mut arrived = Arrived::default();
        arrived.add(&record(kind::ARRIVED, 0, 20));
        let read = Record {
            mode: mode::MESSAGES,
            ..record(kind::READ, 0, 1)
        };
        let steps = arrived.take(7);
        arrived.keep(&read, steps);
        assert!(arrived.take(7).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut arrived = Arrived::default();
        for cookie in 0..3 * CONNECTION_CAP as u64 {
            for _ in 0..3 {
                let record = Record {
                    cookie,
                    ..record(kind::ARRIVED, 0, 1)
                };
                arrived.add(&record);
            }
        }
        assert!(arrived.steps.len() <= CONNECTION_CAP);
        for _ in 0..3 * STEP_CAP {
            arrived.add(&record(kind::ARRIVED, 0, 1));
        }
        assert_eq!(arrived.take(7).len(), STEP_CAP);
    }
}
