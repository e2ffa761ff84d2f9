//! Who is watched, and under which names their requests are counted.
//!
//! Reads procfs once per process, when an event or a record first names it: nothing is polled.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    catalogue::{
        Catalogue, RequestInfo,
        command::CommandLine,
        entry::{Entry, Role},
        route::{Purpose, Route},
    },
    discovery::{
        procfs,
        watch::{Target, Watch},
    },
    identity::Server,
    protocol::grpc::NamedBy,
};

/// How long the name of a process that no exit event will tell of is trusted.
const NAME_TRUST: Duration = Duration::from_secs(5);
/// How long an ended process keeps its names, for records that are still on their way.
const LINGER: Duration = Duration::from_secs(10);
/// Processes whose names are kept; past it, the least trusted go.
const NAME_CAP: usize = 16_384;
/// Parents that are gone through to find who started a child anew.
const ANCESTORS: usize = 4;

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
#[derive(Debug, Clone, Default)]
struct Match {
    /// By the configured watch of this index.
    configured: Option<usize>,
    /// By its nature.
    known: Option<Known>,
}

/// What the catalogue says of a process.
#[derive(Debug, Clone)]
struct Known {
    entry: Arc<Entry>,
    role: Role,
    /// Label `server`.
    name: Arc<str>,
    /// Model that its command line names.
    model: Option<Arc<str>>,
}

/// The watched processes and ports.
#[derive(Debug)]
pub struct Registry {
    watches: Vec<Watch>,
    catalogue: Arc<Catalogue>,
    processes: HashMap<u32, Process>,
    own_pid: Option<u32>,
}

impl Registry {
    /// A registry that watches what the configuration says, and the servers of the catalogue.
    ///
    /// `own_pid`: this process, as records and procfs have it; `None`: procfs has other numbers than records, and is not
    /// asked.
    pub fn new(watches: Vec<Watch>, catalogue: Arc<Catalogue>, own_pid: Option<u32>) -> Self {
        Self {
            watches,
            catalogue,
            processes: HashMap::new(),
            own_pid,
        }
    }

    /// Whether procfs tells of the processes that records name.
    pub fn sees_processes(&self) -> bool {
        self.own_pid.is_some()
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

    /// Looks at every process there is; returns those to watch.
    pub fn scan(&mut self) -> std::io::Result<Vec<u32>> {
        if !self.sees_processes() {
            return Ok(Vec::new());
        }
        let mut found = procfs::all()?;
        found.retain(|&pid| self.inspect(pid));
        Ok(found)
    }

    /// Processes that are there and not watched.
    pub fn unwatched(&self) -> std::io::Result<Vec<u32>> {
        if !self.sees_processes() {
            return Ok(Vec::new());
        }
        let mut pids = procfs::all()?;
        pids.retain(|&pid| !self.is_watched(pid));
        Ok(pids)
    }

    /// Watched processes that are there no more, and of whose end nothing has told.
    pub fn gone(&self) -> Vec<u32> {
        if !self.sees_processes() {
            return Vec::new();
        }
        let watched = self.processes.iter();
        let watched =
            watched.filter(|(_, process)| process.reason.is_some() && process.until.is_none());
        let pids = watched.map(|(&pid, _)| pid);
        pids.filter(|&pid| !procfs::exists(pid)).collect()
    }

    /// Looks at a process that is new, or runs a new program; returns whether it is to be watched.
    pub fn inspect(&mut self, pid: u32) -> bool {
        self.processes.remove(&pid);
        if self.own_pid.is_none_or(|own_pid| pid == own_pid) {
            return false;
        }
        // A process that is gone again has nothing to serve.
        let Some(line) = procfs::command_line(pid) else {
            return false;
        };
        let Some(reason) = self.matching(pid, &line) else {
            return false;
        };
        let name = procfs::short_name(pid);
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
            .map(|process| (process.name.clone(), process.reason.clone()));
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
        let process = self.processes.get(&pid);
        let known = process.and_then(|process| process.reason.as_ref()?.known.as_ref());
        known.is_some_and(|known| known.role == Role::Worker)
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
        let Match { configured, known } = reason.unwrap_or_default();
        let watch = by_port
            .or(configured)
            .and_then(|index| self.watches.get(index));
        let set = |name: fn(&Watch) -> Option<&String>| {
            watch.and_then(name).map(|name| Arc::from(name.as_str()))
        };
        let model = set(|watch| watch.model.as_ref());
        let by_nature = |known: &Known| known.model.clone();
        Server {
            name: set(|watch| watch.server.as_ref())
                .or_else(|| known.as_ref().map(|known| known.name.clone()))
                .unwrap_or_else(|| process_name.clone()),
            model_is_set: model.is_some(),
            model: model
                .or_else(|| known.as_ref().and_then(by_nature))
                .unwrap_or(process_name),
            version: set(|watch| watch.version.as_ref()).unwrap_or_else(|| DEFAULT_VERSION.into()),
            is_frontend: known
                .as_ref()
                .is_some_and(|known| known.entry.is_frontend && known.role == Role::Server),
            is_internal: known
                .as_ref()
                .is_some_and(|known| known.role == Role::Internal),
            entry: known.map(|known| known.entry),
        }
    }

    /// What a request to `server` is for, and the model that it names.
    pub fn route(&self, server: &Server, asked: RequestInfo<'_>) -> Route {
        if server.is_internal {
            return Route::of(Purpose::Internal);
        }
        let named = asked
            .named
            .filter(|named| !(server.model_is_set && named.by == NamedBy::Body));
        let asked = RequestInfo { named, ..asked };
        self.catalogue.route(server.entry.as_deref(), asked)
    }

    fn look_up(&mut self, pid: u32) -> (Arc<str>, Option<Match>) {
        let now = Instant::now();
        match self.processes.get(&pid) {
            Some(process) if process.until.is_none_or(|until| now < until) => {
                return (process.name.clone(), process.reason.clone());
            }
            _ => {}
        }
        let name = match self.sees_processes() {
            true => procfs::short_name(pid),
            false => procfs::UNKNOWN.into(),
        };
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

    fn matching(&self, pid: u32, line: &CommandLine) -> Option<Match> {
        let of_line = |line: &CommandLine| {
            self.watches.iter().position(|watch| match &watch.target {
                Target::Exe(regex) => regex.is_match(&line.given),
                Target::Port(_) => false,
            })
        };
        // A child that was started anew is what a fork of the same parent would be.
        let starter = line.is_spawned().then(|| starter_of(pid)).flatten();
        let configured = of_line(line).or_else(|| starter.as_ref().and_then(of_line));
        let known = match &starter {
            Some(starter) => {
                let known = self.known(None, starter);
                known.filter(|known| known.entry.spawned && known.role == Role::Server)
            }
            None => self.known(Some(pid), line),
        };
        (configured.is_some() || known.is_some()).then_some(Match { configured, known })
    }

    /// What the catalogue says of a process with this command line; `pid`: its parent's has a say too.
    fn known(&self, pid: Option<u32>, line: &CommandLine) -> Option<Known> {
        let (entry, role) = self.catalogue.recognise(line)?;
        let parent = pid
            .and_then(procfs::parent_of)
            .and_then(procfs::command_line);
        let starter = parent.as_ref().and_then(|parent| {
            let (entry, _) = self.catalogue.recognise(parent)?;
            Some((entry, parent))
        });
        let (entry, role) = match starter {
            Some((starter, _)) if starter.internal_children => (starter, Role::Internal),
            _ => (entry, role),
        };
        let by_parent = || {
            let (starter, parent) = starter.filter(|(starter, _)| Arc::ptr_eq(starter, entry))?;
            starter.model_in(parent)
        };
        let model = entry.model_in(line).or_else(by_parent);
        Some(Known {
            entry: entry.clone(),
            role,
            name: entry.name.as_str().into(),
            model: model.map(Arc::from),
        })
    }
}

/// Command line of the nearest ancestor that is no child started anew itself.
fn starter_of(pid: u32) -> Option<CommandLine> {
    let ancestors = std::iter::successors(Some(pid), |&pid| procfs::parent_of(pid));
    ancestors
        .skip(1)
        .take(ANCESTORS)
        .map_while(procfs::command_line)
        .find(|line| !line.is_spawned())
}
