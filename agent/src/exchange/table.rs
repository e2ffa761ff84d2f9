//! Every connection that records speak of, and the ones whose answers are under way.

use std::collections::{HashMap, HashSet};

use inferprobe_ebpf::abi::{ProgressSlot, kind};

use crate::{
    exchange::{Loss, Outcome, Unfinished, connection::Connection},
    kernel::rings::RecordView,
};

/// Connections that are kept; past it, the silent ones go.
const CONNECTION_CAP: usize = 65_536;
/// Silence after which a connection may be forgotten, ns: the kernel tells when TCP ends, but not AF_UNIX.
const FORGET_NS: u64 = 600_000_000_000;
/// Time between looks for silent connections, ns.
const SWEEP_NS: u64 = 30_000_000_000;

/// The connections.
#[derive(Debug, Default)]
pub struct Table {
    connections: HashMap<u64, Connection>,
    answering: HashSet<u64>,
    swept_ns: u64,
}

impl Table {
    /// Takes in an entry of the record ring.
    pub fn take(&mut self, entry: &[u8], out: &mut Vec<Outcome>) {
        let Some(view) = RecordView::parse(entry) else {
            out.push(Outcome::Lost(Loss::Malformed));
            return;
        };
        let record = &view.record;
        let cookie = record.cookie;
        if record.kind == kind::CLOSE && !self.connections.contains_key(&cookie) {
            return;
        }
        if self.connections.len() >= CONNECTION_CAP && !self.connections.contains_key(&cookie) {
            self.forget_silent(record.last_write_ns.max(record.last_read_ns), 0, out);
        }
        let connection = self
            .connections
            .entry(cookie)
            .or_insert_with(|| Connection::new(record));
        let alive = connection.take(&view, out);
        if alive && connection.is_answering() {
            self.answering.insert(cookie);
        } else {
            self.answering.remove(&cookie);
        }
        if !alive {
            self.connections.remove(&cookie);
        }
    }

    /// Looks after answers that are under way: `progress` gives what the kernel holds back of a connection.
    pub fn tick(
        &mut self,
        now_ns: u64,
        mut progress: impl FnMut(u64, u32) -> Option<ProgressSlot>,
        out: &mut Vec<Outcome>,
    ) {
        let connections = &mut self.connections;
        self.answering.retain(|&cookie| {
            let Some(connection) = connections.get_mut(&cookie) else {
                return false;
            };
            if let Some(slot) = progress(cookie, connection.seq()) {
                connection.take_progress(&slot, out);
            }
            connection.end_if_quiet(now_ns, out);
            connection.is_answering()
        });
        if now_ns.saturating_sub(self.swept_ns) >= SWEEP_NS {
            self.swept_ns = now_ns;
            self.forget_silent(now_ns, FORGET_NS, out);
        }
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Forgets connections silent for `silence_ns`: the idle ones, then, if that makes no room, all of them.
    fn forget_silent(&mut self, now_ns: u64, silence_ns: u64, out: &mut Vec<Outcome>) {
        let silent =
            |connection: &Connection| now_ns.saturating_sub(connection.latest_ns) >= silence_ns;
        self.connections
            .retain(|_, connection| !(connection.is_idle() && silent(connection)));
        if self.connections.len() < CONNECTION_CAP {
            return;
        }
        let mut oldest: Vec<(u64, u64)> = self
            .connections
            .iter()
            .map(|(&cookie, connection)| (connection.latest_ns, cookie))
            .collect();
        oldest.sort_unstable();
        for (_, cookie) in oldest.into_iter().take(CONNECTION_CAP / 8) {
            if let Some(mut connection) = self.connections.remove(&cookie) {
                connection.close(Unfinished::Evicted, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use inferprobe_ebpf::abi::Record;

    use super::*;

    fn entry(record: Record, request: &[u8], answer: &[u8]) -> Vec<u8> {
        let record = Record {
            request_len: u16::try_from(request.len()).unwrap(),
            answer_len: u16::try_from(answer.len()).unwrap(),
            read_bytes: request.len() as u64,
            written_bytes: answer.len() as u64,
            ..record
        };
        let mut entry = bytemuck::bytes_of(&record).to_vec();
        entry.extend(request);
        entry.extend(answer);
        entry
    }

    fn request_of(cookie: u64, at_ns: u64) -> Vec<u8> {
        let record = Record {
            cookie,
            seq: 1,
            kind: kind::READ,
            last_read_ns: at_ns,
            ..Record::default()
        };
        entry(record, b"GET / HTTP/1.1\r\n\r\n", b"")
    }

    #[test]
    fn a_flood_of_connections_is_bounded_and_counted() {
        let mut table = Table::default();
        let mut out = Vec::new();
        let flood = CONNECTION_CAP as u64 + 100;
        for cookie in 1..=flood {
            table.take(&request_of(cookie, cookie), &mut out);
        }
        assert!(table.len() <= CONNECTION_CAP);
        assert_eq!(out.len() + table.len(), usize::try_from(flood).unwrap());
        assert!(
            out.iter()
                .all(|outcome| *outcome == Outcome::Unfinished(Unfinished::Evicted))
        );
    }

    #[test]
    fn a_silent_connection_with_an_open_request_is_kept() {
        let mut table = Table::default();
        table.take(&request_of(1, 1), &mut Vec::new());
        table.tick(FORGET_NS * 2, |_, _| None, &mut Vec::new());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_unix_answer_without_a_length_is_finished_when_quiet() {
        let mut table = Table::default();
        let record = Record {
            cookie: 1,
            seq: 1,
            kind: kind::EXCHANGE,
            flags: inferprobe_ebpf::abi::flag::UNIX,
            last_write_ns: 1_000,
            ..Record::default()
        };
        let mut out = Vec::new();
        table.take(
            &entry(
                record,
                b"GET / HTTP/1.0\r\n\r\n",
                b"HTTP/1.0 200 OK\r\n\r\nhi",
            ),
            &mut out,
        );
        table.tick(2_000, |_, _| None, &mut out);
        assert!(out.is_empty());
        table.tick(1_000_000_000, |_, _| None, &mut out);
        let [Outcome::Finished(exchange)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(
            (exchange.answer.status, exchange.answer.last_write_ns),
            (200, None)
        );
    }

    #[test]
    fn short_entries_are_counted() {
        let mut out = Vec::new();
        Table::default().take(b"short", &mut out);
        assert_eq!(out, [Outcome::Lost(Loss::Malformed)]);
    }
}
