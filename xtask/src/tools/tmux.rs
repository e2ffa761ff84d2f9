//! Provides tmux, the terminal that programs for terminals are tested in.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::tools::debian;

/// The program, named like Debian's package.
const TMUX: &str = "tmux";

/// Returns its program; installs it if it is missing.
pub(crate) fn ensure() -> Result<PathBuf> {
    let is_there = Command::new(TMUX).arg("-V").output().is_ok();
    if !is_there {
        debian::install("`top` is shown in the terminal tmux", &[TMUX])?;
    }
    Ok(TMUX.into())
}
