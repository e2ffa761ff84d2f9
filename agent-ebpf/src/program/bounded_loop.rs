//! Loops that may run long: the kernel's own (`bpf_loop`) in typed programs, else as many rounds as the verifier follows.
//!
//! An object's instruction that names a loop's body is refused by kernels before 5.13 wherever it stands, so that plain
//! programs have none.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;

use crate::backend::Flavour;

/// What a step returns.
pub(crate) const GO_ON: i64 = 0;
pub(crate) const STOP: i64 = 1;

/// One round: its number and the loop's state in, [`GO_ON`] or [`STOP`] out.
pub(crate) type Step = unsafe extern "C" fn(u32, *mut c_void) -> i64;

/// Runs `step` on `state` until it stops: at most `rounds` times, `few` where the kernel runs no loops.
///
/// # Safety
///
/// `state` is what `step` takes, and outlives the call.
#[inline(always)]
pub(crate) unsafe fn repeat<F: Flavour>(rounds: u32, few: u32, step: Step, state: *mut c_void) {
    if F::LOOPS {
        // SAFETY: the caller's; `step` has the signature that the helper calls.
        unsafe { bpf_loop(rounds, step as *mut c_void, state, 0) };
        return;
    }
    let mut round = 0;
    while round < few {
        // SAFETY: the caller's.
        if unsafe { step(round, state) } != GO_ON {
            break;
        }
        round += 1;
    }
}
