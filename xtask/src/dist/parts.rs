//! What every package is made of, and what makes packages reproducible: one time for all files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::{progress, workspace};

/// The version of every package.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the packages of an architecture are made of.
pub(crate) struct Parts {
    pub(crate) arch: Arch,
    /// Program, man pages, completions, licences and the changelog.
    pub(crate) folder: PathBuf,
}

/// Returns the time of the last commit, in seconds since 1970: the time of every file in a package.
pub(crate) fn epoch() -> Result<String> {
    let (text, done) = progress::output(
        Command::new("git")
            .args(["log", "-1", "--format=%ct"])
            .current_dir(workspace::root()),
    )?;
    let text = text.trim();
    // A copy of the source without its history has no time of its own.
    Ok(if done && !text.is_empty() { text } else { "0" }.to_owned())
}

/// Compresses `content`, always to the same bytes.
pub(crate) fn gzip(content: &[u8], to: &Path) -> Result<()> {
    let plain = to.with_extension("");
    fs::write(&plain, content).with_context(|| format!("write {}", plain.display()))?;
    progress::check(
        Command::new("gzip")
            .args(["--best", "--no-name", "--force"])
            .arg(&plain),
    )
}
