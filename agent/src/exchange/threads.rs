//! Describes the threads that read a request and wrote its response, and how long they waited for a CPU.
//!
//! `reads` and `writes` take it from a record; requests and responses carry it.
//! Does not depend on: any protocol.

use inferprobe_ebpf::abi::{Record, thread};

/// The thread that read the last bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// Thread, in the kernel's own PID namespace.
    pub tid: u32,
    /// How long it had waited for a CPU since it began, ns; 0 if the kernel does not count that.
    pub run_delay_ns: u64,
}

impl Reader {
    /// The reader of a record's last read; `None` if it is unknown.
    pub fn of(record: &Record) -> Option<Self> {
        (record.reader_tid != 0).then_some(Self {
            tid: record.reader_tid,
            run_delay_ns: record.run_delay_ns,
        })
    }
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
        assert_eq!(Reader::of(&Record::NONE), None);
        let reader = Reader {
            tid: 7,
            run_delay_ns: 9,
        };
        let record = Record {
            reader_tid: 7,
            run_delay_ns: 9,
            ..Record::NONE
        };
        assert_eq!(Reader::of(&record), Some(reader));
    }
}
