//! Builds the targets of `tests/fuzz` with libFuzzer's instrumentation, and runs them one after the other.
//!
//! A stable compiler is enough, because Rust's own checks replace sanitizers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tools::toolchain::SKIP_ENV;
use crate::{progress, workspace};

/// The package of the targets, and the folder of their inputs.
const PACKAGE: &str = "inferprobe-fuzz";
const CORPORA: &str = "tests/fuzz/corpus";
/// What libFuzzer needs in the code: a counter and a table entry for each edge, and a call for each comparison.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Longest generated input, bytes: several messages of any protocol.
const INPUT_CAP_BYTES: u32 = 4096;
/// Longest time of one input, seconds, and most memory of a target, MiB.
const INPUT_LIMIT_S: u32 = 10;
const MEMORY_CAP_MIB: u32 = 1024;

/// Runs each of `targets` for `seconds`, all of them if the list is empty; a crash is an error.
pub(crate) fn run(seconds: u32, targets: &[String]) -> Result<()> {
    let known = known_targets()?;
    if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
        bail!(
            "no fuzz target {unknown:?}; the targets are {}",
            known.join(", ")
        );
    }
    let programs = build()?;
    let wanted = if targets.is_empty() { &known } else { targets };
    for target in wanted {
        fuzz(&programs, target, seconds)?;
    }
    Ok(())
}

/// Returns the names of the targets, which are those of their corpora.
fn known_targets() -> Result<Vec<String>> {
    let corpora = workspace::root().join(CORPORA);
    let entries = fs::read_dir(&corpora).with_context(|| format!("read {}", corpora.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Builds the targets; returns their folder.
fn build() -> Result<PathBuf> {
    let host = host()?;
    // With `--target`, the flags do not reach build scripts, which have no fuzzer.
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

/// Returns the compiler's own target.
fn host() -> Result<String> {
    let (text, _) = progress::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Runs a target; new inputs and crashes go to the folder of build output.
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
        "{target} crashed on an input; to reproduce it, run {} with the newest file of {}",
        programs.join(target).display(),
        crashes.display()
    );
    Ok(())
}
