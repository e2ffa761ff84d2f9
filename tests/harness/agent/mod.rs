//! Starts an agent, waits until it is healthy, scrapes it, reads its request log and stops it.

pub(crate) mod artifacts;
pub mod launcher;
pub mod request_log;
pub mod run;

use std::{
    env,
    fs::{File, Permissions, set_permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use artifacts::Artifacts;
use launcher::Launcher;
use request_log::Logged;

use crate::{
    client,
    clock::{wait_for, wait_within},
    exposition::Exposition,
    process::Owned,
    tracefs::Tracefs,
};

/// Longest time from start to a healthy agent; on an emulated processor the verifier takes long.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Option of the agent that sets its attach mode.
pub const ATTACH_MODE: &str = "--attach-mode";
/// Names the attach mode of every agent; without it, each chooses the best.
const TEST_ATTACH_MODE: &str = "INFERPROBE_TEST_ATTACH_MODE";
/// Sets the level of the agent's log.
const LEVEL: &str = "RUST_LOG";
/// Start of the line in which the agent reports why it ends.
const LAST_WORDS: &str = "inferprobe: ";
/// Longest time from the end of a request to its row in the log, as documented.
pub const LOG_LIMIT: Duration = Duration::from_secs(1);
/// Longest wait for rows, where their delay is not tested.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time from SIGTERM to the end, as documented.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A running agent. It is killed when dropped; if the test panics, its files are kept.
pub struct Agent {
    /// Port of the metrics endpoint.
    pub port: u16,
    process: Owned,
    artifacts: Arc<Artifacts>,
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

    /// As [`Self::start`], with an agent that finds servers by their modules and first requests, also those of other
    /// tests.
    pub fn start_discovering<S: AsRef<str>>(args: &[S]) -> Self {
        let started = Self::launch(Launcher::agent(), args, Self::keep_requests);
        started.unwrap_or_else(|errors| panic!("the agent ended: {errors}"))
    }

    fn keep_log(command: &mut Command, folder: &Path) {
        // Servers of other tests are none of this agent's business.
        command.arg("--no-discover");
        Self::keep_requests(command, folder);
    }

    fn keep_requests(command: &mut Command, folder: &Path) {
        command
            .args(["--refresh-interval", "1"])
            .arg("--request-log")
            .arg(folder.join(artifacts::REQUESTS));
        if env::var_os(LEVEL).is_none() {
            command.env(LEVEL, "info,inferprobe=debug");
        }
    }

    fn launch<S: AsRef<str>>(
        mut launcher: Launcher,
        args: &[S],
        add: impl FnOnce(&mut Command, &Path),
    ) -> Result<Self, String> {
        let artifacts = Artifacts::new();
        let folder = artifacts.folder();
        let port = free_port();
        let errors = File::create(folder.join(artifacts::STDERR)).expect("a file for its errors");
        let all = Permissions::from_mode(0o777);
        set_permissions(folder, all).expect("the folder is ours");
        let command = launcher.command();
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(args.iter().map(AsRef::as_ref))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        add(command, folder);
        if let Some(mode) = env::var_os(TEST_ATTACH_MODE) {
            command.arg(ATTACH_MODE).arg(&mode);
            // Its probes of returns need tracefs, which a fresh machine has not mounted.
            if mode == "kprobe" {
                launcher = launcher.or_tracefs(Tracefs::Own);
            }
        }
        let mut agent = Self {
            port,
            process: Owned(launcher.spawn()),
            artifacts,
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

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the resident set size, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.process.rss_bytes()
    }

    /// Returns the CPU time used, user and system, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.process.cpu_s()
    }

    /// Returns what it has written to standard error, without its records at debug level.
    pub fn errors(&self) -> String {
        let bytes = std::fs::read(self.artifacts.folder().join(artifacts::STDERR));
        without_debug(&String::from_utf8_lossy(
            &bytes.expect("the file was made at the start"),
        ))
    }

    /// Waits until it has logged that it watches the process `pid`, which it found by an event.
    pub fn await_watch(&self, pid: u32) {
        let said = format!("watching pid={pid} ");
        wait_for(&said, PATIENCE, || {
            self.errors().contains(&said).then_some(())
        });
    }

    /// Sends one GET to its endpoint, and returns status and body.
    pub fn get(&self, target: &str) -> (u16, String) {
        client::get(self.port, target)
            .unwrap_or_else(|err| panic!("GET {target} of the agent: {err}; {}", self.errors()))
    }

    /// Scrapes it, and parses the page strictly.
    pub fn metrics(&self) -> Exposition {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        self.artifacts.note_scrape(text.clone());
        Exposition::parse(&text).unwrap_or_else(|fault| panic!("/metrics {fault}"))
    }

    /// Returns its verdict on a model: the name of the cause, and the phrase.
    pub fn verdict(&self, model: &str) -> (String, String) {
        // Of another host it would not be answered.
        let request = b"GET /api/v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        let answered = client::Connection::open_tcp(self.port)
            .and_then(|mut connection| connection.exchange(request));
        let (_, response) = answered.unwrap_or_else(|err| panic!("{err}; {}", self.errors()));
        let live: serde_json::Value =
            serde_json::from_slice(&response.body).unwrap_or_else(|err| panic!("{err}"));
        let mut models = live["models"].as_array().into_iter().flatten();
        let Some(found) = models.find(|one| one["served"]["model"] == model) else {
            return ("idle".into(), String::new());
        };
        let word = |key: &str| {
            found["verdict"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        (word("cause"), word("headline"))
    }

    /// Returns the path of its request log.
    pub fn request_log(&self) -> PathBuf {
        self.artifacts.folder().join(artifacts::REQUESTS)
    }

    /// Returns every complete row of the request log.
    pub fn log(&self) -> Vec<Logged> {
        // The agent may create the file with its first row.
        let text = std::fs::read_to_string(self.request_log()).unwrap_or_default();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|err| panic!("request log: {err}: {line}"))
            })
            .collect()
    }

    /// Empties the request log once no more rows come; the agent appends to it.
    pub fn clear_log(&self) {
        let read = || std::fs::read(self.request_log()).unwrap_or_default();
        wait_for("a quiet request log", PATIENCE, || {
            let rows = read();
            thread::sleep(LOG_LIMIT);
            (rows == read()).then_some(())
        });
        let cleared = std::fs::write(self.request_log(), "");
        cleared.expect("the request log can be emptied");
    }

    /// Returns the rows that `wanted` accepts, once there are at least `count`.
    pub fn rows(&self, count: usize, wanted: impl Fn(&Logged) -> bool) -> Vec<Logged> {
        self.rows_within(PATIENCE, count, wanted)
    }

    /// Returns the rows that `wanted` accepts, once there are at least `count`; panics after `limit`.
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

    /// Waits until the samples of `name` with `labels` add up to at least `least`, and returns their sum.
    pub fn wait_sum(&self, name: &str, labels: &[(&str, &str)], least: f64) -> f64 {
        let what = format!("{name}{labels:?} of {least}");
        wait_for(&what, PATIENCE, || {
            let sum = self.metrics().sum(name, labels);
            (sum >= least).then_some(sum)
        })
    }

    /// Stops it with SIGTERM; panics unless it succeeds within a second.
    pub fn stop(self) {
        self.stop_for_log();
    }

    /// As [`Self::stop`], with so much time to end.
    pub fn stop_within(mut self, limit: Duration) {
        self.end_within(limit);
    }

    /// Stops it as [`Self::stop`] does, and returns every row of the request log, with those that it wrote last.
    pub fn stop_for_log(mut self) -> Vec<Logged> {
        self.end_within(STOP_LIMIT);
        self.log()
    }

    fn end_within(&mut self, limit: Duration) {
        let start = Instant::now();
        let status = self.process.terminate(limit.max(Duration::from_secs(10)));
        let took = start.elapsed();
        let status = status.unwrap_or_else(|| panic!("SIGTERM did not end it: {}", self.errors()));
        assert!(status.success(), "ended with {status}: {}", self.errors());
        assert!(took <= limit, "took {took:?} to end after SIGTERM");
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(self) {
        drop(self);
    }

    /// Scrapes it once more, keeps its files, and prints where: for a failure that is no panic.
    pub fn keep_artifacts(&self) {
        if let Ok((200, page)) = client::get(self.port, "/metrics") {
            self.artifacts.note_scrape(page);
        }
        self.artifacts.keep();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep_artifacts();
        }
    }
}

/// Returns the lines of a log but for records at debug level, which may have several lines.
fn without_debug(log: &str) -> String {
    let mut is_debug = false;
    log.split_inclusive('\n')
        .filter(|line| {
            let level = line.split_whitespace().nth(1).unwrap_or_default();
            if ["ERROR", "WARN", "INFO", "DEBUG"].contains(&level) {
                is_debug = level == "DEBUG";
            } else if line.starts_with(LAST_WORDS) {
                is_debug = false;
            }
            !is_debug
        })
        .collect()
}

/// Returns a free port of 127.0.0.1.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address");
    address.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_records_are_omitted_with_all_their_lines() {
        let log = "2026-01-01T00:00:00Z  INFO probes attached\n2026-01-01T00:00:01Z DEBUG refused verifier_log=0: R1\n\
                   processed 5 insns\n2026-01-01T00:00:02Z  WARN lost\n2026-01-01T00:00:03Z DEBUG a\n\
                   inferprobe: cannot attach\n";
        let expected = "2026-01-01T00:00:00Z  INFO probes attached\n2026-01-01T00:00:02Z  WARN lost\n\
                        inferprobe: cannot attach\n";
        assert_eq!(without_debug(log), expected);
    }
}
