//! Holds the watched processes and ports, and the labels of their requests.
//!
//! Reads procfs once per process, when an event or a record first names it; nothing is polled.
//! Does not depend on: records, exchanges.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    catalogue::{
        Catalogue, RequestInfo,
        command::CommandLine,
        entry::Role,
        route::{ModelSource, Purpose, Route},
    },
    discovery::{
        containers::{Containers, Home},
        modules, procfs,
        recognised::{self, Recognised},
        roster::Member,
        trials::Shows,
        watch::{Target, Watch},
    },
    identity::{Replica, Server, ShownLabels},
};

/// How long the name of a process is kept if no exit event will report its end.
const NAME_TRUST: Duration = Duration::from_secs(5);
/// How long an ended process keeps its labels, for records that are not processed yet.
const LINGER: Duration = Duration::from_secs(10);
/// Most ports of one process whose labels are remembered.
const PORTS_KEPT: usize = 64;
/// Largest number of processes that are kept; above it, those with a time limit are dropped.
const NAME_CAP: usize = 16_384;
/// Longest name that a process gives itself and that is kept, characters.
const LONGEST_NAME: usize = 64;
/// Programs that forward connections as they are, to servers that are elsewhere or measured by themselves.
const TUNNELS: [&str; 10] = [
    "ssh",
    "sshd",
    "kubectl",
    "docker-proxy",
    "rootlessport",
    "slirp4netns",
    "pasta",
    "passt",
    "socat",
    "cloudflared",
];
/// Label `version` of a request that names none, as TorchServe writes it.
pub const DEFAULT_VERSION: &str = "default";

#[derive(Debug)]
struct Process {
    /// Short name, `comm`.
    name: Arc<str>,
    /// Why it is watched; `None` if it is not.
    reason: Option<WatchReason>,
    /// Model that it has loaded, if it is a worker.
    model: Option<Arc<str>>,
    /// When the entry expires; `None` if an exit event will report the end of the process.
    until: Option<Instant>,
    /// Its container, and when that was looked up.
    home: Option<(Home, Instant)>,
    /// Where it serves, by port (`None`: a unix socket).
    replicas: Vec<(Option<u16>, Replica)>,
}

impl Process {
    fn new(name: Arc<str>, reason: Option<WatchReason>) -> Self {
        Self {
            name,
            reason,
            model: None,
            until: None,
            home: None,
            replicas: Vec::new(),
        }
    }
}

/// Why a process is watched; both reasons may hold.
#[derive(Debug, Clone, Default)]
struct WatchReason {
    /// Index of the configured watch that matches.
    configured: Option<usize>,
    /// Entry of the catalogue that matches.
    recognised: Option<Recognised>,
    /// What else shows that it is an inference server, in words.
    discovered: Option<Arc<str>>,
}

/// The watched processes and ports.
#[derive(Debug)]
pub struct Registry {
    watches: Vec<Watch>,
    /// Watches that the configuration does not have.
    added: Vec<Watch>,
    catalogue: Arc<Catalogue>,
    processes: HashMap<u32, Process>,
    /// Processes that serve, each with a port that it serves; `None`: only unix sockets.
    serving: HashMap<u32, Option<u16>>,
    /// What processes that send requests were found to be, and until when that holds.
    senders: HashMap<u32, (Option<Server>, Instant)>,
    own_pid: Option<u32>,
    /// Names of containers; `None`: they are not looked up.
    containers: Option<Containers>,
    shown: ShownLabels,
}

impl Registry {
    /// Makes a registry that watches what the configuration names, and the servers of the catalogue.
    ///
    /// `own_pid` is this process's id. `None`: procfs and records use different ids, so procfs is not read.
    pub fn new(watches: Vec<Watch>, catalogue: Arc<Catalogue>, own_pid: Option<u32>) -> Self {
        Self {
            watches,
            added: Vec::new(),
            catalogue,
            processes: HashMap::new(),
            serving: HashMap::new(),
            senders: HashMap::new(),
            own_pid,
            containers: None,
            shown: ShownLabels::ALL,
        }
    }

    /// Looks up the containers of processes from now on, and uses only the labels in `shown`.
    pub fn label_replicas(&mut self, containers: Containers, shown: ShownLabels) {
        let looks = self.sees_processes() && shown.shows_container();
        self.containers = looks.then_some(containers);
        self.shown = shown;
        for process in self.processes.values_mut() {
            process.home = None;
            process.replicas.clear();
        }
    }

    /// Returns where the processes serve that still run.
    pub fn replicas(&self) -> HashSet<Replica> {
        let now = Instant::now();
        let running = self.processes.iter().filter(|(pid, process)| {
            process.until.is_none_or(|until| now < until)
                || self.sees_processes() && procfs::exists(**pid)
        });
        let replicas = running.flat_map(|(_, process)| &process.replicas);
        replicas.map(|(_, replica)| replica.clone()).collect()
    }

    /// Whether procfs uses the same process ids as records.
    pub fn sees_processes(&self) -> bool {
        self.own_pid.is_some()
    }

    /// Adds a watch.
    pub fn add(&mut self, watch: Watch) {
        self.added.push(watch.clone());
        self.watches.push(watch);
    }

    /// Watches what another configuration names, and the servers of its catalogue; returns the processes that are not
    /// watched any more.
    pub fn reconfigure(&mut self, mut watches: Vec<Watch>, catalogue: Arc<Catalogue>) -> Vec<u32> {
        watches.extend(self.added.iter().cloned());
        self.watches = watches;
        self.catalogue = catalogue;
        self.senders.clear();
        let watched = self.processes.iter();
        let watched = watched.filter(|(_, process)| process.reason.is_some());
        let pids: Vec<u32> = watched.map(|(&pid, _)| pid).collect();
        let mut left = Vec::new();
        for pid in pids {
            // The name of one that has ended stays for its last records.
            let Some(line) = procfs::command_line(pid) else {
                continue;
            };
            let reason = self.reason_to_watch(pid, &line);
            let Some(process) = self.processes.get_mut(&pid) else {
                continue;
            };
            let discovered = process.reason.take().and_then(|reason| reason.discovered);
            process.reason = match (reason, discovered) {
                (None, None) => None,
                (reason, discovered) => Some(WatchReason {
                    discovered,
                    ..reason.unwrap_or_default()
                }),
            };
            if process.reason.is_none() {
                left.push(pid);
            }
        }
        left
    }

    /// Returns the TCP ports to watch.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.watches.iter().filter_map(|watch| match watch.target {
            Target::Port(port) => Some(port),
            Target::Exe(_) => None,
        })
    }

    /// Inspects every process; returns those to watch.
    pub fn scan(&mut self) -> std::io::Result<Vec<u32>> {
        if !self.sees_processes() {
            return Ok(Vec::new());
        }
        let mut found = procfs::all()?;
        found.retain(|&pid| self.inspect(pid));
        Ok(found)
    }

    /// Returns the running processes that are not watched.
    pub fn unwatched(&self) -> std::io::Result<Vec<u32>> {
        if !self.sees_processes() {
            return Ok(Vec::new());
        }
        let mut pids = procfs::all()?;
        pids.retain(|&pid| !self.is_watched(pid));
        Ok(pids)
    }

    /// Returns the watched processes that have ended without an exit event.
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

    /// Inspects a process that is new or runs a new program; returns whether to watch it.
    pub fn inspect(&mut self, pid: u32) -> bool {
        self.processes.remove(&pid);
        if self.own_pid.is_none_or(|own_pid| pid == own_pid) {
            return false;
        }
        // A process that has already ended serves nothing.
        let Some(line) = procfs::command_line(pid) else {
            return false;
        };
        let Some(reason) = self.reason_to_watch(pid, &line) else {
            return false;
        };
        let name = procfs::short_name(pid);
        self.insert(pid, Process::new(name, Some(reason)));
        true
    }

    /// Inspects a process that listens and that its command line does not tell; returns whether its modules do, so that it is
    /// watched from now on.
    pub fn inspect_modules(&mut self, pid: u32) -> bool {
        if !self.may_be_discovered(pid) {
            return false;
        }
        let signs = modules::of_process(pid);
        signs.is_some_and(|signs| self.discovered(pid, &format!("it has mapped {signs}")))
    }

    /// Watches a process because of what else shows that it is an inference server; returns `false` if it has ended.
    pub fn discovered(&mut self, pid: u32, why: &str) -> bool {
        let Some(line) = procfs::command_line(pid) else {
            return false;
        };
        let name: String = line.name().chars().take(LONGEST_NAME).collect();
        let reason = WatchReason {
            discovered: Some(why.into()),
            ..WatchReason::default()
        };
        self.insert(pid, Process::new(name.into(), Some(reason)));
        true
    }

    /// Whether a process is unknown so far, and does not belong to a server that is recognised: those have listeners that
    /// no client uses.
    pub fn may_be_discovered(&self, pid: u32) -> bool {
        if self.own_pid.is_none_or(|own_pid| own_pid == pid) || self.is_watched(pid) {
            return false;
        }
        let forwards = |line: CommandLine| TUNNELS.contains(&line.name());
        if procfs::command_line(pid).is_none_or(forwards) {
            return false;
        }
        !recognised::ancestors(pid).any(|(_, line)| self.catalogue.recognise(&line).is_some())
    }

    /// Returns what a request to a server that nothing tells shows about it; `status` is that of the response, or 0.
    pub fn shows(&self, request: RequestInfo<'_>, status: u16) -> Shows {
        // One that is not there shows nothing, whatever its path.
        let is_served = matches!(status, 200..=299 | 400 | 422 | 429 | 500 | 503);
        if is_served && self.catalogue.is_plain(request) {
            Shows::Inference
        } else if self.catalogue.says_nothing(request) {
            Shows::Nothing
        } else {
            Shows::Other
        }
    }

    /// Whether the configuration names the TCP port.
    pub fn has_port(&self, port: u16) -> bool {
        self.ports().any(|own| own == port)
    }

    /// Returns why a process or its port is watched, in words; `None` if neither is.
    pub fn why(&self, pid: Option<u32>, port: Option<u16>) -> Option<String> {
        let is_port =
            |watch: &Watch| matches!(watch.target, Target::Port(own) if Some(own) == port);
        if self.watches.iter().any(is_port) {
            return Some("its port is given".into());
        }
        let reason = self.processes.get(&pid?)?.reason.as_ref()?;
        let watch = reason.configured.and_then(|index| self.watches.get(index));
        if let Some(Target::Exe(regex)) = watch.map(|watch| &watch.target) {
            return Some(format!("its command line matches {regex}"));
        }
        Some(match (&reason.recognised, &reason.discovered) {
            (Some(recognised), _) if recognised.role == Role::Server => {
                "its command line is recognised".into()
            }
            (Some(recognised), _) => {
                format!("its command line is recognised: {}", recognised.role.name())
            }
            (None, discovered) => discovered.as_deref()?.to_owned(),
        })
    }

    /// Records that a watched process forked: the child is watched for the same reason.
    pub fn forked(&mut self, parent: u32, child: u32) {
        let inherited = self
            .processes
            .get(&parent)
            .map(|process| (process.name.clone(), process.reason.clone()));
        if let Some((name, reason)) = inherited {
            self.insert(child, Process::new(name, reason));
        }
    }

    /// Records that a process listens on a TCP port, which matters if either is watched.
    pub fn listens(&mut self, pid: u32, port: u16) {
        if self.is_watched(pid) || self.ports().any(|watched| watched == port) {
            self.serves(pid, Some(port));
        }
    }

    /// Records that a process serves on a watched port (`None`: a unix socket).
    pub fn serves(&mut self, pid: u32, port: Option<u16>) {
        if self.serving.contains_key(&pid) {
            return;
        }
        if self.serving.len() >= NAME_CAP {
            self.serving.clear();
        }
        self.serving.insert(pid, port);
        self.senders.remove(&pid);
    }

    /// Returns the labels of a process that sends requests to a watched server, if it serves itself: as far as its listener,
    /// its command line or its parent show.
    pub fn sender(&mut self, pid: u32) -> Option<Server> {
        let now = Instant::now();
        if let Some((server, _)) = self.senders.get(&pid).filter(|(_, until)| now < *until) {
            return server.clone();
        }
        let server = self.find_sender(pid);
        if self.senders.len() >= NAME_CAP {
            self.senders.clear();
        }
        self.senders.insert(pid, (server.clone(), now + NAME_TRUST));
        server
    }

    fn find_sender(&mut self, pid: u32) -> Option<Server> {
        if let Some(&port) = self.serving.get(&pid) {
            return Some(self.server(pid, port));
        }
        let process = self.processes.get(&pid);
        let recognised = process.and_then(|process| process.reason.as_ref()?.recognised.as_ref());
        if recognised.is_some_and(|recognised| recognised.role != Role::Worker) {
            return Some(self.server(pid, None));
        }
        // A forked process may serve on the listener of its parent.
        let parent = self.sees_processes().then(|| procfs::parent_of(pid))??;
        let &port = self.serving.get(&parent)?;
        Some(self.server(parent, port))
    }

    /// Records that a watched process ended.
    pub fn exited(&mut self, pid: u32) {
        self.serving.remove(&pid);
        self.senders.remove(&pid);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.until = Some(Instant::now() + LINGER);
        }
    }

    /// Whether the process is watched, and not only its port.
    pub fn is_watched(&self, pid: u32) -> bool {
        self.processes
            .get(&pid)
            .is_some_and(|process| process.reason.is_some())
    }

    /// Whether a port is watched, or a process that runs.
    pub fn watches_any(&self) -> bool {
        let mut processes = self.processes.values();
        self.ports().next().is_some()
            || processes.any(|process| process.reason.is_some() && process.until.is_none())
    }

    /// Returns every process that is watched and runs.
    pub fn members(&mut self) -> HashMap<u32, Member> {
        let watched = self.processes.iter();
        let watched =
            watched.filter(|(_, process)| process.reason.is_some() && process.until.is_none());
        let pids: Vec<u32> = watched.map(|(&pid, _)| pid).collect();
        let member = |pid| {
            let loaded = self.model_of_worker(pid);
            let reason = self
                .processes
                .get(&pid)
                .and_then(|process| process.reason.as_ref());
            let recognised = reason.and_then(|reason| reason.recognised.as_ref());
            let recognised = recognised.map(|recognised| recognised.entry.name.clone());
            let server = self.server(pid, None);
            let member = Member {
                server: server.name,
                replica: server.replica.without_port(),
                is_loaded: loaded.is_some(),
                model: loaded.unwrap_or(server.model),
                recognised,
            };
            (pid, member)
        };
        pids.into_iter().map(member).collect()
    }

    /// Whether the process is a worker of a recognised frontend.
    pub fn is_worker(&self, pid: u32) -> bool {
        let process = self.processes.get(&pid);
        let recognised = process.and_then(|process| process.reason.as_ref()?.recognised.as_ref());
        recognised.is_some_and(|recognised| recognised.role == Role::Worker)
    }

    /// Records which model a worker has loaded.
    pub fn loaded(&mut self, pid: u32, model: &str) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.model = Some(model.into());
        }
    }

    /// Returns the model that a worker has loaded; `None` if it is unknown.
    pub fn model_of_worker(&self, pid: u32) -> Option<Arc<str>> {
        self.processes.get(&pid)?.model.clone()
    }

    /// Returns the labels of requests that `pid` answers on `port` (`None`: a unix socket).
    pub fn server(&mut self, pid: u32, port: Option<u16>) -> Server {
        let (process_name, reason) = self.look_up(pid);
        let replica = self.replica(pid, port);
        let by_port = self
            .watches
            .iter()
            .position(|watch| matches!(watch.target, Target::Port(p) if Some(p) == port));
        let WatchReason {
            configured,
            recognised,
            ..
        } = reason.unwrap_or_default();
        let watch = by_port
            .or(configured)
            .and_then(|index| self.watches.get(index));
        let set = |name: fn(&Watch) -> Option<&String>| {
            watch.and_then(name).map(|name| Arc::from(name.as_str()))
        };
        let set_model = set(|watch| watch.model.as_ref());
        let (entry, role, own_model) = match recognised {
            Some(recognised) => (
                Some(recognised.entry),
                Some(recognised.role),
                recognised.model,
            ),
            None => (None, None, None),
        };
        let own_name = set(|watch| watch.server.as_ref());
        Server {
            is_named: own_name.is_some() || entry.is_some(),
            name: own_name
                .or_else(|| entry.as_ref().map(|entry| entry.name.clone()))
                .unwrap_or_else(|| process_name.clone()),
            model_source: match (&set_model, &own_model) {
                (Some(_), _) => ModelSource::Configuration,
                (None, Some(_)) => ModelSource::CommandLine,
                (None, None) => ModelSource::ProcessName,
            },
            model: set_model.or(own_model).unwrap_or(process_name),
            version: set(|watch| watch.version.as_ref()).unwrap_or_else(|| DEFAULT_VERSION.into()),
            is_frontend: role == Some(Role::Server)
                && entry.as_ref().is_some_and(|entry| entry.is_frontend),
            is_internal: role == Some(Role::Internal),
            entry,
            replica,
        }
    }

    /// Looks up the container of a process, unless that was just done: it may be moved, and names may come later.
    fn find_home(&mut self, pid: u32) {
        let (Some(containers), Some(process)) =
            (&mut self.containers, self.processes.get_mut(&pid))
        else {
            return;
        };
        let now = Instant::now();
        let is_due = |at: Instant| now.saturating_duration_since(at) >= NAME_TRUST;
        if process.home.as_ref().is_some_and(|(_, at)| !is_due(*at)) {
            return;
        }
        let before = process.home.take().map(|(home, _)| home);
        // That of a process that has ended stays as it was.
        let home = containers.of(pid, before.as_ref(), now).or(before.clone());
        if home != before {
            process.replicas.clear();
        }
        process.home = home.map(|home| (home, now));
    }

    /// Returns where a process serves on `port`.
    fn replica(&mut self, pid: u32, port: Option<u16>) -> Replica {
        self.find_home(pid);
        let Some(process) = self.processes.get_mut(&pid) else {
            return Replica::default();
        };
        if let Some((_, replica)) = process.replicas.iter().find(|(of, _)| *of == port) {
            return replica.clone();
        }
        let home = process.home.as_ref();
        let container = home.map(|(home, _)| home.container.clone());
        let replica = Replica::new(port, &container.unwrap_or_default(), self.shown);
        if process.replicas.len() >= PORTS_KEPT {
            process.replicas.clear();
        }
        process.replicas.push((port, replica.clone()));
        replica
    }

    /// Returns what a request to `server` is for, and the model that it names.
    pub fn route(&self, server: &Server, request: RequestInfo<'_>) -> Route {
        if server.is_internal {
            return Route::of(Purpose::Internal);
        }
        self.catalogue.route(server.entry.as_deref(), request)
    }

    fn look_up(&mut self, pid: u32) -> (Arc<str>, Option<WatchReason>) {
        let mut home = None;
        if let Some(process) = self.processes.get_mut(&pid) {
            // The clock takes as long as all else here, and a watched process has no limit.
            if process.until.is_none_or(|until| Instant::now() < until) {
                return (process.name.clone(), process.reason.clone());
            }
            home = process.home.take();
        }
        let name = match self.sees_processes() {
            true => procfs::short_name(pid),
            false => procfs::UNKNOWN.into(),
        };
        let process = Process {
            until: Some(Instant::now() + NAME_TRUST),
            home,
            ..Process::new(name.clone(), None)
        };
        self.insert(pid, process);
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
        // It may have ended when its first record comes.
        self.find_home(pid);
    }

    fn reason_to_watch(&self, pid: u32, line: &CommandLine) -> Option<WatchReason> {
        let of_line = |line: &CommandLine| {
            self.watches.iter().position(|watch| match &watch.target {
                Target::Exe(regex) => regex.is_match(&line.given),
                Target::Port(_) => false,
            })
        };
        // A spawned child serves what a fork of the same parent would.
        let ancestor = line
            .is_spawned()
            .then(|| recognised::spawning_ancestor(pid))
            .flatten();
        let configured =
            of_line(line).or_else(|| ancestor.as_ref().and_then(|(_, line)| of_line(line)));
        let recognised = match &ancestor {
            Some((pid, line)) => Recognised::by_line(&self.catalogue, line, *pid)
                .filter(|recognised| recognised.entry.spawned && recognised.role == Role::Server),
            None => Recognised::by_line_and_parent(&self.catalogue, line, pid),
        };
        (configured.is_some() || recognised.is_some()).then_some(WatchReason {
            configured,
            recognised,
            discovered: None,
        })
    }
}
