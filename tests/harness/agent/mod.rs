//! Starts an agent, waits until it is healthy, scrapes it, reads its request log and stops it.

pub mod launcher;
pub mod request_log;
pub mod run;

use std::{
    fs::{File, Permissions, set_permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use launcher::Launcher;
use request_log::Logged;
use tempfile::TempDir;

use crate::{
    client,
    clock::{wait_for, wait_within},
    exposition::Exposition,
    process::Owned,
    tracefs::Tracefs,
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

/// A running agent; it is killed when dropped.
pub struct Agent {
    /// Port of the metrics endpoint.
    pub port: u16,
    process: Owned,
    folder: TempDir,
}

impl Agent {
    /// Starts the agent with `args`, an endpoint and a request log, and waits until it is healthy.
    pub fn start<S: AsRef<str>>(args: &[S]) -> Self {
        Self::start_by(Launcher::agent(), args)
    }

    /// As [`Self::start`], by `launcher`.
    pub fn start_by<S: AsRef<str>>(launcher: impl Into<Launcher>, args: &[S]) -> Self {
        let started = Self::try_start_by(launcher, args);
        started.unwrap_or_else(|errors| panic!("the agent ended: {errors}"))
    }

    /// As [`Self::start_by`]. Returns what the agent reported if it ended by itself instead.
    pub fn try_start_by<S: AsRef<str>>(
        launcher: impl Into<Launcher>,
        args: &[S],
    ) -> Result<Self, String> {
        Self::launch(launcher.into(), args, Self::keep_log)
    }

    /// Starts the agent as its users do: with `args`, an endpoint and no request log.
    pub fn start_unlogged<S: AsRef<str>>(args: &[S]) -> Self {
        let started = Self::launch(Launcher::agent(), args, |_, _| {});
        started.unwrap_or_else(|errors| panic!("the agent ended: {errors}"))
    }

    fn keep_log(command: &mut Command, folder: &Path) {
        command
            .args(["--refresh-interval", "1"])
            .arg("--request-log")
            .arg(folder.join(LOG));
    }

    fn launch<S: AsRef<str>>(
        mut launcher: Launcher,
        args: &[S],
        add: impl FnOnce(&mut Command, &Path),
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder for the agent's files");
        let port = free_port();
        let errors = File::create(folder.path().join("stderr")).expect("a file for its errors");
        let all = Permissions::from_mode(0o777);
        set_permissions(folder.path(), all).expect("the folder is ours");
        let command = launcher.command();
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(args.iter().map(AsRef::as_ref))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        add(command, folder.path());
        if let Some(rung) = std::env::var_os(RUNG) {
            command.arg("--rung").arg(&rung);
            // Its probes of returns need tracefs, which a fresh machine has not mounted.
            if rung == "kprobe" {
                launcher = launcher.or_tracefs(Tracefs::Own);
            }
        }
        let mut agent = Self {
            port,
            process: Owned(launcher.spawn()),
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

/// A port of 127.0.0.1 that nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address");
    address.port()
}
