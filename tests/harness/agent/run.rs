//! Runs the agent until it ends by itself, and returns its output.
//!
//! For an agent that serves, see [`Agent`](crate::agent::Agent).

use std::{
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{agent::launcher::Launcher, process::Owned, unprivileged::Unprivileged};

/// Exit code and output of an agent that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the agent with `args` until it ends by itself, for at most ten seconds.
pub fn run_to_end(args: &[&str]) -> Ended {
    run_to_end_by(Launcher::agent(), args)
}

/// As [`run_to_end`], without any privilege: as the user `nobody`, if this is root.
pub fn run_unprivileged_to_end(args: &[&str]) -> Ended {
    if !rustix::process::geteuid().is_root() {
        return run_to_end(args);
    }
    run_to_end_by(Unprivileged::with(&[]).command(), args)
}

/// As [`run_to_end`], through a program that runs it differently, such as `setpriv`.
pub fn run_through_to_end(through: &[&str], args: &[&str]) -> Ended {
    let (program, options) = through.split_first().expect("a program to run it through");
    // The user that the program switches to must be able to read it.
    let copy = Unprivileged::with(&[]);
    let mut command = Command::new(program);
    command.args(options).arg(copy.path());
    run_to_end_by(command, args)
}

/// As [`run_to_end`], by `launcher`.
pub fn run_to_end_by(launcher: impl Into<Launcher>, args: &[&str]) -> Ended {
    let mut launcher = launcher.into();
    let folder = tempfile::tempdir().expect("a folder for the agent's output");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    launcher
        .command()
        .args(args)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("a file for its output"))
        .stderr(File::create(&err).expect("a file for its errors"));
    let status = Owned(launcher.spawn()).wait(Duration::from_secs(10));
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("the agent writes UTF-8");
    let stderr = read(err);
    let status = status.unwrap_or_else(|| panic!("{args:?} did not end by itself: {stderr}"));
    Ended {
        code: status.code(),
        stdout: read(out),
        stderr,
    }
}
