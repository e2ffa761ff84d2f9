//! Calls TorchServe's management endpoint: models, and the number and state of their workers.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::TorchServe;
use crate::{
    client::{Connection, request},
    clock::wait_for,
};

/// Longest wait for the successor of a killed worker; TorchServe waits a second before it starts one.
const SUCCESSOR_LIMIT: Duration = Duration::from_secs(30);

/// A worker of a model, as TorchServe describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its id: the port, or the end of the unix socket's name. A successor has the same.
    pub port: u16,
    /// Its process; `None` while it is being started.
    pub pid: Option<u32>,
    /// `READY`, or why it is not.
    pub status: String,
}

/// A model to register from an archive that set-up made.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// Name of the archive.
    pub archive: &'a str,
    /// Name of the model.
    pub model: &'a str,
    /// Most requests of a batch.
    pub batch_size: u32,
    /// Longest wait for a batch to fill, in milliseconds.
    pub max_batch_delay_ms: u32,
    /// Workers to start.
    pub workers: u32,
}

impl TorchServe {
    /// Returns the workers of a model, in the order of their ids.
    pub fn describe(&self, model: &str) -> Vec<Worker> {
        workers(self.ports.management, model)
            .unwrap_or_else(|| panic!("TorchServe describes {model}"))
    }

    /// Returns the ids of the workers of any model that have a process: TorchServe may restart one that it has just
    /// scaled down, and not describe it.
    pub fn running(&self) -> BTreeSet<u16> {
        let processes = std::fs::read_dir("/proc").expect("procfs is mounted");
        let ids = processes.filter_map(|process| {
            let folder = process.ok()?.path();
            let status = std::fs::read_to_string(folder.join("status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            if parent.trim().parse() != Ok(self.pid) {
                return None;
            }
            let arguments = std::fs::read_to_string(folder.join("cmdline")).ok()?;
            let (_, socket) = arguments.split_once(".ts.sock.")?;
            socket.split('\0').next()?.parse().ok()
        });
        ids.collect()
    }

    /// Returns how many requests wait for a worker of a model.
    pub fn pending(&self, model: &str) -> u64 {
        let (_, text) = ask(self.ports.management, "GET", &format!("/models/{model}"))
            .unwrap_or_else(|err| panic!("TorchServe describes {model}: {err}"));
        let description: Value =
            serde_json::from_str(&text).expect("TorchServe describes a model in JSON");
        description
            .pointer("/0/jobQueueStatus/pendingRequests")
            .and_then(Value::as_u64)
            .expect("a description counts the requests that wait")
    }

    /// Sets the bounds of a model's workers, and waits until TorchServe has scaled them.
    pub fn scale(&self, model: &str, min: u32, max: u32) {
        let bounds = format!("min_worker={min}&max_worker={max}&synchronous=true");
        self.manage("PUT", &format!("/models/{model}?{bounds}"));
    }

    /// Registers a model, and waits until its workers have loaded it.
    pub fn register(&self, registration: &Registration) {
        let Registration {
            archive,
            model,
            batch_size,
            max_batch_delay_ms,
            workers,
        } = registration;
        self.manage(
            "POST",
            &format!(
                "/models?url={archive}&model_name={model}&batch_size={batch_size}\
                 &max_batch_delay={max_batch_delay_ms}&initial_workers={workers}&synchronous=true"
            ),
        );
    }

    /// Ends a model and its workers.
    pub fn unregister(&self, model: &str) {
        self.manage("DELETE", &format!("/models/{model}"));
    }

    /// Kills a worker as the kernel does if memory runs out, and waits until its successor is ready.
    pub fn replace_killed(&self, model: &str, killed: &Worker) -> Worker {
        let pid = killed.pid.and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).expect("the worker has started");
        kill_process(pid, Signal::KILL).expect("the worker is there");
        wait_for("a successor of the worker", SUCCESSOR_LIMIT, || {
            let successor = self
                .describe(model)
                .into_iter()
                .find(|worker| worker.port == killed.port)?;
            (successor.is_ready() && successor.pid != killed.pid).then_some(successor)
        })
    }

    /// Sends a request that must succeed.
    fn manage(&self, method: &str, target: &str) {
        let (status, text) = ask(self.ports.management, method, target)
            .unwrap_or_else(|err| panic!("{method} {target}: {err}"));
        assert_eq!(status, 200, "{method} {target}: {text}");
    }
}

impl Worker {
    /// Returns whether its handler sleeps, as the tests' models do while they work.
    pub fn is_working(&self) -> bool {
        let path = self.pid.map(|pid| format!("/proc/{pid}/wchan"));
        let place = path.and_then(|path| std::fs::read_to_string(path).ok());
        place.is_some_and(|place| place.contains("nanosleep"))
    }

    /// Returns whether it has loaded its model.
    pub fn is_ready(&self) -> bool {
        self.status == "READY"
    }
}

/// Returns whether `model` has workers, and all of them are ready.
pub(super) fn has_ready_workers(port: u16, model: &str) -> bool {
    let workers = workers(port, model).unwrap_or_default();
    !workers.is_empty() && workers.iter().all(Worker::is_ready)
}

/// Returns the workers of `model`; `None` while TorchServe does not know it.
fn workers(port: u16, model: &str) -> Option<Vec<Worker>> {
    let Ok((200, text)) = ask(port, "GET", &format!("/models/{model}")) else {
        return None;
    };
    let description: Value =
        serde_json::from_str(&text).expect("TorchServe describes a model in JSON");
    let workers = description
        .pointer("/0/workers")
        .and_then(Value::as_array)
        .expect("a description lists the workers");
    let mut workers: Vec<Worker> = workers.iter().map(worker).collect();
    workers.sort_by_key(|worker| worker.port);
    Some(workers)
}

fn worker(description: &Value) -> Worker {
    let port = description["id"].as_str().and_then(|id| id.parse().ok());
    let pid = description["pid"].as_i64().expect("a worker has a pid");
    Worker {
        port: port.expect("a worker's id is a number in a string"),
        // TorchServe reports -1 until the worker's process has reported its own.
        pid: u32::try_from(pid).ok(),
        status: description["status"].as_str().unwrap_or_default().into(),
    }
}

fn ask(port: u16, method: &str, target: &str) -> std::io::Result<(u16, String)> {
    let mut connection = Connection::open_tcp(port)?;
    let bytes = request(method, target, &["Connection: close"], b"");
    let (_, answer) = connection.exchange(&bytes)?;
    let text = String::from_utf8(answer.body).map_err(std::io::Error::other)?;
    Ok((answer.status, text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn starting_worker_has_no_pid() {
        for (pid, status, expected) in [(-1, "UNLOADING", None), (41, "READY", Some(41))] {
            let found = worker(&json!({"id": "9000", "pid": pid, "status": status}));
            assert_eq!((found.port, found.pid), (9000, expected));
            assert_eq!(found.is_ready(), expected.is_some());
        }
    }
}
