//! Runs a program in a process group that ends when the test ends, however it ends: servers start workers.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, test_kill_process_group};

/// Longest wait for killed processes to end, so that none writes into a folder that is being removed.
const LINGER_LIMIT: Duration = Duration::from_secs(5);

/// Starts its arguments, and ends everything in its process group once its standard input is closed.
const SCRIPT: &str = r#""$@" & cat >/dev/null; kill -KILL 0"#;

/// A running process group; it is killed when dropped.
#[derive(Debug)]
pub struct ProcessGroup(Child);

impl ProcessGroup {
    /// A command that will run `program` in a group of its own; arguments that are added are the program's.
    pub fn command(program: &impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "process-group"])
            .arg(program)
            .process_group(0);
        command
    }

    /// Starts what [`ProcessGroup::command`] made.
    pub fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).spawn();
        Self(child.expect("a shell can be started"))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        drop(self.0.stdin.take());
        // This fails if the child was reaped already, which is fine.
        let _ = self.0.wait();
        let start = Instant::now();
        // If the machine's first process does not reap orphans, the dead stay in the group. That is not worth a panic.
        while group.is_some_and(|group| test_kill_process_group(group).is_ok())
            && start.elapsed() < LINGER_LIMIT
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
