//! Makes the SBOM: a list of the crates that the program is built from, in CycloneDX's format.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::dist::parts::VERSION;
use crate::tools::cargo_tools::CARGO_CYCLONEDX;
use crate::{progress, workspace};

/// Writes the list into `dist`; returns its path.
pub(crate) fn make(arch: Arch, dist: &Path) -> Result<PathBuf> {
    let name = format!("inferprobe-{VERSION}-{}.cdx", arch.debian());
    progress::step(
        "make the SBOM",
        CARGO_CYCLONEDX
            .command()?
            .args([
                "cyclonedx",
                "--format",
                "json",
                "--spec-version",
                "1.5",
                "--quiet",
            ])
            .args(["--manifest-path", "agent/Cargo.toml"])
            .args(["--target", arch.target()])
            .args(["--override-filename", &name]),
    )?;
    // The tool writes beside each manifest of the workspace; only the agent's list is wanted.
    let file = format!("{name}.json");
    for member in [
        "agent",
        "agent-ebpf",
        "xtask",
        "tests",
        "tests/fuzz",
        "tests/nvml-stub",
    ] {
        let from = workspace::root().join(member).join(&file);
        if member == "agent" {
            fs::copy(&from, dist.join(&file))
                .with_context(|| format!("copy {}", from.display()))?;
        }
        if from.exists() {
            fs::remove_file(&from).with_context(|| format!("remove {}", from.display()))?;
        }
    }
    Ok(dist.join(file))
}
