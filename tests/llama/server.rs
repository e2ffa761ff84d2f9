//! Starts llama.cpp's server.

use std::{
    env,
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use inferprobe_tests::{
    agent::free_port, client, clock::wait_for, process::Owned, server_counters::Counters,
};

/// Names the folder with the server and its model.
const FOLDER: &str = "INFERPROBE_LLAMA_DIR";
/// What runs the server, from the tests' own folder.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/llama/serve.py");
/// Longest time until it serves.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server with a model that its command line calls `tiny`.
pub(crate) struct Llama {
    /// Its port.
    pub(crate) port: u16,
    _process: Owned,
}

impl Llama {
    /// Starts it, and waits until it serves.
    pub(crate) fn start() -> Self {
        let folder = env::var_os(FOLDER).expect("INFERPROBE_LLAMA_DIR names the folder");
        let folder = PathBuf::from(folder);
        let port = free_port();
        let log = File::create(folder.join("llama.log")).unwrap();
        let process = Command::new(folder.join("venv/bin/llama-server"))
            .arg(SCRIPT)
            .arg("--model")
            .arg(folder.join("tiny.gguf"))
            .args(["--alias", "tiny", "--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Owned(process);
        wait_for("llama.cpp that serves", START_LIMIT, || {
            let ended = process.wait(Duration::ZERO);
            assert!(
                ended.is_none(),
                "{ended:?}; see llama.log in {}",
                folder.display()
            );
            matches!(client::get(port, "/health"), Ok((200, _))).then_some(())
        });
        Self {
            port,
            _process: process,
        }
    }

    /// Reads its counters.
    pub(crate) fn counters(&self) -> Counters {
        Counters::read(self.port)
    }
}
