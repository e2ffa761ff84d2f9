//! Opens the maps that the agent shares with its programs: rings, progress slots, loss counters, watched targets.
//!
//! The event loop drains the rings and sets what is watched.
//! Does not depend on: what records mean.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
};
use inferprobe_ebpf::abi::{
    DROP_CPUS, DropReason, Loser, PROCESS_SLOTS, PROGRESS_SLOTS, ProcessEvent, ProgressSlot,
    port_bit,
};

use crate::bpf::{mmap_array::MmapArray, ring::Ring};

/// The maps that userspace reads and writes while the programs run.
pub struct Maps {
    /// Records of exchanges.
    pub records: Ring,
    /// Process events.
    pub processes: Ring,
    progresses: MmapArray<[u64; 8]>,
    drops: MmapArray<u64>,
    losers: HashMap<MapData, u64, u64>,
    watched: HashMap<MapData, u32, u8>,
    may_be_watched: Array<MapData, u64>,
    /// The processes whose slot of `may_be_watched` is set.
    noted: BTreeSet<u32>,
    ports: Array<MapData, u64>,
}

impl Maps {
    /// Takes the maps from a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("find map {name}"))
        };
        Ok(Self {
            records: Ring::open(map("RECORDS")?).context("open map RECORDS")?,
            processes: Ring::open(map("PROCESSES")?).context("open map PROCESSES")?,
            progresses: MmapArray::open(map("PROGRESSES")?, PROGRESS_SLOTS)
                .context("open map PROGRESSES")?,
            drops: MmapArray::open(map("DROPS")?, DROP_CPUS * DropReason::ALL.len())
                .context("open map DROPS")?,
            losers: map("LOSERS")?.try_into().context("open map LOSERS")?,
            watched: map("WATCHED")?.try_into().context("open map WATCHED")?,
            may_be_watched: map("MAY_BE_WATCHED")?
                .try_into()
                .context("open map MAY_BE_WATCHED")?,
            noted: BTreeSet::new(),
            ports: map("PORTS")?.try_into().context("open map PORTS")?,
        })
    }

    /// Returns the latest write of the socket, if the kernel has not sent it in a record after `seq` yet.
    pub fn progress(&self, cookie: u64, seq: u32) -> Option<ProgressSlot> {
        let index = usize::try_from(cookie % PROGRESS_SLOTS as u64).ok()?;
        let words = self.progresses.get(index)?;
        let slot: ProgressSlot = bytemuck::cast(words);
        (slot.is_whole() && slot.cookie == cookie && slot.seq == u64::from(seq)).then_some(slot)
    }

    /// Returns the losses since the programs were loaded, by reason.
    pub fn drops(&self) -> [u64; DropReason::ALL.len()] {
        DropReason::ALL.map(|reason| {
            let slots = (reason as usize..).step_by(DropReason::ALL.len());
            let counts = slots.take(DROP_CPUS).filter_map(|at| self.drops.get(at));
            counts.sum()
        })
    }

    /// Returns the losses of processes.
    pub fn losers(&self) -> Vec<(Loser, u64)> {
        // The kernel may replace an entry meanwhile; it is then left out.
        let entries = self.losers.iter().filter_map(Result::ok);
        entries
            .map(|(key, count)| (Loser::of_key(key), count))
            .collect()
    }

    /// Returns whether the kernel still lets this process use its maps.
    pub fn is_open(&self) -> bool {
        let outcome = self.watched.get(&0, 0);
        matches!(outcome, Ok(_) | Err(MapError::KeyNotFound))
    }

    /// Stops watching a process.
    pub fn unwatch_process(&mut self, tgid: u32) {
        // If it is absent, a program has removed it when the process ended.
        let _ = self.watched.remove(&tgid);
        self.forget_process(tgid);
    }

    /// Notes that a program no longer watches a process.
    pub fn forget_process(&mut self, tgid: u32) {
        let slot = tgid % PROCESS_SLOTS;
        if self.noted.remove(&tgid) && self.noted.iter().all(|other| other % PROCESS_SLOTS != slot)
        {
            // A slot that stays set costs time, not truth.
            let _ = self.may_be_watched.set(slot, 0, 0);
        }
    }

    /// Notes that a program watches a process, the child of a watched one.
    pub fn note_process(&mut self, tgid: u32) -> Result<()> {
        self.noted.insert(tgid);
        // Also if the program has set it: it may have been cleared since, for another process.
        self.may_be_watched
            .set(tgid % PROCESS_SLOTS, 1, 0)
            .with_context(|| format!("note process {tgid}"))
    }

    /// Watches a process.
    pub fn watch_process(&mut self, tgid: u32) -> Result<()> {
        self.note_process(tgid)?;
        self.watched
            .insert(tgid, 1, 0)
            .with_context(|| format!("watch process {tgid}"))
    }

    /// Starts or stops watching a TCP port.
    pub fn set_port(&mut self, port: u16, watched: bool) -> Result<()> {
        self.set_port_bit(port_bit::WATCHED, port, watched)
    }

    /// Starts or stops to report the requests to a TCP port whose listener is undecided, and its next connection.
    pub fn look_at(&mut self, port: u16, looks: bool) -> Result<()> {
        // While it is watched, it must be known as undecided.
        let mut meanings = [port_bit::UNDECIDED, port_bit::WATCHED, port_bit::ARMED];
        if !looks {
            meanings.reverse();
        }
        meanings
            .into_iter()
            .try_for_each(|meaning| self.set_port_bit(meaning, port, looks))
    }

    /// Sets what the next pass over open sockets does with the connections of a TCP port.
    pub fn set_released(&mut self, port: u16, released: bool) -> Result<()> {
        self.set_port_bit(port_bit::RELEASED, port, released)
    }

    fn set_port_bit(&mut self, meaning: u32, port: u16, set: bool) -> Result<()> {
        let index = meaning * port_bit::WORDS + u32::from(port >> 6);
        let bit = 1_u64 << (port & 63);
        let bits = self.ports.get(&index, 0).context("read map PORTS")?;
        let bits = if set { bits | bit } else { bits & !bit };
        self.ports
            .set(index, bits, 0)
            .with_context(|| format!("watch port {port}"))
    }
}

/// Parses an entry of the process ring; `None` if it is too short.
pub fn parse_process_event(entry: &[u8]) -> Option<ProcessEvent> {
    Some(bytemuck::pod_read_unaligned(
        entry.get(..size_of::<ProcessEvent>())?,
    ))
}
