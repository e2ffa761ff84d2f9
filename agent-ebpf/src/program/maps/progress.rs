//! Keeps the latest write of responses whose small steps are not emitted, one slot for each socket.
//!
//! The agent reads the slots as its own memory, while the program writes: a checksum says whether a copy is whole.
//! Does not depend on: records, hooks.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, btf_maps::Array, macros::btf_map};
use inferprobe_ebpf::{
    abi::{PROGRESS_SLOTS, ProgressSlot},
    conn::Conn,
};

/// Time after which a slot may go to another socket, ns. The agent has read it long before.
const SLOT_HELD_NS: u64 = 1_000_000_000;

/// The agent maps the array into its memory (5.5).
#[btf_map]
static PROGRESSES: Array<ProgressSlot, PROGRESS_SLOTS, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Writes the latest write to the socket's slot; returns `false` if another socket holds the slot.
#[inline(always)]
pub(crate) fn note(conn: &Conn) -> bool {
    let Some(slot) = PROGRESSES.get_ptr_mut(slot_of(conn)) else {
        return false;
    };
    // SAFETY: the entry is preallocated; a reader recognises a half-written one by the checksum.
    let slot = unsafe { &mut *slot };
    let age_ns = conn.record.last_write_ns.saturating_sub(slot.last_write_ns);
    if slot.cookie != 0 && slot.cookie != conn.record.cookie && age_ns < SLOT_HELD_NS {
        return false;
    }
    let mut next = ProgressSlot {
        cookie: conn.record.cookie,
        last_write_ns: conn.record.last_write_ns,
        written_bytes: conn.record.written_bytes,
        tail: conn.record.tail,
        writes: conn.record.writes,
        undrained_us: conn.record.undrained_us,
        total_bytes: conn.record.total_bytes,
        seq: conn.record.seq as u64,
        check: 0,
    };
    next.check = next.checksum();
    *slot = next;
    true
}

/// Frees the socket's slot.
#[inline(always)]
pub(crate) fn free(conn: &Conn) {
    let Some(slot) = PROGRESSES.get_ptr_mut(slot_of(conn)) else {
        return;
    };
    // SAFETY: as in `note`.
    let slot = unsafe { &mut *slot };
    if slot.cookie == conn.record.cookie {
        slot.cookie = 0;
    }
}

#[inline(always)]
fn slot_of(conn: &Conn) -> u32 {
    conn.record.cookie as u32 & (PROGRESS_SLOTS as u32 - 1)
}
