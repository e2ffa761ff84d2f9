//! Runs commands and shows progress: a line when something slow starts, and its time when it ends.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Runs `command` with its output shown; a line before it says what it is for, a line after it how long it took.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    step_and(what, command, check)
}

/// Does the same as [`step`], but calls `run` to run the command.
pub(crate) fn step_and<T>(
    what: &str,
    command: &mut Command,
    run: impl FnOnce(&mut Command) -> Result<T>,
) -> Result<T> {
    eprintln!("==> {what}: {}", shown(command));
    let start = Instant::now();
    let outcome = run(command)?;
    eprintln!("==> {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(outcome)
}

/// Runs `command` with its output shown; anything but success is an error.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| start_of(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Returns the standard output of `command`, and whether it succeeded.
pub(crate) fn output(command: &mut Command) -> Result<(String, bool)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| start_of(command))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((text, output.status.success()))
}

/// Returns `command` as a user would type it: the program without its folder, and the arguments.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    std::iter::once(program.file_name().unwrap_or(program.as_os_str()))
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn start_of(command: &Command) -> String {
    format!("start `{}`", shown(command))
}
