//! Keeps when watched TCP connections were established and accepted, until their first read.
//!
//! In use only if the agent asks for accepts.
//! Does not depend on: hooks, which connections are watched.

use aya_ebpf::{bindings::BPF_ANY, btf_maps::LruHashMap, macros::btf_map};
use inferprobe_ebpf::{
    abi::{DropReason, kind},
    conn::Conn,
};

use crate::maps::{drops, records};

/// A connection on its way to the server's process.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Accept {
    /// When it was established.
    established_ns: u64,
    /// When the server's call returned with it; 0: unknown.
    pub(crate) accepted_ns: u64,
}

/// Connections that were not yet read from, by the address of their socket.
#[btf_map]
static ACCEPTS: LruHashMap<u64, Accept, 16384> = LruHashMap::new();

/// Notes that the connection whose socket is at `address` was established.
#[inline(always)]
pub(crate) fn note_established(address: u64, now_ns: u64) -> Result<(), DropReason> {
    let accept = Accept {
        established_ns: now_ns,
        accepted_ns: 0,
    };
    ACCEPTS
        .insert(address, accept, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

/// Returns the accept of the connection whose socket is at `address`, if it is watched and was not yet read from.
#[inline(always)]
pub(crate) fn get(address: u64) -> Option<*mut Accept> {
    ACCEPTS.get_ptr_mut(address)
}

/// Emits when the connection of `conn`, whose socket is at `address`, was accepted, if that is known; does so once.
///
/// A call of its own, which runs once for each connection.
#[inline(never)]
pub(crate) fn emit(conn: &Conn, address: u64) {
    let Some(accept) = get(address) else {
        return;
    };
    // SAFETY: a map value, which only the task that accepted the connection has written.
    let Accept {
        established_ns,
        accepted_ns,
    } = unsafe { *accept };
    // The least recently used entry goes first, so this one may be gone.
    let _ = ACCEPTS.remove(address);
    if accepted_ns == 0 {
        return;
    }
    let sent = records::emit_without_payload(|record| {
        record.cookie = conn.record.cookie;
        record.arrival_ns = established_ns;
        record.first_read_ns = accepted_ns;
        record.tgid = conn.record.tgid;
        record.local_port = conn.record.local_port;
        record.peer_port = conn.record.peer_port;
        record.kind = kind::ACCEPTED;
        record.mode = conn.record.mode;
    });
    if let Err(reason) = sent {
        drops::count_of(reason, conn.record.tgid, conn.record.local_port);
    }
}
