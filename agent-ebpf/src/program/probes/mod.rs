//! The hooks. An entry is three lines; what it does is in its `try_` twin, of which there is one for all kinds of entry.

mod accept;
mod call;
mod fentry;
mod kprobe;
mod process;
mod readable;
mod recv;
mod scan;
mod send;
mod state;
mod syscall;

use inferprobe_ebpf::abi::DropReason;

use crate::maps;

/// The two copies of a program, where the kernel may pass one over: `$turn` is which of them runs.
macro_rules! twice {
    ($(
        $(#[$attribute:meta])*
        fn $first:ident, $second:ident($ctx:ident: $context:ty, $turn:ident) $body:block
    )*) => {$(
        $(#[$attribute])*
        fn $first($ctx: $context) -> i32 {
            let $turn = inferprobe_ebpf::duplicate::Turn::First;
            $body
        }

        $(#[$attribute])*
        fn $second($ctx: $context) -> i32 {
            let $turn = inferprobe_ebpf::duplicate::Turn::Second;
            $body
        }
    )*};
}
use twice;

/// Counts the loss, if there was one, and ends the program.
#[inline(always)]
fn done(outcome: Result<(), DropReason>) -> i32 {
    if let Err(reason) = outcome {
        maps::count(reason);
    }
    0
}
