//! When a frontend's threads for its workers handed frames on: TorchServe's own end of a request's wait.
//!
//! On two CPUs or fewer TorchServe's Java starts a thread for each frame that it sends (its common pool has no threads
//! then), right after it took the batch from the queue. On more there is no such sign, and the frame's first byte stands
//! for it.

use std::collections::{HashMap, VecDeque};

use crate::torchserve::worker::WorkerId;

/// Times that are kept of one worker: its frames come one at a time, and are asked for within a fraction of a second.
const TIMES_CAP: usize = 64;

/// The latest hand-overs, by worker process.
#[derive(Debug, Default)]
pub struct DispatchTimes {
    workers: HashMap<u32, WorkerId>,
    times_ns: HashMap<WorkerId, VecDeque<u64>>,
}

impl DispatchTimes {
    /// Notes that the process `pid` is the worker of `worker`.
    pub fn add_worker(&mut self, pid: u32, worker: WorkerId) {
        self.workers.insert(pid, worker);
        self.times_ns.entry(worker).or_default();
    }

    /// Forgets an ended worker; any other process is none.
    pub fn remove_worker(&mut self, pid: u32) {
        if let Some(worker) = self.workers.remove(&pid) {
            self.times_ns.remove(&worker);
        }
    }

    /// Notes that the thread for `worker` started another at `at_ns`; of a worker without a worker, nothing is kept.
    pub fn on_dispatch(&mut self, worker: WorkerId, at_ns: u64) {
        let Some(times_ns) = self.times_ns.get_mut(&worker) else {
            return;
        };
        if times_ns.len() >= TIMES_CAP {
            times_ns.pop_front();
        }
        times_ns.push_back(at_ns);
    }

    /// When the frame that worker `pid` had at `reached_ns` was handed on: the only hand-over between the worker's last
    /// reply and that.
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
    fn a_frame_finds_its_own_handover() {
        let mut dispatch_times = DispatchTimes::default();
        dispatch_times.on_dispatch(WORKER, 50);
        dispatch_times.add_worker(8, WORKER);
        for at_ns in [100, 200, 300] {
            dispatch_times.on_dispatch(WORKER, at_ns);
        }
        assert_eq!(dispatch_times.find(8, Some(150), 210), Some(200));
        assert_eq!(dispatch_times.find(8, Some(0), 110), Some(100));
        // None, or more than one: not known.
        assert_eq!(dispatch_times.find(8, Some(210), 290), None);
        assert_eq!(dispatch_times.find(8, Some(150), 310), None);
        assert_eq!(dispatch_times.find(8, None, 110), None);
        assert_eq!(dispatch_times.find(9, Some(150), 210), None);
        dispatch_times.remove_worker(8);
        assert_eq!(dispatch_times.find(8, Some(150), 210), None);
    }

    #[test]
    fn few_times_are_kept() {
        let mut dispatch_times = DispatchTimes::default();
        dispatch_times.add_worker(8, WORKER);
        for at_ns in 0..1_000 {
            dispatch_times.on_dispatch(WORKER, at_ns);
        }
        assert_eq!(dispatch_times.times_ns[&WORKER].len(), TIMES_CAP);
    }
}
