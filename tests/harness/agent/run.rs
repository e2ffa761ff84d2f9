//! Runs the agent until it ends by itself, and returns its output.
//!
//! For an agent that serves, see [`Agent`](crate::agent::Agent).

use std::{
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{agent::launcher::agent_binary, process::Owned, unprivileged::Unprivileged};

/// What a run of the agent that ended by itself left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the agent with `args` until it ends by itself, at most ten seconds long.
pub fn run_to_end(args: &[&str]) -> Ended {
    end_of(Command::new(agent_binary()), args)
}

/// As [`run_to_end`], without any privilege: as nobody, if this is root.
pub fn run_unprivileged_to_end(args: &[&str]) -> Ended {
    if !rustix::process::geteuid().is_root() {
        return run_to_end(args);
    }
    end_of(Unprivileged::with(&[]).command(), args)
}

/// As [`run_to_end`], through a program that runs it differently, such as `setpriv`.
pub fn run_through_to_end(through: &[&str], args: &[&str]) -> Ended {
    let (program, options) = through.split_first().expect("a program to run it through");
    // Whoever it is run as must be able to reach it.
    let copy = Unprivileged::with(&[]);
    let mut command = Command::new(program);
    command.args(options).arg(copy.path());
    end_of(command, args)
}

/// As [`run_to_end`], by `launcher`, to whose words `args` are added.
pub fn run_to_end_by(launcher: Command, args: &[&str]) -> Ended {
    end_of(launcher, args)
}

/// As [`run_to_end`], with no tracefs mounted. Needs root.
pub fn run_without_tracefs_to_end(args: &[&str]) -> Ended {
    const SCRIPT: &str = r#"umount -a -t tracefs,debugfs && exec "$0" "$@""#;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", SCRIPT])
        .arg(agent_binary());
    end_of(command, args)
}

fn end_of(mut command: Command, args: &[&str]) -> Ended {
    let folder = tempfile::tempdir().expect("a folder for the agent's output");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let child = command
        .args(args)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("a file for its output"))
        .stderr(File::create(&err).expect("a file for its errors"))
        .spawn()
        .expect("the agent can be started");
    let status = Owned(child).wait(Duration::from_secs(10));
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("the agent writes UTF-8");
    let stderr = read(err);
    let status = status.unwrap_or_else(|| panic!("{args:?} did not end by itself: {stderr}"));
    Ended {
        code: status.code(),
        stdout: read(out),
        stderr,
    }
}
