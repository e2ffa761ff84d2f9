//! Keeps the running call of a TLS library, by thread, from its entry to its return; and numbers what each thread emits.
//!
//! In use only if the agent reads plaintext.
//! Does not depend on: sockets, hooks.

use aya_ebpf::{
    bindings::BPF_ANY, btf_maps::LruHashMap, helpers::bpf_get_current_pid_tgid, macros::btf_map,
};
use inferprobe_ebpf::abi::DropReason;

/// A call that has begun, or the latest one of the thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PlaintextCall {
    /// Address of the library's connection; 0: no call runs.
    pub(crate) connection: u64,
    /// Address of the plaintext.
    pub(crate) buffer: u64,
    /// Bytes that the caller offers, or has room for.
    pub(crate) bytes: u64,
    /// Where the library stores how many bytes it moved; 0: it returns them.
    pub(crate) count: u64,
    /// Whether it writes.
    pub(crate) writes: u32,
    /// Records that the thread emitted.
    pub(crate) emitted: u32,
}

/// Its size is the number of threads that are remembered.
#[btf_map]
static PLAINTEXTS: LruHashMap<u64, PlaintextCall, 16384> = LruHashMap::new();

/// Returns the running thread's call, or the place of its next one.
#[inline(always)]
pub(crate) fn current() -> Option<*mut PlaintextCall> {
    PLAINTEXTS.get_ptr_mut(bpf_get_current_pid_tgid())
}

/// Returns the place of the running thread's call.
#[inline(always)]
pub(crate) fn current_or_new() -> Result<*mut PlaintextCall, DropReason> {
    if let Some(call) = current() {
        return Ok(call);
    }
    let none = PlaintextCall {
        connection: 0,
        buffer: 0,
        bytes: 0,
        count: 0,
        writes: 0,
        emitted: 0,
    };
    PLAINTEXTS
        .insert(bpf_get_current_pid_tgid(), none, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)?;
    current().ok_or(DropReason::MapFull)
}
