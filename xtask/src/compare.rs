//! The comparison with a real TorchServe: the tests that make it, and the table of what they found.
//!
//! How the tests run is `cargo_test`'s; what they compare, and what is allowed, is their own.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{cargo_test, progress, workspace};

/// Names the file that the tests add the lines of the table to.
const REPORT_ENV: &str = "INFERPROBE_REPORT";

/// The tests that have TorchServe for a judge, of those that are in `tests/tests`.
const TESTS: [&str; 5] = [
    "kernel_torchserve",
    "kernel_torchserve_clients",
    "kernel_torchserve_times",
    "kernel_torchserve_lifecycle",
    "kernel_autoscale",
];

/// Runs the tests, and prints the table of what they found; also where one of them failed.
pub(crate) fn run() -> Result<()> {
    let report = workspace::target_dir().join("torchserve-comparison.md");
    match fs::remove_file(&report) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            return Err(err).with_context(|| format!("clear {}", report.display()));
        }
        _ => {}
    }
    let names = present(&workspace::root().join("tests/tests"));
    let mut command = cargo_test::command(&arguments(&names))?;
    command.env(REPORT_ENV, &report);
    let outcome = progress::step("compare with TorchServe", &mut command);
    let lines = match fs::read_to_string(&report) {
        Ok(lines) => lines,
        Err(err) if err.kind() == ErrorKind::NotFound => String::new(),
        Err(err) => return Err(err).with_context(|| format!("read {}", report.display())),
    };
    print!("{}", table(&lines));
    outcome?;
    if lines.is_empty() {
        bail!("nothing was compared: the tests skipped themselves; run this as root");
    }
    Ok(())
}

/// The tests of the comparison whose files are in `dir`.
fn present(dir: &Path) -> Vec<&'static str> {
    let mut names = TESTS.to_vec();
    names.retain(|name| dir.join(format!("{name}.rs")).is_file());
    names
}

/// Options of `cargo test` that run these tests, one at a time and in the same order each time.
fn arguments(names: &[&str]) -> Vec<OsString> {
    let tests = names.iter().flat_map(|name| ["--test", name]);
    ["--package", "inferprobe-tests", "--no-fail-fast"]
        .into_iter()
        .chain(tests)
        .chain(["--", "--test-threads=1"])
        .map(OsString::from)
        .collect()
}

/// The lines under a head; empty where there are none.
fn table(lines: &str) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("| When | Figure | TorchServe | inferprobe | Allowed |\n|---|---|---|---|---|\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_that_are_there_are_run() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kernel_autoscale.rs", "kernel_torchserve.rs", "usage.rs"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(
            present(dir.path()),
            ["kernel_torchserve", "kernel_autoscale"]
        );
    }

    #[test]
    fn a_table_has_one_column_for_each_cell_of_a_line() {
        let table = table("| idle | QueueTime | 1 | 1 | equal |\n");
        let cells: Vec<usize> = table
            .lines()
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells, [6, 6, 6]);
    }

    #[test]
    fn without_lines_there_is_no_table() {
        assert_eq!(table(""), "");
    }

    #[test]
    fn every_test_is_named_to_cargo() {
        let arguments = arguments(&["a", "b"]);
        let expected =
            "--package inferprobe-tests --no-fail-fast --test a --test b -- --test-threads=1";
        assert_eq!(arguments.join(" ".as_ref()), expected);
    }
}
