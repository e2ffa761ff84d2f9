//! What entries have in common: they count losses, and exist in two copies if the kernel may skip one.
//!
//! Does not depend on: any hook.

use inferprobe_ebpf::{abi::DropReason, duplicate::Turn};

use crate::{globals::is_attached_twice, maps::drops, task};

/// Defines the primary and the backup copy of a program. `$turn` is the copy that runs.
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
pub(crate) use twice;

/// Counts the loss, if there was one, and ends the program.
#[inline(always)]
pub(crate) fn done(outcome: Result<(), DropReason>) -> i32 {
    if let Err(reason) = outcome {
        drops::count(reason);
    }
    0
}

/// Whether the primary copy already handled the running thread's event, of the kind that `mark` is for: see [`Turn`].
#[inline(always)]
pub(crate) fn is_told(turn: Turn, mark: &mut u32) -> bool {
    // Without a backup copy, no program reads the primary's marks.
    (turn == Turn::Second || is_attached_twice()) && turn.is_told(mark, task::current_tid())
}
