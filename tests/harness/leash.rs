//! A process group that ends with the test that started it, however the test ends: servers have workers of their own.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, test_kill_process_group};

/// Longest time that killed processes are waited for, so that none of them writes into a folder that is being removed.
const LINGER_LIMIT: Duration = Duration::from_secs(5);

/// Starts its arguments, and ends everything in its process group once its standard input is closed.
const SCRIPT: &str = r#""$@" & cat >/dev/null; kill -KILL 0"#;

/// A running process group; it is killed when dropped.
#[derive(Debug)]
pub struct Leash(Child);

impl Leash {
    /// A command that will run `program` in a group of its own; arguments that are added are the program's.
    pub fn command(program: &impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "leash"])
            .arg(program)
            .process_group(0);
        command
    }

    /// Starts what [`Leash::command`] made.
    pub fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).spawn();
        Self(child.expect("a shell can be started"))
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        drop(self.0.stdin.take());
        // It fails when the child was reaped already, which is what is wanted.
        let _ = self.0.wait();
        let start = Instant::now();
        // A machine whose first process reaps nobody keeps the dead in the group: that is not worth a panic here.
        while group.is_some_and(|group| test_kill_process_group(group).is_ok())
            && start.elapsed() < LINGER_LIMIT
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
