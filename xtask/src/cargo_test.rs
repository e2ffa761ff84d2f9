//! `cargo test`, and a second try of what failed while other tenants had this machine's CPUs.
//!
//! A test that compares clocks, or that plays against a server's pace, says nothing where the hypervisor stops the
//! machine for long moments. On a machine that was left alone, a failure is final.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use procfs::{CpuTime, CurrentSI as _, KernelStats};

use crate::tools::{prometheus, python_servers, torchserve};
use crate::{build, privilege, progress, workspace};

/// Set to `1`, makes a test fail that would skip itself for want of the kernel.
const REQUIRE_KERNEL_ENV: &str = "INFERPROBE_REQUIRE_KERNEL";

/// Share of the CPU time that must have been taken away for a second try.
const DISTURBING_SHARE: f64 = 0.05;
/// Targets that are tried again at most: more did not fail by chance.
const TARGETS_CAP: usize = 4;

/// Runs `cargo test` with `selection` and `test_args`.
pub(crate) fn run(selection: &[OsString], test_args: &[OsString]) -> Result<()> {
    let before = cpu_time();
    let mut first = command(&[selection, test_args].concat())?;
    let Err(failure) = progress::step_and("test", &mut first, run_and_note)? else {
        return Ok(());
    };
    let stolen = before.zip(cpu_time()).map(|(then, now)| share(&then, &now));
    let disturbed = stolen.is_some_and(|share| share > DISTURBING_SHARE);
    if !disturbed || failure.targets.is_empty() || failure.targets.len() > TARGETS_CAP {
        bail!("{}", failure.message);
    }
    eprintln!(
        "==> other tenants took {:.0} % of the CPUs: each failed target is tried once more",
        stolen.unwrap_or_default() * 100.0
    );
    for target in failure.targets {
        let words: Vec<OsString> = target.split_whitespace().map(Into::into).collect();
        let mut again = command(&[&words, test_args].concat())?;
        progress::step("test once more", &mut again)?;
        eprintln!("==> `{target}` failed, then passed");
    }
    Ok(())
}

/// `cargo test` with `args`, and all that the tests need in place: the release binary where one starts the agent.
pub(crate) fn command(args: &[OsString]) -> Result<Command> {
    let binary = build::agent()?;
    let prometheus_dir = prometheus::ensure()?;
    let torchserve_dir = torchserve::ensure()?;
    let servers_dir = python_servers::ensure()?;
    let mut command = workspace::cargo("test");
    command
        .args(args)
        .env("INFERPROBE_BIN", binary)
        .env("INFERPROBE_PROMETHEUS_DIR", prometheus_dir)
        .env("INFERPROBE_TORCHSERVE_DIR", torchserve_dir)
        .env("INFERPROBE_SERVERS_DIR", servers_dir);
    if env::var_os(REQUIRE_KERNEL_ENV).is_none()
        && (privilege::is_root() || env::var_os("CI").is_some())
    {
        command.env(REQUIRE_KERNEL_ENV, "1");
    }
    Ok(command)
}

/// A run of `cargo test` that did not succeed.
struct Failure {
    message: String,
    /// What selects each failed target, as cargo says it: `-p package --test name`.
    targets: Vec<String>,
}

/// Runs `command` with its output shown, and notes which targets cargo says have failed.
fn run_and_note(command: &mut Command) -> Result<Result<(), Failure>> {
    let shown = progress::shown(command);
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let stderr = child.stderr.take().expect("it is piped");
    let mut targets = Vec::new();
    for line in BufReader::new(stderr).lines() {
        let line = line.context("read what cargo says")?;
        eprintln!("{line}");
        targets.extend(failed_target(&line));
    }
    let status = child
        .wait()
        .with_context(|| format!("wait for `{shown}`"))?;
    Ok(if status.success() {
        Ok(())
    } else {
        Err(Failure {
            message: format!("`{shown}` ended with {status}"),
            targets,
        })
    })
}

/// Reads a line of cargo's list of failed targets.
fn failed_target(line: &str) -> Option<String> {
    let target = line.strip_prefix("    `")?.strip_suffix('`')?;
    target.starts_with("-p ").then(|| target.to_owned())
}

/// CPU time of the machine since its boot; `None` where procfs does not tell.
fn cpu_time() -> Option<CpuTime> {
    Some(KernelStats::current().ok()?.total)
}

/// Share of the CPU time between two readings that a hypervisor took, 0 to 1.
fn share(then: &CpuTime, now: &CpuTime) -> f64 {
    let total = |time: &CpuTime| {
        let used = time.user + time.nice + time.system + time.idle;
        let waited = [time.iowait, time.irq, time.softirq, time.steal];
        used + waited.into_iter().flatten().sum::<u64>()
    };
    let passed = total(now).saturating_sub(total(then));
    let stolen = now
        .steal
        .unwrap_or(0)
        .saturating_sub(then.steal.unwrap_or(0));
    stolen as f64 / passed.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failed_targets_are_read_from_what_cargo_says() {
        let said = "test result: FAILED.\n\
                    error: 2 targets failed:\n    `-p inferprobe-tests --test kernel_unix`\n    `-p xtask --bin xtask`\n\
                    error: `cargo test` ended";
        let targets: Vec<String> = said.lines().filter_map(failed_target).collect();
        assert_eq!(
            targets,
            [
                "-p inferprobe-tests --test kernel_unix",
                "-p xtask --bin xtask"
            ]
        );
    }

    #[test]
    fn a_failure_names_its_target_and_a_success_none() {
        let script = "echo '    `-p a --test b`' >&2; exit 1";
        let ran = run_and_note(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(ran.err().unwrap().targets, ["-p a --test b"]);
        assert!(run_and_note(&mut Command::new("true")).unwrap().is_ok());
    }
}
