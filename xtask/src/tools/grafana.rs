//! Provides Grafana's types and TypeScript's compiler, in the build output: npm packages at fixed versions.
//!
//! Does not depend on: the dashboards.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::tools::node;

/// Grafana's types, and the compiler.
const PACKAGES: [&str; 2] = ["@grafana/schema@13.2.0", "typescript@5.9.3"];

/// A folder with both.
pub(crate) struct Grafana {
    dir: PathBuf,
    /// The program that runs JavaScript.
    node: PathBuf,
}

/// Fetches them if they are missing.
pub(crate) fn ensure() -> Result<Grafana> {
    let (node, dir) = node::ensure("grafana", &PACKAGES)?;
    Ok(Grafana { dir, node })
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
