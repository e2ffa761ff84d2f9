//! A real Prometheus.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use inferprobe_tests::{
    agent::free_port, client, clock::wait_for, process::Owned, require_kernel::skip,
};
use serde_json::Value;

/// Folder with `prometheus` and `promtool`.
const FOLDER: &str = "INFERPROBE_PROMETHEUS_DIR";
/// Longest wait for anything of Prometheus.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the path of one of Prometheus's programs; `None`, with the reason printed, without one.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER);
    let path = folder.map(|folder| Path::new(&folder).join(name));
    if path.as_deref().is_some_and(Path::exists) {
        return path;
    }
    skip(&format!("{FOLDER} names no folder with {name}"));
    None
}

/// A running Prometheus; it ends when dropped.
pub(crate) struct Prometheus {
    port: u16,
    _process: Owned,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes each job's port each second, and waits until it is ready.
    pub(crate) fn start(program: &Path, jobs: &[(&str, u16)]) -> Self {
        Self::start_with_rules(program, jobs, &[])
    }

    /// As [`Self::start`]; it also evaluates the files of `rules` each second.
    pub(crate) fn start_with_rules(
        program: &Path,
        jobs: &[(&str, u16)],
        rules: &[PathBuf],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let interval = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n";
        let mut text = format!("{interval}rule_files: {rules:?}\nscrape_configs:\n");
        for (job, port) in jobs {
            text += &format!(
                "  - job_name: {job}\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n"
            );
        }
        std::fs::write(&config, text).unwrap();
        let port = free_port();
        let process = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let prometheus = Self {
            port,
            _process: Owned(process),
            _folder: folder,
        };
        wait_for("a ready Prometheus", PATIENCE, || {
            matches!(client::get(port, "/-/ready"), Ok((200, _))).then_some(())
        });
        prometheus
    }

    pub(crate) fn ask(&self, target: &str) -> Value {
        let (status, text) = client::get(self.port, target).unwrap();
        assert_eq!(status, 200, "{target}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Returns the latest values of a query, one for each series.
    pub(crate) fn values(&self, query: &str) -> Vec<f64> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.ask(&format!("/api/v1/query?query={query}"));
        let series = answer["data"]["result"].as_array().unwrap().iter();
        series
            .map(|series| series["value"][1].as_str().unwrap().parse().unwrap())
            .collect()
    }

    /// Returns the latest value of a query with one result.
    pub(crate) fn value(&self, query: &str) -> Option<f64> {
        let answer = self.ask(&format!("/api/v1/query?query={query}"));
        let value = answer.pointer("/data/result/0/value/1")?;
        value.as_str()?.parse().ok()
    }
}
