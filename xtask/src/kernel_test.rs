//! The agent on other kernels: a virtual machine for each, one program of the tests in it, and one table of what came out.
//!
//! What is tested, and what must come out, is the program's business; this knows its lines and its exit code.

use std::env;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::arch::Arch;
use crate::tools::arm64::{self, Cross};
use crate::vm::initramfs::Initramfs;
use crate::vm::kernels::{self, Kernel};
use crate::vm::qemu;
use crate::vm::{self, Ended, Machine};
use crate::{build, privilege, progress, workspace};

/// The running kernel, as a series.
const HOST: &str = "host";
/// What is tested if nothing is named: on which rungs, all if none is given, the agent's own choice being one of them; and
/// with which preemption.
const DEFAULT: [(&str, &[&str], Option<&str>); 3] = [
    (HOST, &[], None),
    ("6.1", &["fentry", "kprobe", "syscall"], None),
    ("6.12", &["auto", "fentry"], Some("full")),
];
/// What is tested with `--all`.
const ALL: [&str; 6] = [HOST, "5.10", "6.1", "6.12", "6.18", "7.3"];
/// The rungs that stock kernels of a series have, so that losing one is a failure.
const RUNGS: [(&str, &[&str]); 5] = [
    ("5.10", &["kprobe", "syscall"]),
    ("6.1", &["fentry", "kprobe", "syscall"]),
    ("6.12", &["tracepoint", "fentry", "kprobe", "syscall"]),
    ("6.18", &["tracepoint", "fentry", "kprobe", "syscall"]),
    ("7.3", &["tracepoint", "fentry", "kprobe", "syscall"]),
];
/// The same for arm64.
const RUNGS_ARM64: [(&str, &[&str]); 1] =
    [("6.12", &["tracepoint", "fentry", "kprobe", "syscall"])];
/// What is tested of arm64 if nothing is named, and with `--all`.
const DEFAULT_ARM64: [&str; 1] = ["6.12"];
/// The series that has two processors unless told otherwise, for what only happens on several; one is quicker to emulate.
const PAIRED: &str = "6.12";
/// Longest time of one kernel.
const LIMIT: Duration = Duration::from_secs(900);
/// Boots of a kernel that ends before the program begins: some stumble over the emulation, once in a while.
const BOOTS: usize = 3;
/// Programs of the tests: the one that is run, and the server that it starts.
const GUEST: &str = "kernel-guest";
const SERVER: &str = "reference-server";
/// What the program's lines for the table begin with.
const ROW: &str = "row: ";
const HEAD: &str = "| kernel | rung | requests | counted | error of handler time, p50 / p99 | \
    error of queue time, p50 / p99 | records compared | outcome |\n|---|---|---|---|---|---|---|---|";
/// Names the agent's binary, in place of the release build.
const AGENT_ENV: &str = "INFERPROBE_BIN";
/// Names the rung that a suite's agents are held to.
const RUNG_ENV: &str = "INFERPROBE_TEST_RUNG";
/// Makes a suite fail that would skip itself.
const REQUIRE_ENV: &str = "INFERPROBE_REQUIRE_KERNEL";

/// What to test; by default, what a change must pass.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Series of Debian's kernels, such as 6.1, or `host` for the running one; host, 6.1 and 6.12 if none is named
    series: Vec<String>,
    /// Every series that is known to be there: host, 5.10, 6.1, 6.12, 6.18, 7.3
    #[arg(long, conflicts_with = "series")]
    all: bool,
    /// Architecture of the virtual machines
    #[arg(long, value_enum, default_value_t = Arch::Amd64)]
    arch: Arch,
    /// Only this rung of the ladder of hooks; may be repeated
    #[arg(long, value_name = "RUNG")]
    rung: Vec<String>,
    /// Instead of the matrix this suite of the tests, such as kernel_patterns, each agent held to `--rung` if that is given
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// Processors of the virtual machines [default: 1, and 2 for 6.12]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    smp: Option<u32>,
    /// Model of preemption that the machines' kernels are told
    #[arg(long, value_name = "MODEL", value_parser = ["none", "voluntary", "full", "lazy"])]
    preempt: Option<String>,
}

/// A kernel, and what is tested on it.
struct Case {
    series: String,
    /// All of them if none is named.
    rungs: Vec<String>,
    preempt: Option<String>,
}

impl Options {
    fn cases(&self) -> Vec<Case> {
        let of = |series: &[&str]| {
            let all = series.iter().map(|&series| Case {
                series: series.to_owned(),
                rungs: self.rung.clone(),
                preempt: self.preempt.clone(),
            });
            all.collect()
        };
        match (self.arch, self.series.as_slice()) {
            (Arch::Arm64, []) => of(&DEFAULT_ARM64),
            (Arch::Amd64, []) if self.all => of(&ALL),
            (Arch::Amd64, []) => {
                let given = |(series, rungs, preempt): (&str, &[&str], Option<&str>)| Case {
                    series: series.to_owned(),
                    rungs: match self.rung.as_slice() {
                        [] => rungs.iter().map(|&rung| rung.to_owned()).collect(),
                        named => named.to_vec(),
                    },
                    preempt: self.preempt.clone().or(preempt.map(str::to_owned)),
                };
                DEFAULT.into_iter().map(given).collect()
            }
            (_, named) => of(&named.iter().map(String::as_str).collect::<Vec<_>>()),
        }
    }
}

/// The programs that are run on each kernel.
struct Programs {
    agent: PathBuf,
    /// The one that is run, and what it is called.
    guest: PathBuf,
    name: String,
    server: PathBuf,
}

/// What came of a kernel.
enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// The table, and what failed.
#[derive(Default)]
struct Report {
    rows: Vec<String>,
    failed: Vec<String>,
}

/// Tests the kernels, prints the table, and fails if one has failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let arch = options.arch;
    let programs = build(options)?;
    let lack = vm::lack(arch);
    let mut report = Report::default();
    for case in options.cases() {
        let name = case.series.as_str();
        let outcome = if name == HOST {
            on_host(options, &case, &programs, &mut report)?
        } else if let Some(lack) = &lack {
            Outcome::Skipped(format!("no virtual machines: {lack}"))
        } else {
            match kernels::fetch(name, arch) {
                Ok(kernel) => in_machine(options, &case, &kernel, &programs, &mut report)?,
                Err(err) => Outcome::Skipped(format!("cannot be fetched: {err:#}")),
            }
        };
        match outcome {
            Outcome::Passed => {}
            Outcome::Failed => report.failed.push(name.to_owned()),
            Outcome::Skipped(why) => report.add(name, &format!("skipped: {why}")),
        }
    }
    println!("{HEAD}\n{}", report.rows.join("\n"));
    if !report.failed.is_empty() {
        bail!("failed on: {}", report.failed.join(", "));
    }
    Ok(())
}

impl Report {
    /// Adds a row; one without the program's columns has its text under the outcome.
    fn add(&mut self, kernel: &str, row: &str) {
        let row = if row.contains('|') {
            row.to_owned()
        } else {
            format!("– | – | – | – | – | – | {row}")
        };
        self.rows.push(format!("| {kernel} | {row} |"));
    }
}

fn build(options: &Options) -> Result<Programs> {
    let arch = options.arch;
    let agent = match env::var_os(AGENT_ENV) {
        Some(path) => path.into(),
        None => build::agent_for(arch)?,
    };
    let dir = match arch {
        Arch::Amd64 => workspace::target_dir().join("debug"),
        Arch::Arm64 => arm64::folder_of("debug"),
    };
    progress::step(
        "build what is run on each kernel",
        cargo(arch, "build")?.args([
            "--package",
            "inferprobe-tests",
            "--bin",
            GUEST,
            "--bin",
            SERVER,
        ]),
    )?;
    let (guest, name) = match &options.suite {
        Some(suite) => (build_suite(suite, arch)?, suite.clone()),
        None => (dir.join(GUEST), GUEST.to_owned()),
    };
    Ok(Programs {
        agent,
        guest,
        name,
        server: dir.join(SERVER),
    })
}

/// cargo, building for `arch`.
fn cargo(arch: Arch, subcommand: &str) -> Result<Command> {
    Ok(match arch {
        Arch::Amd64 => workspace::cargo(subcommand),
        Arch::Arm64 => Cross::ensure()?.cargo(subcommand),
    })
}

/// Builds a suite of the tests; where it lies.
fn build_suite(suite: &str, arch: Arch) -> Result<PathBuf> {
    let mut command = cargo(arch, "test")?;
    command.args(["--package", "inferprobe-tests", "--no-run", "--test", suite]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("start cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let path = said.lines().find_map(executable);
    match path {
        Some(path) if output.status.success() => Ok(workspace::root().join(path)),
        _ => bail!("{said}"),
    }
}

/// Reads `Executable tests/NAME.rs (PATH)`.
fn executable(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("Executable ")?;
    rest.split_once('(')?.1.strip_suffix(')')
}

/// What a program is told: as arguments, and by its environment.
struct Told {
    args: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Told {
    fn of(options: &Options, case: &Case) -> Self {
        if options.suite.is_some() {
            let rung = options.rung.first();
            let rung = rung.filter(|rung| *rung != "auto").cloned();
            let required = (REQUIRE_ENV, "1".to_owned());
            return Self {
                args: vec!["--test-threads=1".to_owned()],
                variables: rung
                    .map(|rung| (RUNG_ENV, rung))
                    .into_iter()
                    .chain([required])
                    .collect(),
            };
        }
        let mut args = Vec::new();
        for rung in &case.rungs {
            args.extend(["--rung".to_owned(), rung.clone()]);
        }
        let rungs = match options.arch {
            Arch::Amd64 => &RUNGS[..],
            Arch::Arm64 => &RUNGS_ARM64,
        };
        let known = rungs.iter().find(|(name, _)| *name == case.series);
        for rung in known.map_or(&[][..], |(_, rungs)| rungs) {
            args.extend(["--must".to_owned(), (*rung).to_owned()]);
        }
        Self {
            args,
            variables: Vec::new(),
        }
    }
}

fn on_host(
    options: &Options,
    case: &Case,
    programs: &Programs,
    report: &mut Report,
) -> Result<Outcome> {
    if Arch::own() != Some(options.arch) {
        return Ok(Outcome::Skipped("is of another architecture".to_owned()));
    }
    if !privilege::is_root() {
        return Ok(Outcome::Skipped("needs root".to_owned()));
    }
    eprintln!("==> test on this machine's kernel");
    let start = Instant::now();
    let told = Told::of(options, case);
    let output = Command::new(&programs.guest)
        .args(told.args)
        .envs(told.variables)
        .env(AGENT_ENV, &programs.agent)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {}", programs.guest.display()))?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = format!("{} (host)", release.trim());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        take_in(line, &kernel, report);
    }
    eprintln!("==> host: {:.1} s", start.elapsed().as_secs_f64());
    Ok(ended(options, &kernel, output.status.success(), report))
}

/// What a program's exit code says; a suite has no rows of its own.
fn ended(options: &Options, kernel: &str, well: bool, report: &mut Report) -> Outcome {
    let outcome = if well { "passed" } else { "**failed**" };
    if let Some(suite) = &options.suite {
        let rung = options.rung.first().map_or("auto", String::as_str);
        let row = format!("{rung} | – | – | – | – | – | {suite} {outcome}");
        report.add(kernel, &row);
    }
    if well {
        Outcome::Passed
    } else {
        Outcome::Failed
    }
}

fn in_machine(
    options: &Options,
    case: &Case,
    kernel: &Kernel,
    programs: &Programs,
    report: &mut Report,
) -> Result<Outcome> {
    let series = &case.series;
    let cpus = options.smp.unwrap_or(if series == PAIRED { 2 } else { 1 });
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
    let told = Told::of(options, case);
    pack(&initramfs, dir.path(), programs, options.arch, &told)?;
    let machine = Machine {
        arch: options.arch,
        image: &kernel.image,
        initramfs: &initramfs,
        kernel_args: &kernel_args,
        cpus,
        limit: LIMIT,
    };
    let mut how = None;
    for _ in 0..BOOTS {
        let mut began = false;
        let ended = machine.run(dir.path(), |line| {
            began = true;
            take_in(line, name, report);
        })?;
        if let Ended::Early { why, console } = &ended {
            eprintln!("{console}\n==> Linux {name}: {why}");
        }
        let again = !began && matches!(ended, Ended::Early { .. });
        how = Some(ended);
        if !again {
            break;
        }
    }
    eprintln!("==> Linux {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(match how.expect("it was booted") {
        Ended::Program(code) => ended(options, name, code == 0, report),
        Ended::Early { why, .. } => {
            report.add(name, &format!("**failed**: {why}"));
            Outcome::Failed
        }
    })
}

/// Shows a line of the program, and keeps it if it is one for the table.
fn take_in(line: &str, kernel: &str, report: &mut Report) {
    eprintln!("    {line}");
    if let Some(row) = line.strip_prefix(ROW) {
        report.add(kernel, row);
    }
}

/// Writes what the machine starts from.
fn pack(to: &Path, scratch: &Path, programs: &Programs, arch: Arch, told: &Told) -> Result<()> {
    let mut initramfs = Initramfs::default();
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        initramfs.folder(folder);
    }
    initramfs.file("init", include_str!("../guest/init"));
    let (busybox, strip) = match arch {
        Arch::Amd64 => (qemu::find("busybox", arch)?.path, "strip"),
        Arch::Arm64 => (kernels::busybox(arch)?, arm64::STRIP),
    };
    initramfs.program("bin/busybox", &busybox)?;
    if arch == Arch::Arm64 {
        // What foreign programs are linked with is not listed here.
        for (name, path) in arm64::c_libraries() {
            let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            initramfs.file(&format!("lib/{name}"), content);
        }
    }
    for (name, path) in [
        ("inferprobe", &programs.agent),
        (&programs.name, &programs.guest),
        (SERVER, &programs.server),
    ] {
        let stripped = scratch.join(name);
        progress::check(
            Command::new(strip)
                .arg("--strip-debug")
                .arg("-o")
                .arg(&stripped)
                .arg(path),
        )?;
        initramfs.program(&format!("guest/{name}"), &stripped)?;
    }
    let mut command = format!("export {AGENT_ENV}=/guest/inferprobe\n");
    for (name, value) in &told.variables {
        command.push_str(&format!("export {name}={value}\n"));
    }
    let args = told.args.join(" ");
    command.push_str(&format!("exec /guest/{} {args}\n", programs.name));
    initramfs.file("guest/command", command);
    let file = File::create(to).with_context(|| format!("create {}", to.display()))?;
    initramfs
        .write(&mut BufWriter::new(file))
        .with_context(|| format!("write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_lies_where_cargo_says() {
        let line = "  Executable tests/kernel_unix.rs (target/debug/deps/kernel_unix-12ab)";
        assert_eq!(executable(line), Some("target/debug/deps/kernel_unix-12ab"));
        assert_eq!(executable("   Compiling a v0.1.0 (/a)"), None);
    }

    #[test]
    fn a_row_is_kept_and_all_else_is_only_shown() {
        let mut report = Report::default();
        take_in("hello", "6.1", &mut report);
        take_in("row: auto | 1 | 1 | 2 | 3 | 4 | equal", "6.1", &mut report);
        report.add("7.9", "skipped: no such kernel");
        assert_eq!(
            report.rows,
            [
                "| 6.1 | auto | 1 | 1 | 2 | 3 | 4 | equal |",
                "| 7.9 | – | – | – | – | – | – | skipped: no such kernel |"
            ]
        );
    }
}
