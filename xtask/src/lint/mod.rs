//! Checks what needs no run of the code: format and lints. A warning is an error.

use anyhow::Result;

use crate::{progress, workspace};

/// Runs every check.
pub(crate) fn run() -> Result<()> {
    progress::step(
        "check the format",
        workspace::cargo("fmt").args(["--all", "--check"]),
    )?;
    progress::step(
        "check the lints",
        workspace::cargo("clippy").args([
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
    )
}
