//! Describes the threads that read a request and wrote its response, and how long they waited for a CPU.
//!
//! `reads` and `writes` take it from a record; requests and responses carry it.
//! Does not depend on: any protocol.

use inferprobe_ebpf::abi::{Record, thread};

/// Returns the thread of a record's last read, in the kernel's own PID namespace; `None` if it is unknown.
pub fn reader_of(record: &Record) -> Option<u32> {
    Some(record.reader_tid).filter(|tid| *tid != 0)
}

/// What a thread waited for, from the last byte that it read to the first that it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadWait {
    /// How long it was ready to run and had no CPU, ns.
    pub starved_ns: u64,
    /// Whether it gave up its CPU by itself, to wait for something else.
    pub slept: bool,
}

impl ThreadWait {
    /// The wait before a record's first write; `None` if another thread read, or if the kernel does not count it.
    pub fn of(record: &Record) -> Option<Self> {
        (record.thread & thread::SAME != 0).then_some(Self {
            starved_ns: record.starved_ns,
            slept: record.thread & thread::NEVER_SLEPT == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_known_only_for_one_thread() {
        let with = |thread| Record {
            thread,
            starved_ns: 40,
            ..Record::NONE
        };
        assert_eq!(ThreadWait::of(&with(0)), None);
        assert_eq!(ThreadWait::of(&with(thread::COMPARED)), None);
        for (bits, slept) in [
            (thread::SAME, true),
            (thread::SAME | thread::NEVER_SLEPT, false),
        ] {
            let expected = ThreadWait {
                starved_ns: 40,
                slept,
            };
            assert_eq!(ThreadWait::of(&with(bits)), Some(expected));
        }
    }

    #[test]
    fn reader_without_a_thread_is_unknown() {
        assert_eq!(reader_of(&Record::NONE), None);
        let record = Record {
            reader_tid: 7,
            ..Record::NONE
        };
        assert_eq!(reader_of(&record), Some(7));
    }
}
