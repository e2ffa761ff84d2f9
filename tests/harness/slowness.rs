//! Takes CPU time from servers: by threads that spin, and by a CPU limit.
//!
//! Does not depend on: the agent.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Period of a CPU limit, µs.
const PERIOD_US: u32 = 100_000;
/// Where the controller for CPUs may be: version 1, then version 2.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"];

/// Restricts each thread of a process, and those that they start, to `cpus`.
///
/// # Panics
/// If the process has ended.
pub fn pin(pid: u32, cpus: &CpuSet) {
    for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("the process goes on") {
        let name = thread.expect("procfs can be read").file_name();
        let tid = name.to_str().and_then(|name| name.parse().ok());
        let tid = tid.and_then(Pid::from_raw);
        sched_setaffinity(tid, cpus).expect("the thread goes on");
    }
}

/// One of the CPUs that this process may use.
///
/// # Panics
/// If the kernel does not say.
pub fn one_cpu() -> CpuSet {
    let allowed = sched_getaffinity(None).expect("own CPUs are known");
    let mut cpu = CpuSet::new();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    cpu.set(first.expect("this process runs on a CPU"));
    cpu
}

/// Threads that use up the time of CPUs until they are dropped.
#[derive(Debug)]
pub struct Hogs {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    /// Starts so many on `cpus`.
    pub fn start(count: usize, cpus: &CpuSet) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = |_| {
            let (stop, cpus) = (stop.clone(), *cpus);
            thread::spawn(move || {
                sched_setaffinity(None, &cpus).expect("these CPUs exist");
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..count).map(spin).collect();
        Self { stop, threads }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A hog that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// A cgroup with a CPU limit; removed when dropped.
#[derive(Debug)]
pub struct Quota(PathBuf);

impl Quota {
    /// Makes one that may use this share of one CPU.
    ///
    /// # Panics
    /// If this machine has no controller for CPUs, or this process may not use it.
    pub fn of_percent(percent: u32) -> Self {
        let name = format!("inferprobe-test-{}-{percent}", process::id());
        let quota_us = PERIOD_US / 100 * percent;
        let (first, second) = (Path::new(ROOTS[0]), Path::new(ROOTS[1]));
        let (folder, file, limit) =
            match first.join("cpu.cfs_quota_us").exists() || first.join("cgroup.procs").exists() {
                true => (first.join(name), "cpu.cfs_quota_us", quota_us.to_string()),
                false => {
                    fs::write(second.join("cgroup.subtree_control"), "+cpu")
                        .expect("the controller for CPUs can be used");
                    let limit = format!("{quota_us} {PERIOD_US}");
                    (second.join(name), "cpu.max", limit)
                }
            };
        fs::create_dir(&folder).expect("a cgroup can be made");
        let quota = Self(folder);
        fs::write(quota.0.join(file), limit).expect("a CPU limit can be set");
        quota
    }

    /// Returns its folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // A process that was killed leaves its cgroup a moment later.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
