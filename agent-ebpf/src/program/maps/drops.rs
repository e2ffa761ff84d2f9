//! Counts what the program loses, by reason and CPU.
//!
//! The agent reads the counters as its own memory.
//! Does not depend on: other maps, hooks.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE, btf_maps::Array, helpers::bpf_get_smp_processor_id, macros::btf_map,
};
use inferprobe_ebpf::abi::{DROP_CPUS, DropReason};

/// The agent maps the array into its memory (5.5).
#[btf_map]
static DROPS: Array<u64, { DROP_CPUS * DropReason::ALL.len() }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

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
