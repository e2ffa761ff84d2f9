//! The table of a kernel test, and the artifacts that a guest sends, both read from the lines of its program.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::progress;

/// Start of a line with a row of the table.
const ROW: &str = "row: ";
/// Start of a line with a part of the guest's artifacts: a compressed tar archive in base64.
const ARTIFACTS: &str = "artifacts: ";
const HEAD: &str = "| kernel | attach mode | requests | counted | error of handler time, p50 / p99 | \
    error of queue time, p50 / p99 | records compared | outcome |\n|---|---|---|---|---|---|---|---|";

/// The table, and which kernels failed.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<String>,
    pub(crate) failed: Vec<String>,
}

/// Artifacts as a guest sends them; empty if it has none.
#[derive(Default)]
pub(crate) struct Artifacts {
    base64: String,
}

impl Report {
    /// Adds a row; one without the program's columns has its text as the outcome.
    pub(crate) fn add(&mut self, kernel: &str, row: &str) {
        let row = if row.contains('|') {
            row.to_owned()
        } else {
            format!("– | – | – | – | – | – | {row}")
        };
        self.rows.push(format!("| {kernel} | {row} |"));
    }

    /// Adds the row of a suite, which has no columns of its own.
    pub(crate) fn add_suite(&mut self, kernel: &str, mode: &str, outcome: &str) {
        self.add(kernel, &format!("{mode} | – | – | – | – | – | {outcome}"));
    }

    /// Handles a line of the program: keeps a row and artifacts, and shows all but artifacts.
    pub(crate) fn on_line(&mut self, line: &str, kernel: &str, artifacts: &mut Artifacts) {
        if let Some(part) = line.strip_prefix(ARTIFACTS) {
            artifacts.base64.push_str(part);
            return;
        }
        eprintln!("    {line}");
        if let Some(row) = line.strip_prefix(ROW) {
            self.add(kernel, row);
        }
    }

    pub(crate) fn table(&self) -> String {
        format!("{HEAD}\n{}", self.rows.join("\n"))
    }
}

impl Artifacts {
    /// Unpacks them into `folder`; `scratch` is for a file.
    pub(crate) fn unpack(&self, scratch: &Path, folder: &Path) -> Result<()> {
        if self.base64.is_empty() {
            return Ok(());
        }
        let sent = scratch.join("artifacts");
        fs::write(&sent, &self.base64).with_context(|| format!("write {}", sent.display()))?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let script = r#"base64 --decode "$1" | tar --extract --gzip --touch --directory "$2""#;
        progress::check(
            Command::new("sh")
                .args(["-c", script, "sh"])
                .args([&sent, folder]),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_kept_and_other_lines_are_only_shown() {
        let (mut report, mut artifacts) = (Report::default(), Artifacts::default());
        for line in ["hello", "row: auto | 1 | 1 | 2 | 3 | 4 | equal"] {
            report.on_line(line, "6.1", &mut artifacts);
        }
        report.add("7.9", "skipped: no such kernel");
        assert_eq!(
            report.rows,
            [
                "| 6.1 | auto | 1 | 1 | 2 | 3 | 4 | equal |",
                "| 7.9 | – | – | – | – | – | – | skipped: no such kernel |"
            ]
        );
        assert_eq!(artifacts.base64, "");
    }

    #[test]
    fn artifacts_are_put_together_and_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sent/unix/one")).unwrap();
        fs::write(dir.path().join("sent/unix/one/stderr"), "boom").unwrap();
        let script = format!("tar -cz -C {}/sent . | base64", dir.path().display());
        let (base64, _) = progress::output(Command::new("sh").args(["-c", &script])).unwrap();
        let (mut report, mut artifacts) = (Report::default(), Artifacts::default());
        for line in base64.lines() {
            report.on_line(&format!("artifacts: {line}"), "6.1", &mut artifacts);
        }
        let folder = dir.path().join("received");
        artifacts.unpack(dir.path(), &folder).unwrap();
        let text = fs::read_to_string(folder.join("unix/one/stderr")).unwrap();
        assert_eq!(text, "boom");
        Artifacts::default().unpack(dir.path(), &folder).unwrap();
    }
}
