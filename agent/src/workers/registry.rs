//! Who is watched, and under which names their requests are counted.
//!
//! Reads procfs once per process, when an event or a record first names it: nothing is polled.

use std::{
    collections::HashMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{Target, Watch},
    workers::known::{self, KnownServer},
};

/// How long the name of a process that no exit event will tell of is trusted.
const NAME_TRUST: Duration = Duration::from_secs(5);
/// How long an ended process keeps its names, for records that are still on their way.
const LINGER: Duration = Duration::from_secs(10);
/// Processes whose names are kept; past it, the least trusted go.
const NAME_CAP: usize = 16_384;

/// Names that a server's requests are counted under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Label `server`.
    pub name: Arc<str>,
    /// Model where the path names none.
    pub model: Arc<str>,
    /// Version where the path names none.
    pub version: Arc<str>,
    /// Whether it hands requests on to workers that are watched too.
    pub hands_on: bool,
    /// As [`KnownServer::predicts_only_by_path`].
    pub predicts_only_by_path: bool,
}

/// Version label of a request whose client asked for none, as TorchServe labels it.
pub const DEFAULT_VERSION: &str = "default";

#[derive(Debug)]
struct Process {
    /// Short name, `comm`.
    name: Arc<str>,
    reason: Option<Match>,
    /// Model that it has loaded, if it is a worker.
    model: Option<Arc<str>>,
    /// When the entry is looked up anew, or dropped; `None`: an event will tell.
    until: Option<Instant>,
}

/// Why a process is watched; it may be for both reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Match {
    /// By the configured watch of this index.
    configured: Option<usize>,
    /// By its nature.
    known: Option<KnownServer>,
}

/// The watched processes and ports.
#[derive(Debug)]
pub struct Registry {
    watches: Vec<Watch>,
    processes: HashMap<u32, Process>,
    own_pid: u32,
}

impl Registry {
    /// A registry that watches what the configuration says, and known servers.
    pub fn new(watches: Vec<Watch>) -> Self {
        Self {
            watches,
            processes: HashMap::new(),
            own_pid: std::process::id(),
        }
    }

    /// Adds a watch.
    pub fn add(&mut self, watch: Watch) {
        self.watches.push(watch);
    }

    /// TCP ports to watch.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.watches.iter().filter_map(|watch| match watch.target {
            Target::Port(port) => Some(port),
            Target::Exe(_) => None,
        })
    }

    /// Looks at every process there is; returns those to watch, and tells `on_other` of inference servers that are not.
    pub fn scan(
        &mut self,
        mut on_other: impl FnMut(u32, &'static str),
    ) -> std::io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if self.inspect(pid) {
                found.push(pid);
            } else if let Some(name) =
                read_command_line(pid).and_then(|line| known::name_of_unwatched(&line))
            {
                on_other(pid, name);
            }
        }
        Ok(found)
    }

    /// Looks at a process that is new, or runs a new program; returns whether it is to be watched.
    pub fn inspect(&mut self, pid: u32) -> bool {
        self.processes.remove(&pid);
        if pid == self.own_pid {
            return false;
        }
        // A process that is gone again has nothing to serve.
        let Some(command_line) = read_command_line(pid) else {
            return false;
        };
        let Some(reason) = self.matching(&command_line) else {
            return false;
        };
        let name = read_name(pid);
        self.insert(
            pid,
            Process {
                name,
                reason: Some(reason),
                model: None,
                until: None,
            },
        );
        true
    }

    /// Notes that a watched process forked: the child is watched for the same reason.
    pub fn forked(&mut self, parent: u32, child: u32) {
        let inherited = self
            .processes
            .get(&parent)
            .map(|process| (process.name.clone(), process.reason));
        if let Some((name, reason)) = inherited {
            self.insert(
                child,
                Process {
                    name,
                    reason,
                    model: None,
                    until: None,
                },
            );
        }
    }

    /// Notes that a watched process ended.
    pub fn exited(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.until = Some(Instant::now() + LINGER);
        }
    }

    /// Whether the process is watched for its own sake.
    pub fn is_watched(&self, pid: u32) -> bool {
        self.processes
            .get(&pid)
            .is_some_and(|process| process.reason.is_some())
    }

    /// Whether the process is a worker of a known frontend.
    pub fn is_worker(&self, pid: u32) -> bool {
        let known = self
            .processes
            .get(&pid)
            .and_then(|process| process.reason?.known);
        known == Some(KnownServer::TorchServeWorker)
    }

    /// Notes which model a worker has loaded.
    pub fn loaded(&mut self, pid: u32, model: &str) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.model = Some(model.into());
        }
    }

    /// Model that a worker has loaded; `None` where that is not known.
    pub fn model_of_worker(&self, pid: u32) -> Option<Arc<str>> {
        self.processes.get(&pid)?.model.clone()
    }

    /// Names to count a request under that `pid` answered on `port` (`None`: AF_UNIX).
    pub fn server(&mut self, pid: u32, port: Option<u16>) -> Server {
        let (process_name, reason) = self.look_up(pid);
        let by_port = self
            .watches
            .iter()
            .position(|watch| matches!(watch.target, Target::Port(p) if Some(p) == port));
        let known = reason.and_then(|reason| reason.known);
        let configured = by_port.or(reason.and_then(|reason| reason.configured));
        let watch = configured.and_then(|index| self.watches.get(index));
        let configured_name = |name: Option<&String>| name.map(|name| Arc::from(name.as_str()));
        Server {
            name: configured_name(watch.and_then(|watch| watch.server.as_ref()))
                .or_else(|| known.map(|known| known.name().into()))
                .unwrap_or_else(|| process_name.clone()),
            model: configured_name(watch.and_then(|watch| watch.model.as_ref()))
                .unwrap_or(process_name),
            version: configured_name(watch.and_then(|watch| watch.version.as_ref()))
                .unwrap_or_else(|| DEFAULT_VERSION.into()),
            hands_on: known == Some(KnownServer::TorchServe),
            predicts_only_by_path: known.is_some_and(KnownServer::predicts_only_by_path),
        }
    }

    fn look_up(&mut self, pid: u32) -> (Arc<str>, Option<Match>) {
        let now = Instant::now();
        match self.processes.get(&pid) {
            Some(process) if process.until.is_none_or(|until| now < until) => {
                return (process.name.clone(), process.reason);
            }
            _ => {}
        }
        let name = read_name(pid);
        self.insert(
            pid,
            Process {
                name: name.clone(),
                reason: None,
                model: None,
                until: Some(now + NAME_TRUST),
            },
        );
        (name, None)
    }

    fn insert(&mut self, pid: u32, process: Process) {
        if self.processes.len() >= NAME_CAP {
            let now = Instant::now();
            self.processes
                .retain(|_, process| process.until.is_none_or(|until| now < until));
        }
        if self.processes.len() >= NAME_CAP {
            self.processes.retain(|_, process| process.until.is_none());
        }
        self.processes.insert(pid, process);
    }

    fn matching(&self, command_line: &str) -> Option<Match> {
        let configured = self.watches.iter().position(|watch| match &watch.target {
            Target::Exe(regex) => regex.is_match(command_line),
            Target::Port(_) => false,
        });
        let known = known::recognise(command_line);
        (configured.is_some() || known.is_some()).then_some(Match { configured, known })
    }
}

/// Arguments of a process joined by spaces; `None` if it is gone or a kernel thread.
fn read_command_line(pid: u32) -> Option<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(raw.strip_suffix(b"\0").unwrap_or(&raw)).replace('\0', " ");
    (!line.is_empty()).then_some(line)
}

/// Short name of a process; `unknown` if it is gone.
fn read_name(pid: u32) -> Arc<str> {
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(raw) => String::from_utf8_lossy(raw.trim_ascii_end())
            .as_ref()
            .into(),
        Err(_) => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use regex::Regex;

    use super::*;

    /// A process with a command line of its own, ended with the test.
    struct Sleeper(Child);

    impl Sleeper {
        fn start(tag: &str) -> Self {
            let child = Command::new("sleep")
                .args(["600", tag])
                .stderr(Stdio::null())
                .spawn();
            Self(child.unwrap())
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn watch(target: Target, model: Option<&str>) -> Watch {
        Watch {
            target,
            model: model.map(Into::into),
            version: None,
            server: Some("srv".into()),
        }
    }

    fn exe(pattern: &str) -> Target {
        Target::Exe(Regex::new(pattern).unwrap())
    }

    #[test]
    fn a_port_names_whoever_serves_it() {
        let mut registry = Registry::new(vec![watch(Target::Port(80), Some("m"))]);
        let own = std::process::id();
        let server = registry.server(own, Some(80));
        assert_eq!(
            (&*server.name, &*server.model, &*server.version),
            ("srv", "m", "default")
        );
        let other = registry.server(own, Some(81));
        assert_eq!(other.name, other.model);
        assert_eq!(*other.name, *read_name(own));
    }

    #[test]
    fn a_process_is_found_by_its_command_line_and_names_its_forks() {
        let sleeper = Sleeper::start("0.0001");
        let pid = sleeper.0.id();
        let mut registry = Registry::new(vec![watch(exe("^sleep 600 0.0001$"), Some("m"))]);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !registry.inspect(pid) {
            assert!(
                Instant::now() < deadline,
                "the process never ran its program"
            );
            std::thread::yield_now();
        }
        assert!(registry.scan(|_, _| {}).unwrap().contains(&pid));
        registry.forked(pid, u32::MAX);
        assert_eq!(&*registry.server(u32::MAX, None).model, "m");
        assert!(registry.is_watched(u32::MAX));
    }

    #[test]
    fn a_known_server_with_a_watch_of_its_own_is_both() {
        let mut registry = Registry::new(vec![watch(exe("ModelServer"), Some("m"))]);
        let reason = registry.matching("/usr/bin/java -Xmx1g org.pytorch.serve.ModelServer");
        let both = Match {
            configured: Some(0),
            known: Some(KnownServer::TorchServe),
        };
        assert_eq!(reason, Some(both));
        registry.insert(
            u32::MAX,
            Process {
                name: "java".into(),
                reason,
                model: None,
                until: None,
            },
        );
        let server = registry.server(u32::MAX, Some(8080));
        assert_eq!((&*server.name, &*server.model), ("srv", "m"));
        assert!(server.predicts_only_by_path);
    }

    #[test]
    fn an_ended_process_keeps_its_names_for_a_while() {
        let mut registry = Registry::new(vec![]);
        registry.insert(
            u32::MAX,
            Process {
                name: "gone".into(),
                reason: None,
                model: None,
                until: None,
            },
        );
        registry.exited(u32::MAX);
        assert_eq!(&*registry.server(u32::MAX, None).name, "gone");
        assert_eq!(&*registry.server(u32::MAX - 1, None).name, "unknown");
    }

    #[test]
    fn the_agent_never_watches_itself() {
        let mut registry = Registry::new(vec![watch(exe("."), None)]);
        assert!(!registry.inspect(std::process::id()));
    }
}
