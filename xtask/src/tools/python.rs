//! Python environments among the build output: made once for each recipe, with packages at fixed versions.
//!
//! What runs in them is for their users to say.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress;
use crate::tools::debian;

/// Debian's Python; another one may lack `venv` or have no fitting builds of the packages.
const PYTHON: &str = "/usr/bin/python3";

/// Calls `make` unless what is in `dir` was made there of the same `parts`.
pub(crate) fn once(dir: &Path, parts: &[&str], make: impl FnOnce() -> Result<()>) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let made = dir.join("made");
    // A Python environment knows its own path, so one that was moved has to be made anew.
    let recipe = [&[&*dir.to_string_lossy()], parts].concat().join("\n");
    if fs::read_to_string(&made).is_ok_and(|text| text == recipe) {
        return Ok(());
    }
    make()?;
    fs::write(&made, recipe).with_context(|| format!("write {}", made.display()))
}

/// Makes the Python environment `venv` anew, with `packages` in it; `user` is what needs it, in messages.
pub(crate) fn make_venv(venv: &Path, user: &str, packages: &[&str]) -> Result<()> {
    if debian::is_here() && !debian::missing(&["python3-venv"])?.is_empty() {
        debian::install(
            &format!("{user}, which the tests need, runs on Python"),
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
