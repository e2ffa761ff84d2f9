//! Makes Python environments in the build output: once for each recipe, with packages at fixed versions.
//!
//! Does not depend on: what runs in them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress;
use crate::tools::debian;

/// Debian's Python; another one may lack `venv`, or binary builds of the packages.
const PYTHON: &str = "/usr/bin/python3";

/// Calls `make` unless an earlier call made `dir` from the same `parts`.
pub(crate) fn once(dir: &Path, parts: &[&str], make: impl FnOnce() -> Result<()>) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let made = dir.join("made");
    // A Python environment contains its own path, so one that was moved is made again.
    let recipe = [&[&*dir.to_string_lossy()], parts].concat().join("\n");
    if fs::read_to_string(&made).is_ok_and(|text| text == recipe) {
        return Ok(());
    }
    make()?;
    fs::write(&made, recipe).with_context(|| format!("write {}", made.display()))
}

/// Makes the Python environment `venv` from nothing, with `packages`; `user` is what needs it, for messages.
pub(crate) fn make_venv(venv: &Path, user: &str, packages: &[&str]) -> Result<()> {
    if debian::is_here() && !debian::missing(&["python3-venv"])?.is_empty() {
        debian::install(
            &format!("The tests need {user}, and so Python's venv"),
            &["python3-venv"],
        )?;
    }
    progress::step(
        "make a Python environment",
        Command::new(PYTHON)
            .args(["-m", "venv", "--clear"])
            .arg(venv),
    )?;
    progress::step(
        &format!("fetch {user}"),
        Command::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(packages),
    )
}
