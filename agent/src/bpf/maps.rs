//! What comes up from the kernel: records and process events off their rings, progress slots and loss counters.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
};
use inferprobe_ebpf::abi::{
    DROP_CPUS, DropReason, PROGRESS_SLOTS, ProcessEvent, ProgressSlot, Record,
};

use crate::bpf::mmap_array::Window;

/// Most bytes that a record may count: no connection carries as many, and no sum of such counts overflows.
const COUNT_CAP_BYTES: u64 = 1 << 48;

/// A record and its payload, borrowed from the ring.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// The record.
    pub record: Record,
    /// First bytes of the read segment.
    pub request: &'a [u8],
    /// First bytes of the write, or of the part of it that belongs to the answer's beginning.
    pub answer: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Reads an entry of the ring; `None` when it is shorter than it says, or counts bytes that no connection carries.
    pub fn parse(entry: &'a [u8]) -> Option<Self> {
        let (head, payload) = entry.split_at_checked(size_of::<Record>())?;
        let record: Record = bytemuck::pod_read_unaligned(head);
        let counts = [record.read_bytes, record.written_bytes, record.total_bytes];
        if counts.iter().any(|bytes| *bytes > COUNT_CAP_BYTES) {
            return None;
        }
        let (request, rest) = payload.split_at_checked(record.request_len.into())?;
        let answer = rest.get(..record.answer_len.into())?;
        Some(Self {
            record,
            request,
            answer,
        })
    }
}

/// The maps that userspace reads and writes while the programs run.
pub struct Rings {
    /// Records of exchanges.
    pub records: RingBuf<MapData>,
    /// Process events.
    pub processes: RingBuf<MapData>,
    progresses: Window<[u64; 8]>,
    drops: Window<u64>,
    watched: HashMap<MapData, u32, u8>,
    ports: Array<MapData, u64>,
}

impl Rings {
    /// Takes the maps out of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("find map {name}"))
        };
        Ok(Self {
            records: map("RECORDS")?.try_into().context("open map RECORDS")?,
            processes: map("PROCESSES")?.try_into().context("open map PROCESSES")?,
            progresses: Window::open(map("PROGRESSES")?, PROGRESS_SLOTS)
                .context("open map PROGRESSES")?,
            drops: Window::open(map("DROPS")?, DROP_CPUS * DropReason::ALL.len())
                .context("open map DROPS")?,
            watched: map("WATCHED")?.try_into().context("open map WATCHED")?,
            ports: map("PORTS")?.try_into().context("open map PORTS")?,
        })
    }

    /// Latest write of the socket, if the kernel holds one back that is newer than its record `seq`.
    pub fn progress(&self, cookie: u64, seq: u32) -> Option<ProgressSlot> {
        let index = usize::try_from(cookie % PROGRESS_SLOTS as u64).ok()?;
        let words = self.progresses.get(index)?;
        let slot: ProgressSlot = bytemuck::cast(words);
        (slot.is_whole() && slot.cookie == cookie && slot.seq == u64::from(seq)).then_some(slot)
    }

    /// Losses since the programs were loaded, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| {
            let places = (reason as usize..).step_by(DropReason::ALL.len());
            let counts = places.take(DROP_CPUS).filter_map(|at| self.drops.get(at));
            (reason, counts.sum())
        })
    }

    /// Whether the kernel still lets this process use its maps.
    pub fn is_open(&self) -> bool {
        let outcome = self.watched.get(&0, 0);
        matches!(outcome, Ok(_) | Err(MapError::KeyNotFound))
    }

    /// Ends the watch of a process.
    pub fn unwatch_process(&mut self, tgid: u32) {
        // Its end was told of meanwhile, if it is not there.
        let _ = self.watched.remove(&tgid);
    }

    /// Watches a process.
    pub fn watch_process(&mut self, tgid: u32) -> Result<()> {
        self.watched
            .insert(tgid, 1, 0)
            .with_context(|| format!("watch process {tgid}"))
    }

    /// Watches a TCP port, or ends its watch.
    pub fn set_port(&mut self, port: u16, watched: bool) -> Result<()> {
        let index = u32::from(port >> 6);
        let bit = 1_u64 << (port & 63);
        let bits = self.ports.get(&index, 0).context("read map PORTS")?;
        let bits = if watched { bits | bit } else { bits & !bit };
        self.ports
            .set(index, bits, 0)
            .with_context(|| format!("watch port {port}"))
    }
}

/// Reads an entry of the process ring; `None` when it is short.
pub fn parse_process_event(entry: &[u8]) -> Option<ProcessEvent> {
    Some(bytemuck::pod_read_unaligned(
        entry.get(..size_of::<ProcessEvent>())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Vec<u8> {
        let record = Record {
            cookie: 9,
            request_len: 3,
            answer_len: 2,
            ..Record::default()
        };
        let mut entry = bytemuck::bytes_of(&record).to_vec();
        entry.extend(b"GETHT\0\0\0");
        entry
    }

    #[test]
    fn payload_is_split_where_the_record_says() {
        let entry = entry();
        let view = RecordView::parse(&entry).unwrap();
        assert_eq!(view.record.cookie, 9);
        assert_eq!((view.request, view.answer), (&b"GET"[..], &b"HT"[..]));
    }

    #[test]
    fn counts_that_would_overflow_are_refused() {
        let entry = |bytes: u64| {
            let record = Record {
                total_bytes: bytes,
                ..Record::default()
            };
            bytemuck::bytes_of(&record).to_vec()
        };
        assert!(RecordView::parse(&entry(COUNT_CAP_BYTES)).is_some());
        assert!(RecordView::parse(&entry(COUNT_CAP_BYTES + 1)).is_none());
    }

    #[test]
    fn short_entries_are_refused() {
        let entry = entry();
        for len in 0..size_of::<Record>() + 5 {
            assert!(RecordView::parse(&entry[..len]).is_none(), "{len}");
        }
    }
}
