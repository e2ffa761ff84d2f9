//! Starts a FastAPI application on uvicorn that echoes bodies.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use inferprobe_tests::{
    agent::free_port, client::await_listener, process::Owned, server_cases::hosts::APPS,
};

/// Runs uvicorn with its own options, under a command line that the agent does not recognise: it watches only what it is told.
const UVICORN: &str = "import uvicorn; uvicorn.main()";
/// Options of uvicorn for TLS, with files in [`APPS`].
const TLS: [&str; 4] = [
    "--ssl-keyfile",
    "tls_key.pem",
    "--ssl-certfile",
    "tls_cert.pem",
];
const START_LIMIT: Duration = Duration::from_secs(30);

/// A server that is measured from within, or not at all.
pub(crate) struct FastApi {
    _server: Owned,
    pub(crate) port: u16,
}

impl FastApi {
    /// Starts it from the Python environment `venv` in `folder`, measured by `by`, and behind TLS if `encrypted`.
    pub(crate) fn start(folder: &Path, by: &str, encrypted: bool) -> Result<Self> {
        let port = free_port();
        let child = Command::new(folder.join("venv/bin/python"))
            .args(["-c", UVICORN])
            .args(["--no-access-log", "--log-level", "warning", "--port"])
            .arg(port.to_string())
            .arg("fastapi_app:app")
            .args(encrypted.then_some(TLS).into_iter().flatten())
            .env("INSTRUMENT", by)
            .env("PYTHONPATH", APPS)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(APPS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start uvicorn")?;
        let server = Owned(child);
        await_listener("uvicorn", port, START_LIMIT);
        Ok(Self {
            _server: server,
            port,
        })
    }
}
