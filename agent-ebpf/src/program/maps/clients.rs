//! Knows which process made a TCP connection on this host, so that the record of its other end can say so.
//!
//! The client connects before the server's side exists. So a process is noted once for each connection, and looked up once, at
//! the server's first read.
//! Does not depend on: records, hooks.

use aya_ebpf::{bindings::BPF_ANY, btf_maps::LruHashMap, macros::btf_map};
use inferprobe_ebpf::abi::DropReason;

use crate::{
    access::Access,
    maps::watched,
    sock::{Ends, Sock},
    task,
};

/// Processes that make a connection, by the address of their socket, until it is established.
#[btf_map]
static CONNECTING: LruHashMap<u64, u32, 4096> = LruHashMap::new();

/// Processes that made a connection, by their end of it.
#[btf_map]
static CLIENTS: LruHashMap<Ends, u32, 8192> = LruHashMap::new();

/// Notes that the running process begins to connect `sk`, if the other end may be on this host. To another host, or another
/// network namespace, only the connections of watched processes are noted.
#[inline(always)]
pub(crate) fn note_connecting<A: Access>(sk: Sock<A>) -> Result<(), DropReason> {
    let tgid = task::current_tgid();
    if sk.ends().place == 0 && !watched::has_process(tgid) {
        return Ok(());
    }
    CONNECTING
        .insert(sk.address(), tgid, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

/// Notes that `sk` is connected, if a process connects it. Otherwise it is a server's end.
#[inline(always)]
pub(crate) fn note_connected<A: Access>(sk: Sock<A>) -> Result<(), DropReason> {
    let address = sk.address();
    let Some(tgid) = CONNECTING.get_ptr(address) else {
        return Ok(());
    };
    // SAFETY: a map value, written as a whole.
    let tgid = unsafe { *tgid };
    // The least recently used entry goes first, so this one may be gone.
    let _ = CONNECTING.remove(address);
    note(sk, tgid)
}

/// Notes that the process `tgid` made the connection whose client's end is `sk`.
#[inline(always)]
pub(crate) fn note<A: Access>(sk: Sock<A>, tgid: u32) -> Result<(), DropReason> {
    CLIENTS
        .insert(sk.ends(), tgid, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

/// Returns the process that made the connection whose server's end is `sk`, once; 0 if it is not known.
///
/// A call of its own, which runs once for each connection.
#[inline(never)]
pub(crate) fn take<A: Access>(sk: Sock<A>) -> u32 {
    let ends = sk.ends().reversed();
    let Some(tgid) = CLIENTS.get_ptr(ends) else {
        return 0;
    };
    // SAFETY: a map value, written as a whole.
    let tgid = unsafe { *tgid };
    let _ = CLIENTS.remove(ends);
    tgid
}
