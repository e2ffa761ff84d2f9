//! Starts a real TorchServe with its own metrics, on free ports, with all its files in one folder.
//!
//! Does not depend on: the agent.

pub mod alike;
mod config;
pub mod counters;
mod grpc;
mod management;
pub mod traffic;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    client, clock::wait_for, exposition::Exposition, process_group::ProcessGroup,
    require_kernel::skip,
};

pub use config::Ports;
pub use grpc::{Called, PredictionClient};
pub use management::{Registration, Worker};

/// Names the folder that set-up made: `java`, `venv` and `models`.
const FOLDER: &str = "INFERPROBE_TORCHSERVE_DIR";
/// The models of the archives; both do as the request's body says (handler.py).
const MODELS: [&str; 2] = ["tiny", "twin"];
/// Longest time until every model has its workers.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longest time until the frontend has ended after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Returns the folder that set-up made; `None`, with the reason printed, without one.
pub fn installed() -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    if let Some(folder) = folder
        && folder.join("venv/bin/torchserve").is_file()
    {
        return Some(folder);
    }
    skip(&format!("{FOLDER} names no folder with a TorchServe"));
    None
}

/// A running TorchServe with the models `tiny` and `twin`, version 1.0; it ends when dropped.
pub struct TorchServe {
    /// Where it listens.
    pub ports: Ports,
    /// Process id of its frontend.
    pub pid: u32,
    process_group: ProcessGroup,
    _folder: TempDir,
}

impl TorchServe {
    /// Starts the TorchServe of `installed` with `properties` added to its configuration, and waits until every
    /// model has a worker that is ready.
    pub fn start(installed: &Path, properties: &[&str]) -> Self {
        Self::start_at(Ports::free(), installed, properties)
    }

    /// As [`TorchServe::start`], but predictions are served over TLS, with the key and certificate of `properties`.
    pub fn start_tls(installed: &Path, properties: &[&str]) -> Self {
        let ports = Ports::free();
        let address = format!("inference_address=https://127.0.0.1:{}", ports.inference);
        Self::start_at(ports, installed, &[&[&*address], properties].concat())
    }

    fn start_at(ports: Ports, installed: &Path, properties: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for TorchServe's files");
        let config = folder.path().join("config.properties");
        let models = installed.join("models");
        fs::write(&config, config::text(&ports, &models, properties)).expect("the folder is ours");
        let process_group = ProcessGroup::start(command(installed, folder.path(), &config));
        let pid = wait_for("TorchServe's frontend", START_LIMIT, || {
            let pid = fs::read_to_string(folder.path().join(".model_server.pid")).ok()?;
            pid.trim().parse().ok()
        });
        wait_for("workers of TorchServe", START_LIMIT, || {
            let alive = Path::new(&format!("/proc/{pid}")).exists();
            assert!(alive, "TorchServe ended: {}", console(folder.path()));
            MODELS
                .iter()
                .all(|model| management::has_ready_workers(ports.management, model))
                .then_some(())
        });
        Self {
            ports,
            pid,
            process_group,
            _folder: folder,
        }
    }

    /// Scrapes its own metrics. TorchServe counts the scrape itself after it is rendered.
    pub fn metrics(&self) -> Exposition {
        let (status, text) =
            client::get(self.ports.metrics, "/metrics").expect("TorchServe serves its metrics");
        assert_eq!(status, 200, "{text}");
        Exposition::parse(&text).unwrap_or_else(|fault| panic!("TorchServe's /metrics {fault}"))
    }

    /// Ends it as `torchserve --stop` does, and waits until it is gone.
    pub fn stop(self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.expect("a frontend has a process id");
        kill_process(pid, Signal::TERM).expect("the frontend runs until it is signalled");
        let folder = format!("/proc/{}", self.pid);
        wait_for("the end of TorchServe's frontend", STOP_LIMIT, || {
            (!Path::new(&folder).exists()).then_some(())
        });
        drop(self.process_group);
    }
}

fn console(folder: &Path) -> String {
    let bytes = fs::read(folder.join("console")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn command(installed: &Path, folder: &Path, config: &Path) -> Command {
    let venv = installed.join("venv/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(venv.clone()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).expect("no folder has a colon in its name");
    let console = File::create(folder.join("console")).expect("the folder is ours");
    let mut command = ProcessGroup::command(&venv.join("torchserve"));
    command
        .args(["--start", "--foreground", "--no-config-snapshots"])
        .arg("--ts-config")
        .arg(config)
        .arg("--models")
        .args(MODELS.map(|model| format!("{model}={model}.mar")))
        .current_dir(folder)
        .env("PATH", path)
        .env("JAVA_HOME", installed.join("java"))
        .envs(["TEMP", "TMPDIR", "LOG_LOCATION", "METRICS_LOCATION"].map(|name| (name, folder)))
        .stdout(console.try_clone().expect("a file can be shared"))
        .stderr(console);
    command
}
