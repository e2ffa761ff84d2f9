//! Packs the Helm chart.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::dist::parts::VERSION;
use crate::progress;
use crate::tools::helm::Helm;

/// Writes the chart into `dist`; returns its path.
pub(crate) fn make(dist: &Path) -> Result<PathBuf> {
    progress::step(
        "pack the chart",
        Helm::ensure()?
            .helm("package")
            .args(["deploy/helm/inferprobe", "--version", VERSION])
            .args(["--app-version", VERSION, "--destination"])
            .arg(dist),
    )?;
    Ok(dist.join(format!("inferprobe-{VERSION}.tgz")))
}
