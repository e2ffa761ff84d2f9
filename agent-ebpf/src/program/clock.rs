//! Reads the clock: CLOCK_MONOTONIC, which all times of a record share.
//!
//! Does not depend on: anything else of the program.

use aya_ebpf::helpers::bpf_ktime_get_ns;

/// Returns the monotonic time, ns.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_ns() }
}
