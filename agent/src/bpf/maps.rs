//! What comes up from the kernel: records and process events off their rings, progress slots and loss counters.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
};
use inferprobe_ebpf::abi::{DROP_CPUS, DropReason, PROGRESS_SLOTS, ProcessEvent, ProgressSlot};

use crate::bpf::mmap_array::MmapArray;

/// The maps that userspace reads and writes while the programs run.
pub struct Maps {
    /// Records of exchanges.
    pub records: RingBuf<MapData>,
    /// Process events.
    pub processes: RingBuf<MapData>,
    progresses: MmapArray<[u64; 8]>,
    drops: MmapArray<u64>,
    watched: HashMap<MapData, u32, u8>,
    ports: Array<MapData, u64>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("find map {name}"))
        };
        Ok(Self {
            records: map("RECORDS")?.try_into().context("open map RECORDS")?,
            processes: map("PROCESSES")?.try_into().context("open map PROCESSES")?,
            progresses: MmapArray::open(map("PROGRESSES")?, PROGRESS_SLOTS)
                .context("open map PROGRESSES")?,
            drops: MmapArray::open(map("DROPS")?, DROP_CPUS * DropReason::ALL.len())
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
