//! Runs loops that may take many rounds: in the kernel (`bpf_loop`) for BTF-typed programs, otherwise as many rounds as
//! the verifier follows.
//!
//! Kernels before 5.13 refuse an instruction that names a callback, even in code that is never reached. So raw
//! programs, which must load there, contain none.
//! Does not depend on: maps, what is repeated.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;

use crate::backend::Backend;

/// What a step returns.
pub(crate) const GO_ON: i64 = 0;
pub(crate) const STOP: i64 = 1;

/// One round: gets its number and the loop's state, returns [`GO_ON`] or [`STOP`].
pub(crate) type Step = unsafe extern "C" fn(u32, *mut c_void) -> i64;

/// Runs `step` on `state` until it stops: at most `rounds` times, or `few` times if the kernel runs no loops.
///
/// # Safety
///
/// `state` is what `step` expects, and outlives the call.
#[inline(always)]
pub(crate) unsafe fn bounded_loop<B: Backend>(
    rounds: u32,
    few: u32,
    step: Step,
    state: *mut c_void,
) {
    if B::HAS_LOOPS {
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
