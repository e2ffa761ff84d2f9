//! `cargo test` with what the tests need in place, a second try of what other tenants of the machine disturbed, and a
//! list of what was skipped.
//!
//! A test that compares clocks, or that runs against a server's pace, means nothing while the hypervisor stops the
//! machine for long moments. On an undisturbed machine a failure is final.

pub(crate) mod needs;
pub(crate) mod targets;

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use procfs::{CpuTime, CurrentSI as _, KernelStats};

use crate::leftovers::Leftovers;
use crate::tools::toolchain::SKIP_ENV;
use crate::{privilege, progress, workspace};
use needs::Need;

/// Set to `1`, makes a test fail that would skip itself because it lacks the kernel.
pub(crate) const REQUIRE_KERNEL_ENV: &str = "INFERPROBE_REQUIRE_KERNEL";
/// Share of the CPU time that other tenants must have taken for a second try.
const DISTURBING_SHARE: f64 = 0.05;
/// Most failed targets that are tried again: more did not fail by chance.
const TARGETS_CAP: usize = 4;

/// The words of one `cargo test`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// What selects packages and targets.
    pub(crate) targets: Vec<OsString>,
    /// Other options of cargo.
    pub(crate) options: Vec<OsString>,
    /// What cargo passes on to the tests' programs: filters of names, and options.
    pub(crate) passed_on: Vec<OsString>,
}

/// A run of tests whose needs are in place.
pub(crate) struct CargoTest {
    environment: Vec<(&'static str, OsString)>,
    pub(crate) leftovers: Leftovers,
}

impl Words {
    /// Returns these words for other targets.
    fn with_targets(&self, targets: &str) -> Self {
        Self {
            targets: targets.split_whitespace().map(Into::into).collect(),
            ..self.clone()
        }
    }

    fn in_order(&self) -> Vec<OsString> {
        let own = [&self.targets[..], &self.options].concat();
        match self.passed_on.as_slice() {
            [] => own,
            words => [&own[..], &["--".into()], words].concat(),
        }
    }
}

impl CargoTest {
    /// Builds and fetches what is missing of `needs`.
    pub(crate) fn prepare(needs: &BTreeSet<Need>) -> Result<Self> {
        let mut environment = Vec::new();
        for need in needs {
            environment.push((need.variable(), need.ensure()?.into_os_string()));
        }
        if env::var_os(REQUIRE_KERNEL_ENV).is_none()
            && (privilege::is_root() || env::var_os("CI").is_some())
        {
            environment.push((REQUIRE_KERNEL_ENV, "1".into()));
        }
        let leftovers = Leftovers::expect();
        leftovers.clear_skips()?;
        environment.extend(leftovers.environment());
        Ok(Self {
            environment,
            leftovers,
        })
    }

    /// Returns the `cargo test` of `words`.
    pub(crate) fn command(&self, words: &Words) -> Command {
        let mut command = workspace::cargo("test");
        command
            .args(words.in_order())
            // Tests start the release binary, and load no programs themselves.
            .env(SKIP_ENV, "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs each `cargo test` of `runs`, also after one has failed; prints where the artifacts of failed tests are.
    pub(crate) fn run(&self, runs: &[Words]) -> Result<()> {
        let mut failures = Vec::new();
        for words in runs {
            failures.extend(self.run_one(words)?);
        }
        self.leftovers.report_artifacts();
        if !failures.is_empty() {
            bail!("{}", failures.join("; "));
        }
        Ok(())
    }

    /// Runs one `cargo test`, disturbed targets twice; returns the message of a failure.
    fn run_one(&self, words: &Words) -> Result<Option<String>> {
        let before = cpu_time();
        let mut command = self.command(words);
        let Err(failure) = progress::step_and("test", &mut command, run_and_note)? else {
            return Ok(None);
        };
        let stolen = before.zip(cpu_time()).map(|(then, now)| share(&then, &now));
        let disturbed = stolen.is_some_and(|share| share > DISTURBING_SHARE);
        if !disturbed || failure.targets.is_empty() || failure.targets.len() > TARGETS_CAP {
            return Ok(Some(failure.message));
        }
        eprintln!(
            "==> other tenants took {:.0} % of the CPUs: each failed target is tried once more",
            stolen.unwrap_or_default() * 100.0
        );
        for target in failure.targets {
            let mut command = self.command(&words.with_targets(&target));
            if let Err(failure) = progress::step_and("test once more", &mut command, run_and_note)?
            {
                return Ok(Some(failure.message));
            }
            eprintln!("==> `{target}` failed, then passed");
        }
        Ok(None)
    }
}

/// A run of `cargo test` that failed.
struct Failure {
    message: String,
    /// What selects each failed target, in cargo's words: `-p package --test name`.
    targets: Vec<String>,
}

/// Runs `command` with its output shown, and notes which targets cargo lists as failed.
fn run_and_note(command: &mut Command) -> Result<Result<(), Failure>> {
    let shown = progress::shown(command);
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let stderr = child.stderr.take().expect("it is piped");
    let mut targets = Vec::new();
    for line in BufReader::new(stderr).lines() {
        let line = line.context("read cargo's messages")?;
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

/// Returns the machine's CPU time since its boot; `None` if procfs does not have it.
fn cpu_time() -> Option<CpuTime> {
    Some(KernelStats::current().ok()?.total)
}

/// Returns the share of the CPU time between two readings that a hypervisor took, 0 to 1.
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
    fn failed_targets_are_read_from_cargos_list() {
        let output = "test result: FAILED.\n\
                      error: 2 targets failed:\n    `-p inferprobe-tests --test kernel`\n    `-p xtask --bin xtask`\n\
                      error: `cargo test` ended";
        let targets: Vec<String> = output.lines().filter_map(failed_target).collect();
        assert_eq!(
            targets,
            ["-p inferprobe-tests --test kernel", "-p xtask --bin xtask"]
        );
    }

    #[test]
    fn a_failure_names_its_target_and_a_success_none() {
        let script = "echo '    `-p a --test b`' >&2; exit 1";
        let ran = run_and_note(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(ran.err().unwrap().targets, ["-p a --test b"]);
        assert!(run_and_note(&mut Command::new("true")).unwrap().is_ok());
    }

    #[test]
    fn words_for_the_programs_are_behind_two_hyphens() {
        let words = Words {
            targets: vec!["--lib".into()],
            options: vec!["--quiet".into()],
            passed_on: vec!["name".into(), "--nocapture".into()],
        };
        let shown = |words: &Words| words.in_order().join(" ".as_ref());
        assert_eq!(shown(&words), "--lib --quiet -- name --nocapture");
        let again = words.with_targets("-p a --test b");
        assert_eq!(shown(&again), "-p a --test b --quiet -- name --nocapture");
        assert_eq!(shown(&Words::default()), "");
    }
}
