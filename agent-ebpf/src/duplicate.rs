//! Two copies of one program on one hook, and which of them takes an event in.
//!
//! The kernel does not run a program on a CPU on which it is running already (kernel/bpf/trampoline.c,
//! `__bpf_prog_enter_recur`; kernel/trace/bpf_trace.c, `__bpf_trace_run`). Where a task can lose its CPU within a program,
//! the event of the next task is passed over. A second copy runs behind the first, and takes in what that was not told of.

/// A copy of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The one that the kernel runs first: it takes every event in that it is told of.
    First,
    /// The one behind it, where there is one: it takes in what the first was not told of.
    Second,
}

impl Turn {
    /// Whether the event of `thread` was taken in already, of those that `mark` is for; for the copy behind, `mark` keeps
    /// that it is.
    ///
    /// Of threads whose events on one mark run into each other one may be taken in twice: readers of one connection that
    /// do not wait for each other, to whom nobody could say which bytes are whose.
    #[inline(always)]
    pub fn is_told(self, mark: &mut u32, thread: u32) -> bool {
        // The idle thread, in which packets may arrive, is number 0.
        let by_thread = thread.wrapping_add(1);
        match self {
            Self::First => {
                *mark = by_thread;
                false
            }
            Self::Second => {
                let is_told = *mark == by_thread;
                *mark = 0;
                is_told
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of a thread's events is taken in; `passed_over`: per event, whether the kernel runs each copy.
    fn times(passed_over: &[(bool, bool)]) -> std::vec::Vec<u32> {
        let mut mark = 0;
        passed_over
            .iter()
            .map(|&(first, second)| {
                let mut times = 0;
                for (turn, is_passed_over) in [(Turn::First, first), (Turn::Second, second)] {
                    if !is_passed_over && !turn.is_told(&mut mark, 0) {
                        times += 1;
                    }
                }
                times
            })
            .collect()
    }

    #[test]
    fn an_event_is_taken_in_once_whichever_copy_is_passed_over() {
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
    fn an_event_that_both_are_passed_over_for_is_lost() {
        assert_eq!(times(&[(true, true), (false, false)]), [0, 1]);
    }

    #[test]
    fn another_thread_is_not_taken_for_the_one_that_left_its_mark() {
        let mut mark = 0;
        assert!(!Turn::First.is_told(&mut mark, 7));
        assert!(!Turn::Second.is_told(&mut mark, 8));
    }
}
