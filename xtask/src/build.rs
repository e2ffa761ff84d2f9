//! Builds the agent's release binary, for this machine or for another architecture.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::arch::Arch;
use crate::tools::arm64;
use crate::{progress, setup, workspace};

/// Names the agent's binary that tests use, in place of the release build.
pub(crate) const AGENT_ENV: &str = "INFERPROBE_BIN";

/// Returns the agent for machines of `arch` that tests use; builds it unless [`AGENT_ENV`] names one.
pub(crate) fn tested_agent(arch: Arch) -> Result<PathBuf> {
    match env::var_os(AGENT_ENV) {
        Some(path) => Ok(path.into()),
        None => agent_for(arch),
    }
}

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
