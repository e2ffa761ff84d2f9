//! Counts what the program loses, by reason and CPU, and where it is known by process and port.
//!
//! The agent reads the counters by CPU as its own memory.
//! Does not depend on: other maps, hooks.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    btf_maps::{Array, LruHashMap},
    helpers::bpf_get_smp_processor_id,
    macros::btf_map,
};
use inferprobe_ebpf::abi::{DROP_CPUS, DropReason, LOSERS as CAPACITY, Loser};

/// The agent maps the array into its memory (5.5).
#[btf_map]
static DROPS: Array<u64, { DROP_CPUS * DropReason::ALL.len() }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Losses by [`Loser`].
#[btf_map]
static LOSERS: LruHashMap<u64, u64, CAPACITY> = LruHashMap::new();

/// Counts a loss.
#[inline(always)]
pub(crate) fn count(reason: DropReason) {
    // SAFETY: no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() } % DROP_CPUS as u32;
    if let Some(slot) = DROPS.get_ptr_mut(cpu * DropReason::ALL.len() as u32 + reason as u32) {
        // SAFETY: a map value, this CPU's own. A task that loses the CPU at this point may undo another's count.
        unsafe { *slot += 1 };
    }
}

/// Counts a loss of the process `tgid` at `port`, which is 0 if it has none.
///
/// A call of its own: it is rare, and in many places.
#[inline(never)]
pub(crate) fn count_of(reason: DropReason, tgid: u32, port: u16) {
    let loser = Loser {
        tgid,
        port,
        reason: reason as u16,
    };
    // The agent reads in the other order, so it never takes a loss of a process for one of none.
    let _ = LOSERS.insert(loser.key(), 0, BPF_NOEXIST.into());
    if let Some(slot) = LOSERS.get_ptr_mut(loser.key()) {
        // SAFETY: a map value. Of two losses at once, one may not count here: its server is then unknown.
        unsafe { *slot += 1 };
    }
    count(reason);
}
