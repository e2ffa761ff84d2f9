//! Reads the load-time constants: field offsets, system call numbers and features.
//!
//! The loader writes them into the object before the verifier reads it, so that each is a constant to the verifier.
//! Does not depend on: maps, sockets, hooks.

use inferprobe_ebpf::globals::{Features, Offsets, SyscallAbi};

#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::NONE;

#[unsafe(no_mangle)]
pub(crate) static SYSCALLS: SyscallAbi = SyscallAbi::NONE;

#[unsafe(no_mangle)]
pub(crate) static FEATURES: Features = Features::NONE;

/// Returns the value that the loader set. The read is volatile, because the compiler knows the initial zero.
#[inline(always)]
pub(crate) fn constant(global: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(global) }
}

/// Whether the agent wants the bytes that servers read and write, beside their times.
#[inline(always)]
pub(crate) fn reads_payload() -> bool {
    constant(&FEATURES.payload) != 0
}

/// Whether the agent wants to know when connections were accepted.
#[inline(always)]
pub(crate) fn reports_accepts() -> bool {
    constant(&FEATURES.accept_wait) != 0
}

/// Bytes that are copied of a request, head and body.
#[inline(always)]
pub(crate) fn copied_bytes() -> u32 {
    constant(&FEATURES.copied_bytes)
}

/// Whether the vectors of a transfer are in kernel memory. Otherwise they are in user memory.
#[inline(always)]
pub(crate) fn has_kernel_vectors() -> bool {
    constant(&FEATURES.kernel_vectors) != 0
}

/// Whether the kernel counts how long threads wait for a CPU.
#[inline(always)]
pub(crate) fn has_run_delay() -> bool {
    constant(&FEATURES.run_delay) != 0
}

/// Whether a backup copy of each program is attached.
#[inline(always)]
pub(crate) fn is_attached_twice() -> bool {
    constant(&FEATURES.attached_twice) != 0
}
