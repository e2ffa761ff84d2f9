//! Child processes of a test: where their binaries are, and never leaving one behind.

use std::{
    path::PathBuf,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Path of a binary of this workspace: beside the running test, or what `variable` says.
///
/// # Panics
/// When there is no such file.
pub fn binary(name: &str, variable: Option<&str>) -> PathBuf {
    if let Some(path) = variable.and_then(std::env::var_os) {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a running test has an executable");
    let folder = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("a test lies in target/<profile>/deps");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not there; build the workspace first, with cargo xtask build or cargo build --workspace",
        path.display()
    );
    path
}

/// A child process that is killed and reaped when dropped.
#[derive(Debug)]
pub struct Owned(pub Child);

impl Owned {
    /// Process id, as in /proc.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends SIGTERM, then waits for the end, at most `limit` long.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("a child has a process id");
        kill_process(pid, Signal::TERM).expect("a child that was not reaped can be signalled");
        self.wait(limit)
    }

    /// Waits for the end, at most `limit` long.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if start.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Resident set size, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("a running child has /proc/PID/status");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("VmRSS is a number of kB");
        kib * 1024
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail when the child was reaped already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
