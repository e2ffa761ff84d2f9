//! Makes the RPM package; `[package.metadata.generate-rpm]` of `agent/Cargo.toml` describes it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::arch::Arch;
use crate::dist::parts::{self, Parts, VERSION};
use crate::progress;
use crate::tools::cargo_tools::CARGO_GENERATE_RPM;

/// Writes the package into `dist`; returns its path.
pub(crate) fn make(parts: &Parts, dist: &Path) -> Result<PathBuf> {
    let path = dist.join(format!(
        "inferprobe-{VERSION}-1.{}.rpm",
        parts.arch.machine()
    ));
    let mut command = CARGO_GENERATE_RPM.command()?;
    command.args(["--package", "agent"]);
    if Arch::own() != Some(parts.arch) {
        command.args(["--target", parts.arch.target()]);
    }
    let epoch = parts::epoch()?;
    command
        .arg("--output")
        .arg(&path)
        .args(["--source-date", &epoch]);
    progress::step("make the RPM package", &mut command)?;
    Ok(path)
}
