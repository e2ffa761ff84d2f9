//! Sums up how long all threads of a process ran, and how long they waited for a CPU.
//!
//! The kernel keeps both for each thread (`/proc/PID/task/TID/schedstat`). A descriptor that is kept costs an eighth of
//! opening the file anew. Does not depend on: servers.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
};

/// Most descriptors to keep; files of further threads are opened for each reading.
const MAX_KEPT: usize = 4_096;
/// Most threads to read.
const MAX_THREADS: usize = 16_384;

/// Time of a thread since it was started, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// On a CPU.
    pub(super) ran_ns: u64,
    /// Ready to run, but without a CPU.
    pub(super) starved_ns: u64,
}

impl Times {
    fn since(self, before: Self) -> Self {
        Self {
            ran_ns: self.ran_ns.saturating_sub(before.ran_ns),
            starved_ns: self.starved_ns.saturating_sub(before.starved_ns),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.ran_ns += other.ran_ns;
        self.starved_ns += other.starved_ns;
    }
}

/// What was read of the threads of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProcessTimes {
    /// Time since the reading before.
    pub(super) times: Times,
    /// Threads that were read.
    pub(super) threads: u64,
    /// Threads that ended since the reading before, or while they were read: their last times are lost.
    pub(super) ended: u64,
    /// Threads that were not read, because there are too many.
    pub(super) unread: u64,
}

#[derive(Debug)]
struct Thread {
    /// `None`: there are too many to keep.
    file: Option<File>,
    last: Times,
    /// Number of the reading that listed it.
    seen: u64,
}

/// The threads of all watched processes.
#[derive(Debug)]
pub(super) struct Threads {
    by_process: HashMap<u32, HashMap<u32, Thread>>,
    /// Most descriptors to keep.
    max_kept: usize,
    kept: usize,
    count: usize,
    reading: u64,
}

impl Threads {
    /// Starts without any; the process may have `max_files` files open in all.
    pub(super) fn new(max_files: Option<u64>) -> Self {
        // Half is for the rest of the agent.
        let half = max_files.map_or(MAX_KEPT, |max| usize::try_from(max / 2).unwrap_or(MAX_KEPT));
        Self {
            by_process: HashMap::new(),
            max_kept: half.min(MAX_KEPT),
            kept: 0,
            count: 0,
            reading: 0,
        }
    }

    /// Reads every thread of a process. `is_new`: the process was started after the readings began, so all of its time
    /// counts; otherwise what it had before its first reading does not.
    pub(super) fn read(&mut self, pid: u32, is_new: bool) -> io::Result<ProcessTimes> {
        self.reading += 1;
        let counts_all = is_new || self.by_process.contains_key(&pid);
        let mut threads = self.by_process.remove(&pid).unwrap_or_default();
        let mut sum = ProcessTimes::default();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = entry?.file_name();
            let Some(tid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let (thread, is_baseline) = match threads.entry(tid) {
                Entry::Occupied(thread) => (thread.into_mut(), false),
                Entry::Vacant(_) if self.count >= MAX_THREADS => {
                    sum.unread += 1;
                    continue;
                }
                Entry::Vacant(vacant) => match self.open(pid, tid) {
                    Some(thread) => (vacant.insert(thread), !counts_all),
                    None => {
                        sum.ended += 1;
                        continue;
                    }
                },
            };
            let Some(now) = thread.read(pid, tid) else {
                continue;
            };
            // Another thread has the id of one that ended.
            let is_another = now.ran_ns < thread.last.ran_ns;
            let before = match (is_baseline, is_another) {
                (true, _) => now,
                (false, true) => Times::default(),
                (false, false) => thread.last,
            };
            sum.times.add(now.since(before));
            sum.threads += 1;
            thread.last = now;
            thread.seen = self.reading;
        }
        let reading = self.reading;
        threads.retain(|_, thread| {
            let lives = thread.seen == reading;
            if !lives {
                sum.ended += 1;
                self.count -= 1;
                self.kept -= usize::from(thread.file.is_some());
            }
            lives
        });
        self.by_process.insert(pid, threads);
        Ok(sum)
    }

    /// Forgets the processes for which `is_watched` is false; returns each with the number of its threads.
    pub(super) fn retain(&mut self, is_watched: impl Fn(u32) -> bool) -> Vec<(u32, u64)> {
        let mut ended = Vec::new();
        self.by_process.retain(|pid, threads| {
            let lives = is_watched(*pid);
            if !lives {
                ended.push((*pid, threads.len() as u64));
                self.count -= threads.len();
                let kept = threads.values().filter(|thread| thread.file.is_some());
                self.kept -= kept.count();
            }
            lives
        });
        ended
    }

    fn open(&mut self, pid: u32, tid: u32) -> Option<Thread> {
        let file = File::open(path(pid, tid)).ok()?;
        let mut thread = Thread {
            file: Some(file),
            last: Times::default(),
            seen: 0,
        };
        if self.kept >= self.max_kept {
            thread.file = None;
        } else {
            self.kept += 1;
        }
        self.count += 1;
        Some(thread)
    }
}

impl Thread {
    /// Returns its times; `None` if it has ended.
    fn read(&self, pid: u32, tid: u32) -> Option<Times> {
        let mut text = [0; 64];
        let length = match &self.file {
            Some(file) => file.read_at(&mut text, 0),
            None => File::open(path(pid, tid)).and_then(|file| file.read_at(&mut text, 0)),
        };
        parse(text.get(..length.ok()?)?)
    }
}

fn path(pid: u32, tid: u32) -> String {
    format!("/proc/{pid}/task/{tid}/schedstat")
}

/// Whether this kernel counts these times: without `CONFIG_SCHED_INFO` all are 0.
pub(super) fn are_counted() -> bool {
    let own = fs::read("/proc/self/schedstat").ok();
    own.and_then(|text| parse(&text))
        .is_some_and(|times| times.ran_ns > 0)
}

/// The file has time on a CPU, time waiting for one, and the number of time slices.
fn parse(text: &[u8]) -> Option<Times> {
    let text = std::str::from_utf8(text).ok()?;
    let mut fields = text.strip_suffix('\n')?.split(' ');
    Some(Times {
        ran_ns: fields.next()?.parse().ok()?,
        starved_ns: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn both_times_are_read_and_a_text_that_is_cut_off_is_not() {
        const TEXT: &[u8] = b"622178 1498745 2\n";
        let times = Times {
            ran_ns: 622_178,
            starved_ns: 1_498_745,
        };
        assert_eq!(parse(TEXT), Some(times));
        for end in 0..TEXT.len() {
            assert_eq!(parse(&TEXT[..end]), None);
        }
        assert_eq!(parse(b"\xff 1 2\n"), None);
        assert_eq!(parse(b"1\n"), None);
    }

    #[test]
    fn a_thread_that_starts_counts_from_its_start_and_one_that_ends_is_counted() {
        let own = std::process::id();
        let mut threads = Threads::new(None);
        let before = threads.read(own, false).unwrap();
        assert_eq!(
            before.times,
            Times::default(),
            "what was before does not count"
        );
        let (end, ended) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let worker = thread::spawn(move || {
            let mut sum = 0_u64;
            while std::hint::black_box(sum) < 3_000_000 {
                sum += 1;
            }
            started.send(rustix::thread::gettid()).unwrap();
            let _ = ended.recv();
        });
        let tid = start.recv().unwrap().as_raw_nonzero().get() as u32;
        let after = threads.read(own, false).unwrap();
        assert!(after.times.ran_ns > 0);
        let of_worker = threads.by_process[&own][&tid].last;
        assert!(
            after.times.ran_ns >= of_worker.ran_ns,
            "all of its time counts"
        );
        drop(end);
        worker.join().unwrap();
        let mut ended = 0;
        while threads.by_process[&own].contains_key(&tid) {
            ended += threads.read(own, false).unwrap().ended;
        }
        assert!(ended > 0);
        threads.retain(|_| false);
        assert_eq!((threads.count, threads.kept), (0, 0));
    }

    #[test]
    fn without_descriptors_to_spare_every_file_is_opened_anew() {
        let own = std::process::id();
        let mut threads = Threads::new(Some(0));
        assert!(threads.read(own, true).unwrap().times.ran_ns > 0);
        assert_eq!(threads.kept, 0);
        assert!(threads.read(own, true).unwrap().threads > 0);
    }

    #[test]
    fn a_process_that_has_ended_cannot_be_read() {
        assert!(Threads::new(None).read(u32::MAX, true).is_err());
    }
}
