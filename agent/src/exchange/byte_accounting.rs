//! Counts how many of the bytes on watched sockets were attributed to requests.
//!
//! Uses only the byte counts of records. A connection reports itself what it could not attribute.
//! Does not depend on: any protocol.

use std::{collections::HashMap, ops::AddAssign};

use inferprobe_ebpf::abi::{Record, kind};

/// The serving process, and its port; `None` for AF_UNIX.
pub type ServingSocket = (u32, Option<u16>);

/// Bytes read and written by one server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// All that the kernel counted.
    pub seen_bytes: u64,
    /// Those that belong to no request that was counted, as finished or as unfinished.
    pub missed_bytes: u64,
    /// Those on TLS connections, whose content was not read.
    pub unread_bytes: u64,
}

impl AddAssign for ByteCounts {
    fn add_assign(&mut self, other: Self) {
        self.seen_bytes += other.seen_bytes;
        self.missed_bytes += other.missed_bytes;
        self.unread_bytes += other.unread_bytes;
    }
}

impl ByteCounts {
    /// Share of the bytes that belong to requests, 0 to 1; `None` if there were no bytes.
    pub fn covered_ratio(&self) -> Option<f64> {
        let covered_bytes = self.seen_bytes.saturating_sub(self.missed_bytes);
        (self.seen_bytes > 0).then(|| covered_bytes as f64 / self.seen_bytes as f64)
    }
}

/// Bytes of one connection.
#[derive(Debug, Default)]
pub struct ByteAccount {
    /// Bytes of the connection, by the kernel's count.
    total_bytes: u64,
    /// Bytes that records reported.
    reported_bytes: u64,
    /// Bytes of the present run of writes that records reported.
    written_bytes: u64,
    /// Bytes of lost records, as far as they were counted.
    lost_bytes: u64,
}

impl ByteAccount {
    /// Adds a record; `is_settled` says that all bytes so far were reported, except those of lost records.
    pub fn push(&mut self, record: &Record, is_settled: bool) -> ByteCounts {
        let read_bytes = match record.kind {
            kind::READ | kind::EXCHANGE => record.read_bytes,
            kind::UNOBSERVED => record.read_bytes + record.written_bytes,
            _ => 0,
        };
        if matches!(record.kind, kind::READ | kind::EXCHANGE) {
            self.written_bytes = 0;
        }
        let written_bytes = match record.kind {
            kind::EXCHANGE | kind::PROGRESS => record.written_bytes,
            _ => self.written_bytes,
        };
        self.reported_bytes += read_bytes + written_bytes.saturating_sub(self.written_bytes);
        self.written_bytes = written_bytes;
        let seen_bytes = record.total_bytes.saturating_sub(self.total_bytes);
        self.total_bytes += seen_bytes;
        let mut missed_bytes = 0;
        if is_settled {
            let lost = self.total_bytes.saturating_sub(self.reported_bytes);
            missed_bytes = lost.saturating_sub(self.lost_bytes);
            self.lost_bytes = self.lost_bytes.max(lost);
        }
        ByteCounts {
            seen_bytes,
            missed_bytes,
            unread_bytes: 0,
        }
    }
}

/// Bytes by server, until they are exported.
#[derive(Debug, Default)]
pub struct Coverage {
    counts: HashMap<ServingSocket, ByteCounts>,
}

impl Coverage {
    /// Adds the bytes of a connection to `socket`.
    pub fn add(&mut self, socket: ServingSocket, counts: ByteCounts) {
        *self.counts.entry(socket).or_default() += counts;
    }

    /// Removes and returns what was added since the last call.
    pub fn drain(&mut self) -> impl Iterator<Item = (ServingSocket, ByteCounts)> + '_ {
        self.counts.drain()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(record_kind: u8, read: u64, written: u64, total: u64) -> Record {
        Record {
            kind: record_kind,
            read_bytes: read,
            written_bytes: written,
            total_bytes: total,
            ..Record::default()
        }
    }

    #[test]
    fn bytes_of_every_record_are_not_missed() {
        let mut account = ByteAccount::default();
        let mut seen = 0;
        for (record, is_settled) in [
            // The first piece of a read of 3,000 bytes.
            (record(kind::READ, 1_000, 0, 3_000), false),
            (record(kind::EXCHANGE, 2_000, 50, 3_050), false),
            (record(kind::PROGRESS, 2_000, 90, 3_090), true),
            (record(kind::READ, 10, 0, 3_100), false),
            (record(kind::EXCHANGE, 20, 30, 3_150), true),
            (record(kind::CLOSE, 20, 30, 3_150), true),
        ] {
            let counts = account.push(&record, is_settled);
            assert_eq!(counts.missed_bytes, 0, "{record:?}");
            seen += counts.seen_bytes;
        }
        assert_eq!(seen, 3_150);
    }

    #[test]
    fn unobserved_bytes_are_reported_once() {
        let mut account = ByteAccount::default();
        account.push(&record(kind::EXCHANGE, 100, 50, 150), true);
        let spliced = account.push(&record(kind::UNOBSERVED, 300, 0, 450), true);
        let expected = ByteCounts {
            seen_bytes: 300,
            ..ByteCounts::default()
        };
        assert_eq!(spliced, expected);
        let next = account.push(&record(kind::PROGRESS, 100, 80, 480), true);
        assert_eq!((next.seen_bytes, next.missed_bytes), (30, 0));
    }

    #[test]
    fn the_bytes_of_a_lost_record_are_missed_once() {
        let mut account = ByteAccount::default();
        account.push(&record(kind::EXCHANGE, 100, 50, 150), true);
        let after = account.push(&record(kind::EXCHANGE, 100, 50, 600), true);
        let expected = ByteCounts {
            seen_bytes: 450,
            missed_bytes: 300,
            ..ByteCounts::default()
        };
        assert_eq!(after, expected);
        let next = account.push(&record(kind::CLOSE, 100, 50, 600), true);
        assert_eq!(next, ByteCounts::default());
    }

    #[test]
    fn servers_are_counted_apart() {
        let mut coverage = Coverage::default();
        let counts = ByteCounts {
            seen_bytes: 10,
            missed_bytes: 2,
            unread_bytes: 5,
        };
        coverage.add((1, Some(80)), counts);
        coverage.add((1, Some(80)), counts);
        coverage.add((2, Some(80)), counts);
        let mut taken: Vec<_> = coverage.drain().collect();
        taken.sort_unstable_by_key(|(socket, _)| *socket);
        let both = ByteCounts {
            seen_bytes: 20,
            missed_bytes: 4,
            unread_bytes: 10,
        };
        assert_eq!(taken, [((1, Some(80)), both), ((2, Some(80)), counts)]);
        assert_eq!(coverage.drain().count(), 0);
        assert_eq!(both.covered_ratio(), Some(0.8));
        assert_eq!(ByteCounts::default().covered_ratio(), None);
    }
}
