//! Hides values from the verifier or the compiler, where what they know of them does harm.
//!
//! Does not depend on: what the values mean.

use inferprobe_ebpf::conn::Conn;

/// Returns `value`, about which the verifier knows nothing any more. Otherwise it would follow every origin of the
/// value separately.
#[inline(always)]
pub(crate) fn forget(conn: &mut Conn, value: u64) -> u64 {
    let scratch: *mut u64 = (&raw mut conn.scratch).cast();
    // SAFETY: a map value, whose content the verifier does not track.
    unsafe {
        scratch.write_volatile(value);
        scratch.read_volatile()
    }
}

/// Returns `value`, about which the compiler knows nothing any more. A mask applied to it then stays, for the verifier
/// to see.
#[inline(always)]
pub(crate) fn opaque(value: u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(&value) }
}
