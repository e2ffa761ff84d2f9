//! Knows what is watched: processes, TCP ports, AF_UNIX listeners.
//!
//! The agent writes processes and ports; the program adds forked processes and listeners.
//! Does not depend on: the state of sockets, records.

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{Array, HashMap, LruHashMap},
    macros::btf_map,
};
use inferprobe_ebpf::abi::{DropReason, PROCESS_SLOTS, port_bit};

/// Watched processes.
#[btf_map]
static WATCHED: HashMap<u32, u8, 8192> = HashMap::new();

/// By the low bits of a process id: 0 if none with them is watched, which a look into [`WATCHED`] would tell at ten times the
/// cost. The agent clears what ended.
#[btf_map]
static MAY_BE_WATCHED: Array<u64, { PROCESS_SLOTS as usize }> = Array::new();

/// What is known of each TCP port, one bit for each meaning of [`port_bit`].
#[btf_map]
static PORTS: Array<u64, { 4 * port_bit::WORDS as usize }> = Array::new();

/// Addresses (kernel pointers) of watched AF_UNIX listeners: their connections share them.
#[btf_map]
static LISTENERS: LruHashMap<u64, u8, 1024> = LruHashMap::new();

/// TCP ports that watched listeners have, or had: the server's side of a connection is the one with such a port.
#[btf_map]
static SERVED: LruHashMap<u32, u8, 1024> = LruHashMap::new();

/// Whether the process is watched.
#[inline(always)]
pub(crate) fn has_process(tgid: u32) -> bool {
    WATCHED.get_ptr(tgid).is_some()
}

/// Whether the process may be watched; [`has_process`] knows.
#[inline(always)]
pub(crate) fn may_have_process(tgid: u32) -> bool {
    MAY_BE_WATCHED
        .get(tgid % PROCESS_SLOTS)
        .is_none_or(|watched| *watched != 0)
}

/// Watches a process.
#[inline(always)]
pub(crate) fn add_process(tgid: u32) -> Result<(), DropReason> {
    if let Some(watched) = MAY_BE_WATCHED.get_ptr_mut(tgid % PROCESS_SLOTS) {
        // SAFETY: a map value, which is written as a whole.
        unsafe { *watched = 1 };
    }
    WATCHED
        .insert(tgid, 1, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

/// Ends the watch of a process; returns `false` if it was not watched.
#[inline(always)]
pub(crate) fn remove_process(tgid: u32) -> bool {
    may_have_process(tgid) && WATCHED.remove(tgid).is_ok()
}

/// Whether the TCP port is watched, for good or until its listener is decided.
#[inline(always)]
pub(crate) fn has_port(port: u16) -> bool {
    has_bit(port_bit::WATCHED, port)
}

/// Whether the listener of the TCP port is undecided.
#[inline(always)]
pub(crate) fn is_undecided(port: u16) -> bool {
    has_bit(port_bit::UNDECIDED, port)
}

/// Whether the state of the TCP port's connections is to be removed.
#[inline(always)]
pub(crate) fn is_released(port: u16) -> bool {
    has_bit(port_bit::RELEASED, port)
}

/// Whether the agent wants to know of the next connection to the TCP port; it does so once.
#[inline(always)]
pub(crate) fn take_armed(port: u16) -> bool {
    let word = port_bit::ARMED * port_bit::WORDS + (port as u32 >> 6);
    let Some(bits) = PORTS.get_ptr_mut(word) else {
        return false;
    };
    let bit = 1_u64 << (port & 63);
    // SAFETY: a map value. Two CPUs that take bits of one word at once may leave one of them, which is then taken again;
    // a bit that the agent sets meanwhile may be lost, and it sets it again after the next window.
    unsafe {
        if *bits & bit == 0 {
            return false;
        }
        *bits &= !bit;
    }
    true
}

#[inline(always)]
fn has_bit(meaning: u32, port: u16) -> bool {
    PORTS
        .get(meaning * port_bit::WORDS + (port as u32 >> 6))
        .is_some_and(|bits| bits >> (port & 63) & 1 == 1)
}

/// Notes that a watched listener has the TCP port.
#[inline(always)]
pub(crate) fn note_served_port(port: u16) {
    // Without room, HTTP/2 connections that were open before the watch are not joined.
    let _ = SERVED.insert(port as u32, 1, BPF_ANY.into());
}

/// Whether a watched listener has the TCP port, or had it.
#[inline(always)]
pub(crate) fn serves_port(port: u16) -> bool {
    SERVED.get_ptr(port as u32).is_some()
}

/// Watches the connections of an AF_UNIX listener's address.
#[inline(always)]
pub(crate) fn add_address(address: u64) -> Result<(), DropReason> {
    LISTENERS
        .insert(address, 1, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

/// Ends the watch of an AF_UNIX address, which now belongs to another listener.
#[inline(always)]
pub(crate) fn remove_address(address: u64) {
    // Mostly it was not watched before.
    let _ = LISTENERS.remove(address);
}

/// Whether the AF_UNIX address is a watched listener's.
#[inline(always)]
pub(crate) fn has_address(address: u64) -> bool {
    LISTENERS.get_ptr(address).is_some()
}
