//! Decides which of two copies of one program handles an event.
//!
//! The kernel does not run a program on a CPU on which it already runs (kernel/bpf/trampoline.c,
//! `__bpf_prog_enter_recur`; kernel/trace/bpf_trace.c, `__bpf_trace_run`): a recursion miss. If a task can lose its CPU
//! within a program, the kernel skips the event of the next task. A backup copy runs after the primary one, and handles
//! what the kernel skipped for the primary.
//! Does not depend on: hooks, what an event is.

/// A copy of a program, by its place in the order in which the kernel runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The copy that the kernel runs first: it handles every event that it gets.
    Primary,
    /// The copy that runs after it, if there is one: it handles what the kernel skipped for the primary.
    Backup,
}

impl Attached {
    /// Returns whether the primary copy already handled this event of `thread`. The primary stores `thread` in `mark`;
    /// the backup compares and clears it.
    ///
    /// If threads interleave on one mark, an event may be handled twice. Only readers of one connection that do not
    /// wait for each other do so, and then it is unknown which bytes are whose.
    #[inline(always)]
    pub fn already_handled(self, mark: &mut u32, thread: u32) -> bool {
        // The idle thread, in which packets may arrive, has the number 0.
        let by_thread = thread.wrapping_add(1);
        match self {
            Self::Primary => {
                *mark = by_thread;
                false
            }
            Self::Backup => {
                let handled = *mark == by_thread;
                *mark = 0;
                handled
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often each of a thread's events is handled; `skipped`: per event, whether the kernel skips each copy.
    fn times(skipped: &[(bool, bool)]) -> std::vec::Vec<u32> {
        let mut mark = 0;
        skipped
            .iter()
            .map(|&(primary, backup)| {
                let mut times = 0;
                for (copy, is_skipped) in [(Attached::Primary, primary), (Attached::Backup, backup)]
                {
                    if !is_skipped && !copy.already_handled(&mut mark, 0) {
                        times += 1;
                    }
                }
                times
            })
            .collect()
    }

    #[test]
    fn an_event_skipped_for_one_copy_is_handled_once() {
        assert_eq!(times(&[(false, false); 3]), [1, 1, 1]);
        assert_eq!(
            times(&[(true, false), (true, false), (false, false)]),
            [1, 1, 1]
        );
        assert_eq!(times(&[(false, true), (false, false)]), [1, 1]);
        assert_eq!(
            times(&[(true, false), (false, true), (false, false)]),
            [1, 1, 1]
        );
    }

    #[test]
    fn an_event_skipped_for_both_copies_is_lost() {
        assert_eq!(times(&[(true, true), (false, false)]), [0, 1]);
    }

    #[test]
    fn another_threads_event_is_not_already_handled() {
        let mut mark = 0;
        assert!(!Attached::Primary.already_handled(&mut mark, 7));
        assert!(!Attached::Backup.already_handled(&mut mark, 8));
    }
}
