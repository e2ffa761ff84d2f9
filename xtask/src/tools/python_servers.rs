//! Provides Python servers for the tests, each with its own I/O pattern, in one environment in the build output.
//!
//! Does not depend on: what they serve, and how the tests start them.

use std::path::PathBuf;

use anyhow::Result;

use crate::tools::python;
use crate::workspace;

/// The releases that the tests are written for, and those of their dependencies.
const PACKAGES: [&str; 10] = [
    "uvicorn==0.54.0",
    "h11==0.16.0",
    "httptools==0.9.0",
    "uvloop==0.23.0",
    "gunicorn==27.0.1",
    "hypercorn==0.18.0",
    "h2==4.4.1",
    "hpack==4.2.0",
    "wsproto==1.3.2",
    "grpcio==1.85.1",
];

/// Returns the folder with `venv`, which is made if it is missing or has another recipe.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("tools/servers");
    python::once(&dir, &PACKAGES, || {
        python::make_venv(
            &dir.join("venv"),
            "uvicorn, gunicorn, hypercorn and gRPC",
            &PACKAGES,
        )
    })?;
    Ok(dir)
}
