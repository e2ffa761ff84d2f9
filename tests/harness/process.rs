//! Finds the programs that tests start, and ends the processes when the test ends.

use std::{
    path::PathBuf,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Signal, kill_process},
};

use crate::clock::wait_for;

/// Options of `unshare --pid` for a procfs of the new namespace. Only `/proc` becomes private, because `/` is no mount
/// point in a chroot.
pub const OWN_PROCFS: [&str; 3] = ["--mount-proc", "--propagation", "unchanged"];

/// Returns the path of a binary of this workspace: in the running program's profile, or what `variable` says.
///
/// # Panics
/// If there is no such file.
pub fn binary(name: &str, variable: Option<&str>) -> PathBuf {
    if let Some(path) = variable.and_then(std::env::var_os) {
        return PathBuf::from(path);
    }
    let path = profile_folder().join(name);
    assert!(
        path.exists(),
        "{} is not there; build the workspace first, with cargo xtask build or cargo build --workspace",
        path.display()
    );
    path
}

/// Returns the folder of the running program's profile: `target/debug` or `target/release`.
pub(crate) fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has an executable");
    let folder = program.parent().expect("an executable is in a folder");
    // A test is in target/<profile>/deps, a binary in target/<profile>.
    match folder.parent() {
        Some(profile) if folder.ends_with("deps") => profile.to_owned(),
        _ => folder.to_owned(),
    }
}

/// Returns the one child of the process `pid`, which has one thread, once it has one.
pub fn child_of(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let what = format!("a child of process {pid}");
    wait_for(&what, Duration::from_secs(5), || {
        let children = std::fs::read_to_string(&path).expect("the process goes on");
        children.split_whitespace().next()?.parse().ok()
    })
}

/// A child process that is killed and reaped when dropped.
#[derive(Debug)]
pub struct Owned(pub Child);

impl Owned {
    /// Returns the process id, as in /proc.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends SIGTERM, and waits for the end for at most `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("a child has a process id");
        kill_process(pid, Signal::TERM).expect("a child that was not reaped can be signalled");
        self.wait(limit)
    }

    /// Waits for the end for at most `limit`.
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

    /// Returns the resident set size, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        rss_bytes(self.pid())
    }

    /// Returns the CPU time used, user and system, in seconds; the kernel counts in hundredths.
    pub fn cpu_s(&self) -> f64 {
        cpu_s(self.pid())
    }
}

/// Returns the resident set size of a running process, in bytes.
pub fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .expect("a running process has /proc/PID/status");
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .expect("VmRSS is a number of kB");
    kib * 1024
}

/// Returns the CPU time that a running process used, user and system, in seconds; the kernel counts in hundredths.
pub fn cpu_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .expect("a running process has /proc/PID/stat");
    cpu_ticks(&stat).expect("utime and stime are numbers of ticks") as f64
        / clock_ticks_per_second() as f64
}

/// Returns the sum of fields 14 and 15 of `/proc/PID/stat`; the name in field 2 may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail if the child was reaped already, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_after_any_name_is_found() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 90 0 0 0 12 30 5 5 20 0 3 0 100";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (a) S 1 7"), None);
    }
}
