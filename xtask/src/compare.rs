//! Runs the tests that compare the agent with a real TorchServe, and prints a table of their results.
//!
//! Does not depend on: what the tests compare, and which differences they allow.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result, bail};

use crate::cargo_test::needs::Need;
use crate::cargo_test::{CargoTest, Words, targets};
use crate::{progress, workspace};

/// Names the file that the tests append the rows of the table to.
const REPORT_ENV: &str = "INFERPROBE_REPORT";

/// Runs the tests and prints the table, also if a test failed.
pub(crate) fn run() -> Result<()> {
    let report = workspace::target_dir().join("torchserve-comparison.md");
    match fs::remove_file(&report) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            return Err(err).with_context(|| format!("clear {}", report.display()));
        }
        _ => {}
    }
    let names = targets::all()?;
    let names = names
        .iter()
        .filter(|target| target.is_integration() && target.name.contains("torchserve"));
    let words = words(names.map(|target| target.name.as_str()));
    let tests = CargoTest::prepare(&[Need::Agent, Need::TorchServe].into())?;
    let mut command = tests.command(&words);
    command.env(REPORT_ENV, &report);
    let outcome = progress::step("compare with TorchServe", &mut command);
    tests.leftovers.report_artifacts();
    tests.leftovers.report_skips();
    let lines = match fs::read_to_string(&report) {
        Ok(lines) => lines,
        Err(err) if err.kind() == ErrorKind::NotFound => String::new(),
        Err(err) => return Err(err).with_context(|| format!("read {}", report.display())),
    };
    print!("{}", table(&lines));
    outcome?;
    if lines.is_empty() {
        bail!("nothing was compared, because the tests were skipped; run as root");
    }
    Ok(())
}

/// Returns what runs the test targets `names`, one test at a time and in the same order each time.
fn words<'a>(names: impl Iterator<Item = &'a str>) -> Words {
    let targets = names.flat_map(|name| ["--test", name]);
    let package = ["--package", "inferprobe-tests"];
    Words {
        targets: package.into_iter().chain(targets).map(Into::into).collect(),
        options: vec!["--no-fail-fast".into()],
        passed_on: vec!["--test-threads=1".into()],
    }
}

/// Returns the rows below a head; empty if there are none.
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
}
