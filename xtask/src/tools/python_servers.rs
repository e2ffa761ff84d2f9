//! Real servers of Python for the tests: each as an own way to use its sockets, in one environment among the build
//! output.
//!
//! What they serve, and how they are started, is the tests' business.

use std::path::PathBuf;

use anyhow::Result;

use crate::tools::python;
use crate::workspace;

/// The releases that the tests are written against, and those of what they are built on.
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

/// The folder with `venv`, made where it is missing or was made differently.
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
