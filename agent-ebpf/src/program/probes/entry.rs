//! What entries have in common: they count losses, and exist in two copies if the kernel may skip one.
//!
//! Does not depend on: any hook.

use inferprobe_ebpf::{abi::DropReason, duplicate::Attached};

use crate::{globals::is_attached_twice, maps::drops, task};

/// Defines the primary and the backup copy of a program. `$attached` is the copy that runs.
macro_rules! primary_and_backup {
    ($(
        $(#[$attribute:meta])*
        fn $primary:ident, $backup:ident($ctx:ident: $context:ty, $attached:ident) $body:block
    )*) => {$(
        $(#[$attribute])*
        fn $primary($ctx: $context) -> i32 {
            let $attached = inferprobe_ebpf::duplicate::Attached::Primary;
            $body
        }

        $(#[$attribute])*
        fn $backup($ctx: $context) -> i32 {
            let $attached = inferprobe_ebpf::duplicate::Attached::Backup;
            $body
        }
    )*};
}
pub(crate) use primary_and_backup;

/// Counts the loss, if there was one, and ends the program.
#[inline(always)]
pub(crate) fn done(outcome: Result<(), DropReason>) -> i32 {
    if let Err(reason) = outcome {
        drops::count(reason);
    }
    0
}

/// Whether the primary copy already handled the running thread's event, of the kind that `mark` is for: see
/// [`Attached`].
#[inline(always)]
pub(crate) fn already_handled(attached: Attached, mark: &mut u32) -> bool {
    // Without a backup copy, no program reads the primary's marks.
    (attached == Attached::Backup || is_attached_twice())
        && attached.already_handled(mark, task::current_tid())
}
