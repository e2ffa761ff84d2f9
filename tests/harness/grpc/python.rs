//! Starts a gRPC server and a gRPC client in Python.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{require_kernel::skip, script::Script};

/// Names the folder that set-up made: `venv`.
const FOLDER: &str = "INFERPROBE_SERVERS_DIR";
const SERVER: &str = include_str!("server.py");
const CLIENT: &str = include_str!("client.py");

/// Matches the command lines of both server and client.
pub const PATTERN: &str = "import grpc";

/// Returns the Python environment that set-up made; `None`, with the reason printed, without one.
pub fn installed() -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    if let Some(folder) = folder
        && folder.join("venv/bin/python").is_file()
    {
        return Some(folder.join("venv/bin"));
    }
    skip(&format!("{FOLDER} names no folder with servers of Python"));
    None
}

/// A handler's own times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Handled {
    /// When it was entered, CLOCK_MONOTONIC.
    pub entered_ns: u64,
    /// When it returned.
    pub returned_ns: u64,
}

/// A blocking server; it ends when dropped.
pub struct PythonServer {
    /// Where it listens.
    pub port: u16,
    script: Script,
}

impl PythonServer {
    /// Starts it on a free port of 127.0.0.1.
    pub fn start(bin: &Path) -> Self {
        let mut script = Script::start(&bin.join("python"), SERVER, &[]);
        let port = script.line().parse().expect("it says where it listens");
        Self { port, script }
    }

    /// Returns the stamps of its handlers, in the order of their returns.
    pub fn handled(&mut self) -> Vec<Handled> {
        serde_json::from_str(&self.script.ask("handled")).expect("it is JSON")
    }
}

/// A client with one connection; it ends when dropped.
pub struct PythonClient(Script);

impl PythonClient {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(bin: &Path, port: u16) -> Self {
        let mut script = Script::start(&bin.join("python"), CLIENT, &[&port.to_string()]);
        assert_eq!(script.line(), "connected");
        Self(script)
    }

    /// Makes `count` calls as [`super::Call::nth`] defines them, `at_once` at a time. Returns how many ended with each
    /// code.
    pub fn call(&mut self, count: usize, at_once: usize) -> Vec<(u32, usize)> {
        serde_json::from_str(&self.0.ask(&format!("{count} {at_once}"))).expect("it is JSON")
    }
}
