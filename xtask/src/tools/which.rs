//! Finds a program on PATH.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::tools::toolchain::{Places, find_program};

/// Returns the path of `program`, which cargo's own folder or a folder of PATH holds.
pub(crate) fn which(program: &str) -> Result<PathBuf> {
    find_program(&Places::from_env().bin_dirs, program)
        .with_context(|| format!("{program} is not on PATH"))
}
