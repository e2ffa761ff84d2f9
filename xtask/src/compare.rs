//! Runs the tests that compare the agent with a real server, and prints a table of their results.
//!
//! Does not depend on: what the tests compare, and which differences they allow.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cargo_test::needs::Need;
use crate::cargo_test::{CargoTest, Words, targets};
use crate::{progress, workspace};

/// Names the file that the tests append the rows of the table to.
const REPORT_ENV: &str = "INFERPROBE_REPORT";

/// A server to compare the agent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Server {
    Torchserve,
    Vllm,
    Llama,
}

impl Server {
    /// Its name in messages, that of its test targets, and what they need.
    const fn parts(self) -> (&'static str, &'static str, Need) {
        match self {
            Self::Torchserve => ("TorchServe", "torchserve", Need::TorchServe),
            Self::Vllm => ("vLLM", "vllm", Need::Vllm),
            Self::Llama => ("llama.cpp", "llama", Need::Llama),
        }
    }
}

/// Runs the tests and prints the table, also if a test failed.
pub(crate) fn run(server: Server) -> Result<()> {
    let (name, target, need) = server.parts();
    let report = workspace::target_dir().join(format!("{target}-comparison.md"));
    match fs::remove_file(&report) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            return Err(err).with_context(|| format!("clear {}", report.display()));
        }
        _ => {}
    }
    let names = targets::all()?;
    let names = names
        .iter()
        .filter(|found| found.is_integration() && found.name.contains(target));
    let words = words(names.map(|target| target.name.as_str()));
    let tests = CargoTest::prepare(&[Need::Agent, need].into())?;
    let mut command = tests.command(&words);
    command.env(REPORT_ENV, &report);
    let outcome = progress::step(&format!("compare with {name}"), &mut command);
    tests.leftovers.report_artifacts();
    tests.leftovers.report_skips();
    let lines = match fs::read_to_string(&report) {
        Ok(lines) => lines,
        Err(err) if err.kind() == ErrorKind::NotFound => String::new(),
        Err(err) => return Err(err).with_context(|| format!("read {}", report.display())),
    };
    print!("{}", table(name, &lines));
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
        // Those with a large server are ignored by other runs.
        passed_on: vec!["--test-threads=1".into(), "--include-ignored".into()],
    }
}

/// Returns the rows below a head; empty if there are none.
fn table(server: &str, lines: &str) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("| When | Figure | {server} | inferprobe | Allowed |\n|---|---|---|---|---|\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_column_for_each_cell_of_a_line() {
        let table = table("vLLM", "| idle | QueueTime | 1 | 1 | equal |\n");
        let cells: Vec<usize> = table
            .lines()
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells, [6, 6, 6]);
    }

    #[test]
    fn without_lines_there_is_no_table() {
        assert_eq!(table("vLLM", ""), "");
    }
}
