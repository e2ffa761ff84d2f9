//! Starts `inferprobe autoscale`, and a mock of the agent that it reads.

use std::{
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    agent::{free_port, launcher::agent_binary},
    client,
    clock::wait_for,
    exposition::Exposition,
    mock_http::MockServer,
    process::Owned,
};

/// Longest wait for what the command does within two intervals.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest time from SIGTERM to the end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A running `autoscale` of the model `tiny`; it is killed when dropped.
pub struct Autoscale {
    port: u16,
    process: Owned,
    folder: TempDir,
}

impl Autoscale {
    /// Starts it with `args`. It decides each second, from what these ports serve.
    pub fn start(metrics_port: u16, management_port: u16, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for its output");
        let port = free_port();
        let file = |name: &str| File::create(folder.path().join(name)).expect("the folder is ours");
        let process = Command::new(agent_binary())
            .args(["autoscale", "--model", "tiny", "--interval", "1"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args([
                "--metrics",
                &format!("http://127.0.0.1:{metrics_port}/metrics"),
            ])
            .args([
                "--management",
                &format!("http://127.0.0.1:{management_port}"),
            ])
            .args(args)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the command can be started");
        Self {
            port,
            process: Owned(process),
            folder,
        }
    }

    /// Returns the decisions that it has printed, one a line.
    pub fn decisions(&self) -> Vec<String> {
        let text = self.read("stdout");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits for a decision that contains `part`.
    pub fn await_decision(&mut self, part: &str) -> String {
        wait_for(part, PATIENCE, || {
            if let Some(status) = self.process.wait(Duration::ZERO) {
                panic!("autoscale ended with {status}: {}", self.read("stderr"));
            }
            let decisions = self.decisions();
            decisions.into_iter().find(|line| line.contains(part))
        })
    }

    /// Sends one GET to its endpoint, and returns status and body.
    pub fn get(&self, target: &str) -> (u16, String) {
        client::get(self.port, target).unwrap_or_else(|err| {
            panic!("GET {target} of autoscale: {err}; {}", self.read("stderr"))
        })
    }

    /// Scrapes its own metrics, and parses them strictly.
    pub fn metrics(&self) -> Exposition {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        Exposition::parse(&text).unwrap_or_else(|fault| panic!("/metrics {fault}"))
    }

    /// Ends it as a service manager does. It must succeed, and in time.
    pub fn stop(mut self) {
        let status = self.process.terminate(STOP_LIMIT);
        let status = status.unwrap_or_else(|| panic!("no end within {STOP_LIMIT:?}"));
        assert!(status.success(), "{status}: {}", self.read("stderr"));
    }

    fn read(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::read_to_string(path).expect("the command writes UTF-8")
    }
}

/// A mock of the agent: each scrape reports ten more requests of the model `tiny`, which waited as long as the test
/// says.
#[derive(Debug)]
pub struct MockAgent {
    /// The server that responds.
    pub server: MockServer,
    queue_ms: Arc<AtomicU64>,
}

impl MockAgent {
    /// Starts it with a mean queue of `queue_ms`; 0 means no requests.
    pub fn start(queue_ms: u64) -> Self {
        let queue_ms = Arc::new(AtomicU64::new(queue_ms));
        let (served_ms, count, sum_ms) = (queue_ms.clone(), AtomicU64::new(0), AtomicU64::new(0));
        let server = MockServer::start(move |_| {
            let queue_ms = served_ms.load(Ordering::Relaxed);
            let more = if queue_ms > 0 { 10 } else { 0 };
            let count = count.fetch_add(more, Ordering::Relaxed) + more;
            let sum_ms = sum_ms.fetch_add(more * queue_ms, Ordering::Relaxed) + more * queue_ms;
            (200, page(count, sum_ms as f64 / 1000.0))
        });
        Self { server, queue_ms }
    }

    /// Changes the mean queue.
    pub fn set_queue_ms(&self, queue_ms: u64) {
        self.queue_ms.store(queue_ms, Ordering::Relaxed);
    }
}

fn page(count: u64, sum_s: f64) -> String {
    let name = "inferprobe_request_inner_queue_seconds";
    let labels = "model=\"tiny\",version=\"default\",server=\"torchserve\"";
    format!(
        "# HELP inferprobe_collector_up Whether a source of figures works: 1 if it does, 0 if not.\n\
         # TYPE inferprobe_collector_up gauge\n\
         inferprobe_collector_up{{collector=\"probes\"}} 1\n\
         # TYPE {name} histogram\n\
         {name}_sum{{{labels}}} {sum_s}\n\
         {name}_count{{{labels}}} {count}\n\
         {name}_bucket{{le=\"+Inf\",{labels}}} {count}\n"
    )
}
