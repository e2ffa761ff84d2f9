//! Provides FastAPI, and what else measures it, for the bench, in one environment in the build output.
//!
//! Does not depend on: what the bench does with them.

use std::path::PathBuf;

use anyhow::Result;

use crate::tools::python;
use crate::workspace;

/// The releases that the bench compares with.
const PACKAGES: [&str; 7] = [
    "fastapi==0.165.0",
    "uvicorn==0.54.0",
    "httptools==0.9.0",
    "uvloop==0.23.0",
    "prometheus-fastapi-instrumentator==8.1.0",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-instrumentation-fastapi==0.66b2",
];

/// Returns the folder with `venv`, which is made if it is missing or has another recipe.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("tools/frameworks");
    python::once(&dir, &PACKAGES, || {
        python::make_venv(&dir.join("venv"), "FastAPI and OpenTelemetry", &PACKAGES)
    })?;
    Ok(dir)
}
