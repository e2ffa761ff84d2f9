//! Makes the Debian package; `[package.metadata.deb]` of `agent/Cargo.toml` describes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::arch::Arch;
use crate::dist::parts::{self, Parts, VERSION};
use crate::progress;
use crate::tools::cargo_tools::CARGO_DEB;

/// Writes the package into `dist`; returns its path.
pub(crate) fn make(parts: &Parts, dist: &Path) -> Result<PathBuf> {
    let path = dist.join(format!("inferprobe_{VERSION}_{}.deb", parts.arch.debian()));
    let mut command = CARGO_DEB.command()?;
    command.args([
        "--package",
        "inferprobe",
        "--no-build",
        "--no-strip",
        "--quiet",
    ]);
    if Arch::own() != Some(parts.arch) {
        command.args(["--target", parts.arch.target()]);
    }
    command
        .arg("--output")
        .arg(&path)
        .env("SOURCE_DATE_EPOCH", parts::epoch()?);
    progress::step("make the Debian package", &mut command)?;
    Ok(path)
}

/// Writes the changelog in Debian's format, which names the one for readers.
pub(crate) fn write_changelog(parts: &Parts) -> Result<()> {
    let (date, done) = progress::output(
        Command::new("date")
            .args(["--utc", "--rfc-email", "--date"])
            .arg(format!("@{}", parts::epoch()?)),
    )?;
    ensure!(done, "`date` failed");
    let text = format!(
        "inferprobe ({VERSION}) unstable; urgency=medium\n\n  * Version {VERSION}: CHANGELOG.md of the source says what is \
         new.\n\n -- The inferprobe developers <inferprobe@example.org>  {}\n",
        date.trim()
    );
    parts::gzip(text.as_bytes(), &parts.folder.join("changelog.gz"))
}
