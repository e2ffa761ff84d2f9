//! Emits process events to the agent, on a ring of their own.
//!
//! Does not depend on: sockets, other maps.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::RingBuf,
    macros::btf_map,
};
use inferprobe_ebpf::abi::{DropReason, ProcessEvent};

#[btf_map]
static PROCESSES: RingBuf<ProcessEvent, { 64 << 10 }> = RingBuf::new();

/// Emits a process event and wakes the agent, which must inspect the process before it serves.
#[inline(always)]
pub(crate) fn emit_process(event: ProcessEvent) -> Result<(), DropReason> {
    PROCESSES
        .output(event, BPF_RB_FORCE_WAKEUP.into())
        .map_err(|_| DropReason::ProcessRingFull)
}

/// Emits the start of a thread. It does not wake the agent, which reads it with the records.
#[inline(always)]
pub(crate) fn emit_thread(event: ProcessEvent) -> Result<(), DropReason> {
    PROCESSES
        .output(event, BPF_RB_NO_WAKEUP.into())
        .map_err(|_| DropReason::ProcessRingFull)
}
