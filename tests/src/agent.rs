//! A handle on a running agent: started and waited for, scraped, its request log read, stopped.

use std::{
    fs::{File, Permissions, set_permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    client,
    clock::{wait_for, wait_within},
    exposition::Exposition,
    process::{Owned, binary},
    unprivileged::Unprivileged,
};

/// Longest time from start to a healthy agent; on an emulated processor the kernel takes long to check its programs.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Names the rung of the ladder of hooks that every agent is held to; by itself, each takes the best.
const RUNG: &str = "INFERPROBE_TEST_RUNG";
/// Name of the request log in the agent's folder.
const LOG: &str = "requests.jsonl";
/// Longest time from the end of a request to its row in the log, by the agent's word.
pub const LOG_LIMIT: Duration = Duration::from_secs(1);
/// How long a test waits for rows whose lateness is not its subject.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time from SIGTERM to the end, by the agent's word.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// One row of the request log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// Connection, as the agent counts them.
    pub conn: u64,
    /// Number of the request on its connection, from 0.
    pub seq: u32,
    /// The process that answered.
    pub pid: u32,
    /// The server's port; `None` on a unix socket.
    pub local_port: Option<u16>,
    /// The client's port; `None` on a unix socket.
    pub peer_port: Option<u16>,
    /// Label `model`.
    pub model: String,
    /// Label `version`.
    pub version: String,
    /// Label `server`.
    pub server: String,
    /// `inference` or `admin`.
    pub purpose: String,
    /// Request method.
    pub method: String,
    /// Status code.
    pub status: u16,
    /// First byte readable; `None` when not seen.
    pub arrival_ns: Option<u64>,
    /// First byte read.
    pub first_read_ns: u64,
    /// Last byte read.
    pub last_read_ns: u64,
    /// First byte of the answer handed over; `None` when only an upper bound is known.
    pub first_write_ns: Option<u64>,
    /// Last byte of the answer handed over.
    pub last_write_ns: Option<u64>,
    /// Head and body of the request.
    pub request_bytes: u64,
    /// Head and body of the answer.
    pub response_bytes: u64,
    /// When the connection was accepted; `None` when not seen, and of all but its first request.
    pub accepted_ns: Option<u64>,
    /// What a frontend's worker did for the request.
    pub worker: Option<LoggedWorker>,
    /// The pieces of a streamed answer; `None` where it is none.
    pub stream: Option<LoggedStream>,
}

/// The pieces of a streamed answer. Times run from the request's arrival, and are `None` when not seen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedStream {
    /// First byte of the answer.
    pub first_byte_ns: Option<u64>,
    /// First byte of its body.
    pub first_chunk_ns: Option<u64>,
    /// Pieces; `None` when they could not be told apart.
    pub chunks: Option<u32>,
    /// Mean time from one piece to the next.
    pub mean_gap_ns: Option<u64>,
}

/// The worker's half of a row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedWorker {
    /// Process.
    pub pid: u32,
    /// What the whole batch ended with: 200, or an error.
    pub code: i32,
    /// When the frontend's thread for the worker handed the frame on; `None` when not seen.
    pub dispatched_ns: Option<u64>,
    /// First byte sent by the frontend; `None` when not seen.
    pub arrival_ns: Option<u64>,
    /// Last byte read by the worker.
    pub last_read_ns: u64,
    /// First byte of its reply; `None` when only an upper bound is known.
    pub first_write_ns: Option<u64>,
    /// Last byte of its reply.
    pub last_write_ns: u64,
    /// Last byte of its reply read by the frontend; `None` when not seen.
    pub reply_read_ns: Option<u64>,
}

impl Logged {
    /// Wait between arrival and first read.
    pub fn queue_ns(&self) -> Option<u64> {
        Some(self.first_read_ns.saturating_sub(self.arrival_ns?))
    }

    /// Wait between the frontend's last read and its handing the request on, as far as that was seen.
    pub fn internal_queue_ns(&self) -> Option<u64> {
        let worker = self.worker.as_ref()?;
        let dispatched_ns = worker.dispatched_ns.filter(|ns| *ns >= self.last_read_ns);
        let queue_end_ns = dispatched_ns.or(worker.arrival_ns)?;
        Some(queue_end_ns.saturating_sub(self.last_read_ns))
    }

    /// Time between the worker's last read and its first write.
    pub fn worker_ns(&self) -> Option<u64> {
        let worker = self.worker.as_ref()?;
        Some(worker.first_write_ns?.saturating_sub(worker.last_read_ns))
    }

    /// Time between the frontend's last read of the request and its last of the reply, as far as that was seen.
    pub fn latency_ns(&self) -> Option<u64> {
        let worker = self.worker.as_ref()?;
        let replied_ns = worker.reply_read_ns.unwrap_or(worker.last_write_ns);
        Some(replied_ns.saturating_sub(self.last_read_ns))
    }

    /// Time between last read and first write.
    pub fn handler_ns(&self) -> Option<u64> {
        Some(self.first_write_ns?.saturating_sub(self.last_read_ns))
    }
}

/// What a run of the agent that ended by itself left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A running agent; it is killed when dropped.
pub struct Agent {
    /// Port of the metrics endpoint.
    pub port: u16,
    process: Owned,
    folder: TempDir,
}

impl Agent {
    /// Starts the agent with `args` beside its endpoint and request log, and waits until it is healthy.
    pub fn start<S: AsRef<str>>(args: &[S]) -> Self {
        Self::start_by(Command::new(agent_binary()), args)
    }

    /// As [`Self::start`], by `launcher`, to whose words the agent's are added; it may be another user's.
    pub fn start_by<S: AsRef<str>>(launcher: Command, args: &[S]) -> Self {
        let started = Self::launch(launcher, args, Self::keep_log);
        started.unwrap_or_else(|errors| panic!("the agent ended: {errors}"))
    }

    /// As [`Self::start`]; what it said, if it ended by itself instead.
    pub fn try_start<S: AsRef<str>>(args: &[S]) -> Result<Self, String> {
        Self::launch(Command::new(agent_binary()), args, Self::keep_log)
    }

    /// Starts the agent as its users do: with `args` beside its endpoint, and no request log.
    pub fn start_unlogged<S: AsRef<str>>(args: &[S]) -> Self {
        let started = Self::launch(Command::new(agent_binary()), args, |_, _| {});
        started.unwrap_or_else(|errors| panic!("the agent ended: {errors}"))
    }

    fn keep_log(command: &mut Command, folder: &Path) {
        command
            .args(["--refresh-interval", "1"])
            .arg("--request-log")
            .arg(folder.join(LOG));
    }

    fn launch<S: AsRef<str>>(
        mut command: Command,
        args: &[S],
        add: impl FnOnce(&mut Command, &Path),
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder for the agent's files");
        let port = free_port();
        let errors = File::create(folder.path().join("stderr")).expect("a file for its errors");
        let all = Permissions::from_mode(0o777);
        set_permissions(folder.path(), all).expect("the folder is ours");
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(args.iter().map(AsRef::as_ref))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        if let Some(rung) = std::env::var_os(RUNG) {
            command.arg("--rung").arg(rung);
        }
        add(&mut command, folder.path());
        let process = command.spawn().expect("the agent can be started");
        let mut agent = Self {
            port,
            process: Owned(process),
            folder,
        };
        let started = wait_within(START_LIMIT, || {
            if let Some(status) = agent.process.wait(Duration::ZERO) {
                return Some(Err(format!("{status}: {}", agent.errors())));
            }
            matches!(client::get(port, "/healthz"), Ok((200, _))).then_some(Ok(()))
        });
        started.unwrap_or_else(|| panic!("not healthy in {START_LIMIT:?}: {}", agent.errors()))?;
        Ok(agent)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Resident set size, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.process.rss_bytes()
    }

    /// CPU time used, user and system, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.process.cpu_s()
    }

    /// Everything it has written to standard error.
    pub fn errors(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("stderr"));
        String::from_utf8_lossy(&bytes.expect("the file was made at the start")).into_owned()
    }

    /// Waits until it has said that it watches the process `pid`, which it found by an event.
    pub fn await_watch(&self, pid: u32) {
        let said = format!("watching pid={pid} ");
        wait_for(&said, PATIENCE, || {
            self.errors().contains(&said).then_some(())
        });
    }

    /// One GET of its endpoint: status and body.
    pub fn get(&self, target: &str) -> (u16, String) {
        client::get(self.port, target)
            .unwrap_or_else(|err| panic!("GET {target} of the agent: {err}; {}", self.errors()))
    }

    /// A scrape, read strictly.
    pub fn metrics(&self) -> Exposition {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        Exposition::parse(&text).unwrap_or_else(|fault| panic!("/metrics {fault}"))
    }

    /// Every whole row of the request log.
    pub fn log(&self) -> Vec<Logged> {
        let path = self.folder.path().join(LOG);
        // The agent may make the file with its first row.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|err| panic!("request log: {err}: {line}"))
            })
            .collect()
    }

    /// The rows that `wanted` accepts, once there are at least `count`.
    pub fn rows(&self, count: usize, wanted: impl Fn(&Logged) -> bool) -> Vec<Logged> {
        self.rows_within(PATIENCE, count, wanted)
    }

    /// The rows that `wanted` accepts, once there are at least `count`; panics after `limit`.
    pub fn rows_within(
        &self,
        limit: Duration,
        count: usize,
        wanted: impl Fn(&Logged) -> bool,
    ) -> Vec<Logged> {
        let what = format!("{count} rows in the request log");
        let mut rows = Vec::new();
        let found = wait_within(limit, || {
            rows = self.log().into_iter().filter(&wanted).collect();
            (rows.len() >= count).then_some(())
        });
        assert!(
            found.is_some(),
            "{what}: not within {limit:?}, but {rows:#?}"
        );
        rows
    }

    /// Waits until the samples of `name` with `labels` add up to at least `least`; the sum then.
    pub fn wait_sum(&self, name: &str, labels: &[(&str, &str)], least: f64) -> f64 {
        let what = format!("{name}{labels:?} of {least}");
        wait_for(&what, PATIENCE, || {
            let sum = self.metrics().sum(name, labels);
            (sum >= least).then_some(sum)
        })
    }

    /// Stops it with SIGTERM; panics unless it ends well within its second.
    pub fn stop(self) {
        self.stop_for_log();
    }

    /// Stops it as [`Self::stop`] does; every row of the request log, those of its last moment too.
    pub fn stop_for_log(mut self) -> Vec<Logged> {
        let start = Instant::now();
        let status = self.process.terminate(Duration::from_secs(10));
        let took = start.elapsed();
        let status = status.unwrap_or_else(|| panic!("SIGTERM did not end it: {}", self.errors()));
        assert!(status.success(), "ended with {status}: {}", self.errors());
        assert!(took <= STOP_LIMIT, "took {took:?} to end after SIGTERM");
        self.log()
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(self) {
        drop(self.process);
    }
}

/// Runs the agent with `args` until it ends by itself, at most ten seconds long.
pub fn run_to_end(args: &[&str]) -> Ended {
    end_of(Command::new(agent_binary()), args)
}

/// As [`run_to_end`], without any privilege: as nobody, if this is root.
pub fn run_unprivileged_to_end(args: &[&str]) -> Ended {
    if !rustix::process::geteuid().is_root() {
        return run_to_end(args);
    }
    end_of(Unprivileged::with(&[]).command(), args)
}

/// As [`run_to_end`], through a program that runs it differently, such as `setpriv`.
pub fn run_through_to_end(through: &[&str], args: &[&str]) -> Ended {
    let (program, options) = through.split_first().expect("a program to run it through");
    // Whoever it is run as must be able to reach it.
    let copy = Unprivileged::with(&[]);
    let mut command = Command::new(program);
    command.args(options).arg(copy.path());
    end_of(command, args)
}

/// As [`run_to_end`], by `launcher`, to whose words `args` are added.
pub fn run_to_end_by(launcher: Command, args: &[&str]) -> Ended {
    end_of(launcher, args)
}

/// As [`run_to_end`], with no tracefs mounted. Needs root.
pub fn run_without_tracefs_to_end(args: &[&str]) -> Ended {
    const SCRIPT: &str = r#"umount -a -t tracefs,debugfs && exec "$0" "$@""#;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", SCRIPT])
        .arg(agent_binary());
    end_of(command, args)
}

fn end_of(mut command: Command, args: &[&str]) -> Ended {
    let folder = tempfile::tempdir().expect("a folder for the agent's output");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let child = command
        .args(args)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("a file for its output"))
        .stderr(File::create(&err).expect("a file for its errors"))
        .spawn()
        .expect("the agent can be started");
    let status = Owned(child).wait(Duration::from_secs(10));
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("the agent writes UTF-8");
    let stderr = read(err);
    let status = status.unwrap_or_else(|| panic!("{args:?} did not end by itself: {stderr}"));
    Ended {
        code: status.code(),
        stdout: read(out),
        stderr,
    }
}

/// A port of 127.0.0.1 that nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address");
    address.port()
}

/// Path of the program under test.
pub fn agent_binary() -> PathBuf {
    binary("inferprobe", Some("INFERPROBE_BIN"))
}
