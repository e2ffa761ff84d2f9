//! Emits process events to the agent, on a ring of their own.
//!
//! Does not depend on: sockets, other maps.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::RingBuf,
    helpers::bpf_ringbuf_query,
    macros::btf_map,
};
use inferprobe_ebpf::abi::{DropReason, ProcessEvent};

#[btf_map]
static PROCESSES: RingBuf<ProcessEvent, { 64 << 10 }> = RingBuf::new();

/// Bytes that may wait until the agent reads its rings by itself.
const WAITING_BYTES: u64 = 16 << 10;

/// Emits an event on which the agent must act before the first request, and wakes it.
#[inline(always)]
pub(crate) fn emit_and_wake(event: ProcessEvent) -> Result<(), DropReason> {
    output(event, BPF_RB_FORCE_WAKEUP)
}

/// Emits an event that the agent reads with the records. To wake it would take a hundred times longer, and processes start
/// and end much more often than they listen.
#[inline(always)]
pub(crate) fn emit(event: ProcessEvent) -> Result<(), DropReason> {
    let ring = (&raw const PROCESSES).cast_mut().cast();
    // SAFETY: PROCESSES is a ring buffer.
    let waiting_bytes = unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()) };
    let wakeup = match waiting_bytes < WAITING_BYTES {
        true => BPF_RB_NO_WAKEUP,
        false => BPF_RB_FORCE_WAKEUP,
    };
    output(event, wakeup)
}

#[inline(always)]
fn output(event: ProcessEvent, wakeup: u32) -> Result<(), DropReason> {
    PROCESSES
        .output(event, wakeup.into())
        .map_err(|_| DropReason::ProcessRingFull)
}
