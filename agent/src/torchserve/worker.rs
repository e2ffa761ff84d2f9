//! Identifies a TorchServe worker process: its number, its model, and when it was started.
//!
//! Reads procfs: command line, parent, the archive's manifest and the names of the frontend's threads.
//! Does not depend on: sockets, requests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use crate::{
    discovery::procfs,
    identity::{Identity, Replica},
};

/// Label `server` of workers.
const SERVER: &str = "torchserve";

/// Manifest of the model archive, which TorchServe unpacks into the worker's working directory.
const MANIFEST: &str = "cwd/MAR-INF/MANIFEST.json";
/// Longest thread name, bytes (`TASK_COMM_LEN` less one, include/linux/sched.h).
const COMM_CAP: usize = 15;

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Name in TorchServe's metrics: `W-9000-resnet_1.0`.
    pub name: String,
    /// Model, version and server.
    pub identity: Identity,
    /// The frontend's process, and the worker's number there.
    pub id: WorkerId,
    /// Start of its process, ns of CLOCK_MONOTONIC, in steps of the kernel's clock tick; `None` if it ended.
    pub started_ns: Option<u64>,
}

/// A frontend's process, and the number of one of its workers: 9000 and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerId {
    /// Process of the frontend.
    pub frontend: u32,
    /// Number of the worker.
    pub number: u32,
}

impl WorkerId {
    /// Returns the worker that the thread `name` of process `frontend` manages; `None` if it manages none.
    pub fn of_thread(frontend: u32, name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix("W-")?;
        let (number, _) = name.split_once('-')?;
        Some(Self {
            frontend,
            number: number.parse().ok()?,
        })
    }
}

/// Identifies the worker `pid`; `None` if the version of its model is unknown.
///
/// `loaded` is the model's name in the frame that loaded it, if that was observed. Otherwise the name is from the
/// frontend's thread for the worker, or from the archive, which in most cases has the model's name.
pub fn identify(pid: u32, loaded: Option<&str>) -> Option<Worker> {
    let id = id_of(pid)?;
    let process = procfs_dir(pid);
    let archive = fs::read(process.join(MANIFEST))
        .ok()
        .and_then(|text| archive_of(&text));
    let threads = thread_names(id.frontend);
    let (model, version) = name_and_version(id.number, loaded, archive, &threads)?;
    Some(Worker::new(pid, id, model, version))
}

/// Identifies the worker `pid`, which is known to run `version` of `model`; `None` if the process ended.
pub fn identify_as(pid: u32, model: String, version: String) -> Option<Worker> {
    Some(Worker::new(pid, id_of(pid)?, model, version))
}

impl Worker {
    fn new(pid: u32, id: WorkerId, model: String, version: String) -> Self {
        Self {
            name: format!("W-{}-{model}_{version}", id.number),
            identity: Identity {
                model: model.into(),
                version: version.into(),
                server: SERVER.into(),
                replica: Replica::default(),
            },
            id,
            started_ns: started_ns(pid),
        }
    }

    /// Returns the time from the start of the process to `loaded_ns`; `None` if the start is unknown.
    pub fn load_ns(&self, loaded_ns: u64) -> Option<u64> {
        loaded_ns.checked_sub(self.started_ns?)
    }
}

fn procfs_dir(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Returns the ID of worker `pid`, from its command line and its parent.
fn id_of(pid: u32) -> Option<WorkerId> {
    let command_line = fs::read(procfs_dir(pid).join("cmdline")).ok()?;
    Some(WorkerId {
        number: worker_number(&command_line)?,
        frontend: procfs::parent_of(pid)?,
    })
}

/// Returns the number at the end of `--sock-name /tmp/.ts.sock.9000`, or of `--port 9000`; arguments end with NUL.
fn worker_number(command_line: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(command_line).ok()?;
    let mut arguments = text.split('\0');
    while let Some(argument) = arguments.next() {
        if matches!(argument, "--sock-name" | "--port") {
            return arguments.next()?.rsplit('.').next()?.parse().ok();
        }
    }
    None
}

#[derive(Deserialize)]
struct Manifest {
    model: Archive,
}

/// Name and version of an archive (`model_archiver/manifest_components/manifest.py` of 0.12.0).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Archive {
    #[serde(rename = "modelName")]
    name: String,
    #[serde(rename = "modelVersion")]
    version: String,
}

fn archive_of(manifest: &[u8]) -> Option<Archive> {
    let manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    Some(manifest.model)
}

/// Returns name and version of a worker's model, if the sources are sufficient and agree.
fn name_and_version(
    number: u32,
    loaded: Option<&str>,
    archive: Option<Archive>,
    threads: &[String],
) -> Option<(String, String)> {
    let prefix = format!("W-{number}-");
    let thread = threads.iter().find(|name| name.starts_with(&prefix));
    let from_thread = thread
        .filter(|name| name.len() < COMM_CAP)
        .and_then(|name| name[prefix.len()..].rsplit_once('_'))
        .map(|(model, version)| (model.to_owned(), version.to_owned()));
    let from_archive = archive.map(|archive| {
        let model = loaded.map_or(archive.name, str::to_owned);
        (model, archive.version)
    });
    let agrees = |(model, version): &(String, String)| {
        let full = format!("{prefix}{model}_{version}");
        thread.is_none_or(|thread| full.starts_with(&**thread))
    };
    from_thread.or_else(|| from_archive.filter(agrees))
}

/// Returns the names of a process's threads.
fn thread_names(pid: u32) -> Vec<String> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}

/// Returns the start of a process, ns of CLOCK_MONOTONIC. Procfs counts on CLOCK_BOOTTIME, which includes suspend.
fn started_ns(pid: u32) -> Option<u64> {
    let pid = i32::try_from(pid).ok()?;
    let stat = ::procfs::process::Process::new(pid).ok()?.stat().ok()?;
    let ticks_per_s = ::procfs::ticks_per_second();
    let since_boot_ns = stat.starttime.checked_mul(1_000_000_000)? / ticks_per_s;
    let now_ns = |clock: ClockId| {
        let now = clock_gettime(clock);
        u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).ok()
    };
    let monotonic_ns = now_ns(ClockId::Monotonic)?;
    let slept_ns = now_ns(ClockId::Boottime)?.saturating_sub(monotonic_ns);
    since_boot_ns.checked_sub(slept_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &str, version: &str) -> Archive {
        Archive {
            name: name.into(),
            version: version.into(),
        }
    }

    #[test]
    fn number_is_in_the_command_line() {
        for (line, expected) in [
            (
                "python3\0w.py\0--sock-type\0unix\0--sock-name\0/tmp/a.b/.ts.sock.9000\0",
                Some(9000),
            ),
            (
                "python3\0w.py\0--sock-type\0tcp\0--port\09001\0",
                Some(9001),
            ),
            ("python3\0w.py\0--port\0", None),
            ("python3\0w.py\0--port\0x\0", None),
            ("", None),
        ] {
            assert_eq!(worker_number(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn worker_of_a_thread_is_in_its_name() {
        let id = WorkerId {
            frontend: 7,
            number: 9000,
        };
        for (name, expected) in [
            (&b"W-9000-tiny_1.0"[..], Some(id)),
            (b"W-9000-", Some(id)),
            (b"W-9000", None),
            (b"W-x-tiny", None),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(WorkerId::of_thread(7, name), expected, "{name:?}");
        }
    }

    #[test]
    fn archive_is_in_the_manifest() {
        let text = br#"{"createdOn": "x", "model": {"modelName": "tiny", "modelVersion": "1.0", "handler": "h"}}"#;
        assert_eq!(archive_of(text), Some(archive("tiny", "1.0")));
        for bad in [&b""[..], b"{}", b"\xff", br#"{"model": {"modelName": 1}}"#] {
            assert_eq!(archive_of(bad), None);
        }
    }

    #[test]
    fn name_and_version_need_sources_that_agree() {
        let threads = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        type Case<'a> = (
            Option<&'a str>,
            Option<Archive>,
            Vec<String>,
            Option<(&'a str, &'a str)>,
        );
        let cases: [Case<'_>; 8] = [
            // The frame names the model, the archive its version.
            (
                Some("mine"),
                Some(archive("tiny", "1.0")),
                threads(&["main"]),
                Some(("mine", "1.0")),
            ),
            // The frontend's thread names both.
            (None, None, threads(&["W-9000-t_2.0"]), Some(("t", "2.0"))),
            (None, None, threads(&["W-9001-t_2.0"]), None),
            // A name that the kernel cut off can only agree, or not.
            (
                None,
                Some(archive("resnet18", "1.0")),
                threads(&["W-9000-resnet18"]),
                Some(("resnet18", "1.0")),
            ),
            (
                None,
                Some(archive("tiny", "1.0")),
                threads(&["W-9000-resnet18"]),
                None,
            ),
            (None, None, threads(&["W-9000-resnet18"]), None),
            // Without threads, the archive's own name counts.
            (
                None,
                Some(archive("tiny", "1.0")),
                threads(&[]),
                Some(("tiny", "1.0")),
            ),
            (Some("mine"), None, threads(&[]), None),
        ];
        for (loaded, archive, threads, expected) in cases {
            let found = name_and_version(9000, loaded, archive.clone(), &threads);
            let found = found
                .as_ref()
                .map(|(model, version)| (&**model, &**version));
            assert_eq!(found, expected, "{loaded:?} {archive:?} {threads:?}");
        }
    }

    #[test]
    fn process_that_is_no_worker_is_not_identified() {
        assert_eq!(identify(std::process::id(), None), None);
    }

    #[test]
    fn start_of_this_process_is_in_the_past() {
        let now = clock_gettime(ClockId::Monotonic);
        let now_ns = u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap();
        let started_ns = started_ns(std::process::id()).unwrap();
        assert!(started_ns <= now_ns && now_ns - started_ns < 600_000_000_000);
    }
}
