//! Runs the agent on other kernels: a virtual machine for each, one program of the tests in it, and a table of results.
//!
//! Does not depend on: what the program tests. It reads the program's lines and its exit code.

mod cases;
mod costs;
mod programs;
mod report;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::arch::Arch;
use crate::build::AGENT_ENV;
use crate::leftovers::Leftovers;
use crate::privilege;
use crate::vm::kernels::{self, Kernel};
use crate::vm::{self, Clock, Ended, Machine, modules};
use cases::Case;
pub(crate) use cases::Options;
use costs::Counted;
use programs::Programs;
use report::{Artifacts, Report};

/// Longest time of one kernel, and of each repetition.
const LIMIT: Duration = Duration::from_secs(900);
/// Boots of a kernel that ends before the program begins: some fail under emulation, once in a while.
const BOOTS: usize = 3;

/// The result of one kernel.
enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// One run of the command.
struct Run<'a> {
    options: &'a Options,
    programs: Programs,
    leftovers: Leftovers,
    report: Report,
    counted: Counted,
}

/// Tests the kernels, prints the table, and fails if a kernel has failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut run = Run {
        options,
        programs: Programs::build(options)?,
        leftovers: Leftovers::expect(),
        report: Report::default(),
        counted: Counted::default(),
    };
    let lack = vm::lack(options.arch);
    for case in options.cases() {
        let name = case.series.as_str();
        let outcome = if case.is_host() {
            run.on_host(&case)?
        } else if let Some(lack) = &lack {
            Outcome::Skipped(format!("no virtual machines: {lack}"))
        } else {
            match kernels::fetch(name, options.arch) {
                Ok(kernel) => run.in_machine(&case, &kernel)?,
                Err(err) => Outcome::Skipped(format!("cannot be fetched: {err:#}")),
            }
        };
        match outcome {
            Outcome::Passed => {}
            Outcome::Failed => run.report.failed.push(name.to_owned()),
            Outcome::Skipped(why) => run.report.add(name, &format!("skipped: {why}")),
        }
    }
    println!("{}", run.report.table());
    run.leftovers.report_artifacts();
    let counted = run.counted.judge();
    if !run.report.failed.is_empty() {
        bail!("failed on: {}", run.report.failed.join(", "));
    }
    counted
}

impl Run<'_> {
    fn on_host(&mut self, case: &Case) -> Result<Outcome> {
        if Arch::own() != Some(self.options.arch) {
            return Ok(Outcome::Skipped("is of another architecture".to_owned()));
        }
        if !privilege::is_root() {
            return Ok(Outcome::Skipped("needs root".to_owned()));
        }
        eprintln!("==> test on this machine's kernel");
        let start = Instant::now();
        let programs = &self.programs;
        let invocation = self.options.invocation(case, programs.filter.as_deref());
        let output = Command::new(&programs.guest)
            .args(invocation.args)
            .envs(invocation.variables)
            .envs(self.leftovers.environment())
            .env(AGENT_ENV, &programs.agent)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("start {}", programs.guest.display()))?;
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = format!("{} (host)", release.trim());
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            self.report
                .on_line(line, &kernel, &mut Artifacts::default());
        }
        eprintln!("==> host: {:.1} s", start.elapsed().as_secs_f64());
        Ok(self.ended(&kernel, output.status.success()))
    }

    fn in_machine(&mut self, case: &Case, kernel: &Kernel) -> Result<Outcome> {
        let options = self.options;
        let cpus = case.cpus;
        let preempt = case.preempt.as_ref();
        let kernel_args = preempt
            .map(|model| format!("preempt={model}"))
            .unwrap_or_default();
        let name = format!("{} {kernel_args}", kernel.release);
        let name = name.trim_end();
        eprintln!("==> test on Linux {name}, CPUs: {cpus}");
        let start = Instant::now();
        let dir = tempfile::tempdir().context("create a folder for the virtual machine")?;
        let initramfs = dir.path().join("initramfs");
        let mut invocation = options.invocation(case, self.programs.filter.as_deref());
        if options.suite.is_none() && modules::have_tls(&kernel.modules) {
            invocation.args.push("--must-encrypt".to_owned());
        }
        let (arch, modules) = (options.arch, &kernel.modules);
        self.programs
            .pack(&initramfs, dir.path(), arch, modules, &invocation)?;
        let machine = Machine {
            arch: options.arch,
            image: &kernel.image,
            initramfs: &initramfs,
            kernel_args: &kernel_args,
            clock: Clock::Instructions,
            cpus,
            memory_mib: vm::MEMORY_MIB,
            limit: LIMIT * options.repeat.unwrap_or(1),
        };
        let mut artifacts = Artifacts::default();
        let mut boots = 1;
        let ended = loop {
            let (mut began, mut read) = (false, Ok(()));
            let ended = machine.run(dir.path(), |line| {
                began = true;
                self.report.on_line(line, name, &mut artifacts);
                if let Err(err) = self.counted.on_line(line, &kernel.release, case) {
                    read = Err(err);
                }
            })?;
            read?;
            if let Ended::Early { why, console } = &ended {
                eprintln!("{console}\n==> Linux {name}: {why}");
            }
            let again = !began && matches!(ended, Ended::Early { .. });
            if !again || boots == BOOTS {
                break ended;
            }
            boots += 1;
        };
        eprintln!("==> Linux {name}: {:.1} s", start.elapsed().as_secs_f64());
        artifacts.unpack(dir.path(), &self.leftovers.of_guest(&kernel.release))?;
        Ok(match ended {
            Ended::Program(code) => self.ended(name, code == 0),
            Ended::Early { why, .. } => {
                self.report.add(name, &format!("**failed**: {why}"));
                Outcome::Failed
            }
        })
    }

    /// Returns the result of a program that `passed` or not.
    fn ended(&mut self, kernel: &str, passed: bool) -> Outcome {
        if let Some(suite) = &self.options.suite {
            let outcome = if passed { "passed" } else { "**failed**" };
            let mode = self.options.suite_mode();
            self.report
                .add_suite(kernel, mode, &format!("{suite} {outcome}"));
        }
        if passed {
            Outcome::Passed
        } else {
            Outcome::Failed
        }
    }
}
