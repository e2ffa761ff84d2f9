//! Fuzzing: building the targets of `tests/fuzz` so that libFuzzer sees the ways they take, and running them in turn.
//!
//! Takes no nightly compiler: without sanitizers, which Rust's own checks stand in for, stable has all that is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tools::toolchain::SKIP_ENV;
use crate::{progress, workspace};

/// The package of the targets, and where its inputs lie.
const PACKAGE: &str = "inferprobe-fuzz";
const CORPORA: &str = "tests/fuzz/corpus";
/// What libFuzzer wants in the code: a counter and a table entry for each edge, and a call for each comparison.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Longest input that is made up, bytes: several messages of any protocol.
const INPUT_CAP_BYTES: u32 = 4096;
/// Longest time that one input may take, seconds, and most memory that a target may, MiB.
const INPUT_LIMIT_S: u32 = 10;
const MEMORY_CAP_MIB: u32 = 1024;

/// Runs each of `targets`, all of them if none is named, for `seconds`; a crash is an error.
pub(crate) fn run(seconds: u32, targets: &[String]) -> Result<()> {
    let known = known_targets()?;
    if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
        bail!("no fuzz target {unknown}; there are {}", known.join(", "));
    }
    let programs = build()?;
    let wanted = if targets.is_empty() { &known } else { targets };
    for target in wanted {
        fuzz(&programs, target, seconds)?;
    }
    Ok(())
}

/// Names of the targets: those of their corpora.
fn known_targets() -> Result<Vec<String>> {
    let corpora = workspace::root().join(CORPORA);
    let entries = fs::read_dir(&corpora).with_context(|| format!("read {}", corpora.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Builds the targets; the path is that of the folder they lie in.
fn build() -> Result<PathBuf> {
    let host = host()?;
    // With a target of its own, the flags do not reach build scripts, which have no fuzzer.
    let features = [
        "--features",
        "libfuzzer",
        "--profile",
        "fuzz",
        "--target",
        &host,
    ];
    progress::step(
        "build the fuzz targets",
        workspace::cargo("build")
            .args(["--package", PACKAGE, "--bins"])
            .args(features)
            .env("RUSTFLAGS", RUSTFLAGS)
            // The parsers need no eBPF programs, so that fuzzing needs no toolchain for them.
            .env(SKIP_ENV, "1"),
    )?;
    Ok(workspace::target_dir().join(host).join("fuzz"))
}

/// The compiler's own target.
fn host() -> Result<String> {
    let (text, _) = progress::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Runs a target; what it finds goes to the folder of build output.
fn fuzz(programs: &Path, target: &str, seconds: u32) -> Result<()> {
    let found = workspace::target_dir().join("fuzz").join(target);
    let (inputs, crashes) = (found.join("inputs"), found.join("crashes"));
    for folder in [&inputs, &crashes] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let mut command = Command::new(programs.join(target));
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_CAP_BYTES}"))
        .arg(format!("-timeout={INPUT_LIMIT_S}"))
        .arg(format!("-rss_limit_mb={MEMORY_CAP_MIB}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .arg(&inputs)
        .arg(workspace::root().join(CORPORA).join(target));
    let outcome = progress::step(&format!("fuzz {target}"), &mut command);
    ensure!(
        outcome.is_ok(),
        "{target} fell over an input; run {} with the newest file of {} to see where",
        programs.join(target).display(),
        crashes.display()
    );
    Ok(())
}
