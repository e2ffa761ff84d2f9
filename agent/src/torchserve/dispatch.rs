//! Keeps when TorchServe frontends dispatched frames to their workers: the end of a request's internal queue.
//!
//! On two CPUs or fewer, Java's common pool has no threads. TorchServe then starts a thread for each frame, right after it
//! takes the batch from its queue, and the kernel reports the new thread. On more CPUs, the frame's first byte counts.
//! Does not depend on: frames, procfs.

use std::collections::{HashMap, VecDeque};

use crate::torchserve::worker::WorkerId;

/// Number of times that are kept per worker: a worker has one frame at a time, and the join needs its time soon.
const TIMES_CAP: usize = 64;

/// The latest dispatch times, by worker process.
#[derive(Debug, Default)]
pub struct DispatchTimes {
    workers: HashMap<u32, WorkerId>,
    times_ns: HashMap<WorkerId, VecDeque<u64>>,
}

impl DispatchTimes {
    /// Records that the process `pid` is `worker`.
    pub fn add_worker(&mut self, pid: u32, worker: WorkerId) {
        self.workers.insert(pid, worker);
        self.times_ns.entry(worker).or_default();
    }

    /// Removes the worker whose process ended; ignores other processes.
    pub fn remove_worker(&mut self, pid: u32) {
        if let Some(worker) = self.workers.remove(&pid) {
            self.times_ns.remove(&worker);
        }
    }

    /// Records that the frontend's thread for `worker` started another thread at `at_ns`; ignores an unknown worker.
    pub fn on_dispatch(&mut self, worker: WorkerId, at_ns: u64) {
        let Some(times_ns) = self.times_ns.get_mut(&worker) else {
            return;
        };
        if times_ns.len() >= TIMES_CAP {
            times_ns.pop_front();
        }
        times_ns.push_back(at_ns);
    }

    /// Returns when the frame that reached worker `pid` at `reached_ns` was dispatched; `None` unless there is exactly one
    /// dispatch between the worker's previous reply and `reached_ns`.
    pub fn find(&self, pid: u32, idle_since_ns: Option<u64>, reached_ns: u64) -> Option<u64> {
        let times_ns = self.times_ns.get(self.workers.get(&pid)?)?;
        let since_ns = idle_since_ns?;
        let mut within = times_ns
            .iter()
            .filter(|at_ns| (since_ns..=reached_ns).contains(*at_ns));
        let dispatched_ns = within.next();
        dispatched_ns.filter(|_| within.next().is_none()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: WorkerId = WorkerId {
        frontend: 7,
        number: 9000,
    };

    #[test]
    fn frame_has_the_only_dispatch_since_the_last_reply() {
        let mut dispatch_times = DispatchTimes::default();
        dispatch_times.on_dispatch(WORKER, 50);
        dispatch_times.add_worker(8, WORKER);
        for at_ns in [100, 200, 300] {
            dispatch_times.on_dispatch(WORKER, at_ns);
        }
        assert_eq!(dispatch_times.find(8, Some(150), 210), Some(200));
        assert_eq!(dispatch_times.find(8, Some(0), 110), Some(100));
        // With no dispatch, or more than one, the time is unknown.
        assert_eq!(dispatch_times.find(8, Some(210), 290), None);
        assert_eq!(dispatch_times.find(8, Some(150), 310), None);
        assert_eq!(dispatch_times.find(8, None, 110), None);
        assert_eq!(dispatch_times.find(9, Some(150), 210), None);
        dispatch_times.remove_worker(8);
        assert_eq!(dispatch_times.find(8, Some(150), 210), None);
    }

    #[test]
    fn times_are_bounded() {
        let mut dispatch_times = DispatchTimes::default();
        dispatch_times.add_worker(8, WORKER);
        for at_ns in 0..1_000 {
            dispatch_times.on_dispatch(WORKER, at_ns);
        }
        assert_eq!(dispatch_times.times_ns[&WORKER].len(), TIMES_CAP);
    }
}
