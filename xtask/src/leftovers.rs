//! What a run of tests leaves behind: the list of skipped tests, and the artifacts of failed ones.
//!
//! The tests write both: a line `NAME: REASON` for each skip, and a folder for each failed test. A passing test's own
//! output does not reach the terminal.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::workspace;

/// Names the file that tests add skips to.
const SKIPS_ENV: &str = "INFERPROBE_SKIPS_FILE";
/// Names the folder that failed tests keep their artifacts in.
pub(crate) const ARTIFACTS_ENV: &str = "INFERPROBE_ARTIFACTS_DIR";

/// Where a run leaves its skips and artifacts.
pub(crate) struct Leftovers {
    skips: PathBuf,
    artifacts: PathBuf,
    began: SystemTime,
}

impl Leftovers {
    /// Returns the places in the build output, for a run that begins now; artifacts of earlier runs are not reported.
    pub(crate) fn expect() -> Self {
        Self::in_folder(&workspace::target_dir())
    }

    fn in_folder(folder: &Path) -> Self {
        Self {
            skips: folder.join("test-skips.txt"),
            artifacts: folder.join("test-artifacts"),
            began: SystemTime::now(),
        }
    }

    /// Removes the skips of earlier runs.
    pub(crate) fn clear_skips(&self) -> Result<()> {
        match fs::remove_file(&self.skips) {
            Err(err) if err.kind() != ErrorKind::NotFound => {
                Err(err).with_context(|| format!("clear {}", self.skips.display()))
            }
            _ => Ok(()),
        }
    }

    /// Adds a skip to the list.
    pub(crate) fn add_skip(&self, name: &str, reason: &str) -> Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.skips);
        let line = format!("{name}: {}\n", reason.replace('\n', " "));
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .with_context(|| format!("add to {}", self.skips.display()))
    }

    /// Returns the variables that name both places to the tests.
    pub(crate) fn environment(&self) -> [(&'static str, OsString); 2] {
        [
            (SKIPS_ENV, self.skips.clone().into()),
            (ARTIFACTS_ENV, self.artifacts.clone().into()),
        ]
    }

    /// Returns the folder for artifacts from a virtual machine called `guest`.
    pub(crate) fn of_guest(&self, guest: &str) -> PathBuf {
        self.artifacts.join(guest)
    }

    /// Prints the number and the list of skipped tests, if there are any.
    pub(crate) fn report_skips(&self) {
        let skips = fs::read_to_string(&self.skips).unwrap_or_default();
        eprint!("{}", skips_report(&skips));
    }

    /// Prints where the artifacts of tests that failed in this run are, if there are any.
    pub(crate) fn report_artifacts(&self) {
        eprint!("{}", self.artifacts_report());
    }

    fn artifacts_report(&self) -> String {
        let entries = fs::read_dir(&self.artifacts)
            .into_iter()
            .flatten()
            .flatten();
        let of_this_run = entries.filter(|entry| {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|at| at >= self.began)
        });
        let folders: BTreeSet<String> = of_this_run
            .map(|entry| entry.path().display().to_string())
            .collect();
        if folders.is_empty() {
            return String::new();
        }
        format!("==> artifacts of failed tests:\n{}", lines(&folders))
    }
}

/// Returns the number and the list of skipped tests; a test that was tried twice counts once.
fn skips_report(skips: &str) -> String {
    let skips: BTreeSet<String> = skips.lines().map(str::to_owned).collect();
    let count = match skips.len() {
        0 => return String::new(),
        1 => "1 test".to_owned(),
        more => format!("{more} tests"),
    };
    format!("==> {count} skipped:\n{}", lines(&skips))
}

fn lines(items: &BTreeSet<String>) -> String {
    items.iter().map(|item| format!("    {item}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_counted_and_listed_once_each() {
        assert_eq!(skips_report(""), "");
        let twice = "unix::a: needs root\nunix::a: needs root\n";
        assert_eq!(
            skips_report(twice),
            "==> 1 test skipped:\n    unix::a: needs root\n"
        );
        let two = "unix::b: needs root\naccept::a: needs root\n";
        let expected = "==> 2 tests skipped:\n    accept::a: needs root\n    unix::b: needs root\n";
        assert_eq!(skips_report(two), expected);
    }

    #[test]
    fn a_run_reports_its_own_artifacts() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("test-artifacts/old");
        fs::create_dir_all(&old).unwrap();
        let leftovers = Leftovers::in_folder(dir.path());
        let past = leftovers.began - std::time::Duration::from_secs(1);
        fs::File::open(&old).unwrap().set_modified(past).unwrap();
        assert_eq!(leftovers.artifacts_report(), "");
        let new = dir.path().join("test-artifacts/new");
        fs::create_dir(&new).unwrap();
        let later = leftovers.began + std::time::Duration::from_secs(1);
        fs::File::open(&new).unwrap().set_modified(later).unwrap();
        let expected = format!("==> artifacts of failed tests:\n    {}\n", new.display());
        assert_eq!(leftovers.artifacts_report(), expected);
    }
}
