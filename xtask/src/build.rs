//! Builds the agent's release binary, for this machine or for another architecture.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::arch::Arch;
use crate::tools::arm64;
use crate::{progress, setup, workspace};

/// Builds the agent with the eBPF programs; returns the path of the release binary.
pub(crate) fn agent() -> Result<PathBuf> {
    setup::ensure()?;
    progress::step(
        "build the agent",
        workspace::cargo_release().args(["--package", "inferprobe"]),
    )?;
    Ok(workspace::target_dir().join("release/inferprobe"))
}

/// Does the same as [`agent`] for machines of `arch`.
pub(crate) fn agent_for(arch: Arch) -> Result<PathBuf> {
    if Arch::own() == Some(arch) {
        return agent();
    }
    check_target(arch)?;
    setup::ensure()?;
    arm64::build()
}

/// Fails if this machine cannot build for `arch`.
pub(crate) fn check_target(arch: Arch) -> Result<()> {
    if Arch::own() == Some(arch) || arch == Arch::Arm64 {
        return Ok(());
    }
    bail!(
        "cannot build for {} on a machine of another architecture",
        arch.target()
    )
}
