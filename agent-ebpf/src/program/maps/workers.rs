//! Knows the TCP connections of TorchServe workers, so that the frontend's reads at their other ends are reported.
//!
//! Does not depend on: hooks, frames.

use aya_ebpf::{bindings::BPF_ANY, btf_maps::LruHashMap, macros::btf_map};
use inferprobe_ebpf::abi::Record;

/// The worker's end of its frontend's connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Worker {
    /// Cookie of its socket.
    pub(crate) cookie: u64,
    /// [`inferprobe_ebpf::conn::LastHandled::reply_read`].
    pub(crate) reply_read: u32,
    reserved: u32,
}

/// Workers' TCP sockets by their ports: the worker's own in the high half, the frontend's in the low half.
#[btf_map]
static WORKERS: LruHashMap<u32, Worker, 1024> = LruHashMap::new();

/// Notes the TCP connection of a worker, whose record is `record`.
#[inline(always)]
pub(crate) fn note(record: &Record) {
    let ports = ports_of(record.local_port, record.peer_port);
    let worker = Worker {
        cookie: record.cookie,
        reply_read: 0,
        reserved: 0,
    };
    // Without room, the frontend's reads are not reported: the agent uses the end of the reply instead.
    let _ = WORKERS.insert(ports, worker, BPF_ANY.into());
}

/// Returns the worker whose socket has these ports, its own and the other end's.
#[inline(always)]
pub(crate) fn get(local_port: u16, peer_port: u16) -> Option<*mut Worker> {
    WORKERS.get_ptr_mut(ports_of(local_port, peer_port))
}

#[inline(always)]
const fn ports_of(local_port: u16, peer_port: u16) -> u32 {
    (local_port as u32) << 16 | peer_port as u32
}
