//! Runs the way of a record: connection, exchange, server and route, TorchServe join, metrics and log.
//!
//! `event_loop` feeds it on a thread of its own. `connections` keeps the connections, `classifier` names what comes out of
//! them, `gateways` finds what was sent on, `recorder` counts it.
//! Does not depend on: the kernel, which only `event_loop` uses.

pub mod classifier;
pub mod connection;
pub mod connections;
pub mod drops;
pub mod event_loop;
pub mod gateways;
pub mod losses;
pub mod recorder;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use inferprobe_ebpf::abi::ProgressSlot;

use crate::{
    catalogue::Catalogue,
    discovery::{
        containers::Containers,
        registry::Registry,
        roster::{Roster, ServedTimes},
        trials::Action,
        watch::Watch,
    },
    exchange::event::Loss,
    history::History,
    identity::ShownLabels,
    metrics::Metrics,
    pipeline::{
        classifier::Classifier, connections::ConnectionTable, drops::Dropped, losses::What,
        recorder::Recorder,
    },
    request_log::RequestLog,
    torchserve::worker::{Worker, WorkerId},
};

/// What may change while the agent runs.
#[derive(Debug)]
pub struct Changes {
    /// What to watch.
    pub watches: Vec<Watch>,
    /// The servers that are recognised.
    pub catalogue: Arc<Catalogue>,
    /// Labels of replicas that are used.
    pub shown_labels: ShownLabels,
    /// Where the root of the host is, with the names of containers.
    pub host_root: PathBuf,
    /// The request log, if it is another one: `Some(None)` for none.
    pub log: Option<Option<RequestLog>>,
}

/// All steps, in order: each pushes to the next.
pub struct Pipeline {
    connections: ConnectionTable,
    classifier: Classifier,
    roster: Option<Arc<Roster>>,
    /// When replicas that ended were last looked for, ns.
    swept_ns: u64,
}

/// Time between two looks for replicas that have ended, ns.
const SWEEP_NS: u64 = 60_000_000_000;

impl Pipeline {
    /// Makes a pipeline without any records yet, at `now_ns`.
    pub fn new(
        registry: Registry,
        connections: ConnectionTable,
        metrics: Arc<Metrics>,
        log: Option<RequestLog>,
        now_ns: u64,
    ) -> Self {
        let recorder = Recorder::new(metrics, log);
        Self {
            connections,
            classifier: Classifier::new(registry, recorder, now_ns),
            roster: None,
            swept_ns: now_ns,
        }
    }

    /// Publishes the watched processes, and what they served, to `roster` from now on, and finished requests to `history`.
    pub fn publish_to(&mut self, roster: Arc<Roster>, history: Arc<History>) {
        self.classifier.recorder.history = Some(history);
        self.classifier.recorder.served = Some(ServedTimes::new());
        self.roster = Some(roster);
    }

    /// Publishes the watched processes, and what they served since the last call.
    pub fn publish(&mut self) {
        let (Some(roster), Some(served)) = (&self.roster, &mut self.classifier.recorder.served)
        else {
            return;
        };
        let served = std::mem::take(served);
        if !self.classifier.registry.sees_processes() {
            roster.set_blind();
            return;
        }
        roster.publish(self.classifier.registry.members(), served);
    }

    /// Sets the time of the records to come, ns: what they report is not older than the call before.
    pub fn set_now(&mut self, now_ns: u64) {
        self.classifier.now_ns = now_ns;
    }

    /// Processes an entry of the record ring.
    pub fn on_record(&mut self, entry: &[u8]) {
        self.connections.on_record(entry, &mut self.classifier);
    }

    /// Returns the processes that spoke TLS since the last call which was not read, and may be.
    pub fn take_unread(&mut self) -> impl Iterator<Item = u32> + use<> {
        self.connections.take_unread().into_iter()
    }

    /// Counts the requests that are open on the sockets in `written`, which is what a pass over them wrote, and those sockets.
    pub fn count_in_flight(&mut self, written: &[u8]) {
        let (connections, classifier) = (&self.connections, &mut self.classifier);
        let mut in_flight = BTreeMap::new();
        connections.open_requests(written, |peer, request| {
            if let Some(identity) = classifier.identify_open(peer, &request) {
                *in_flight.entry(identity).or_default() += 1;
            }
        });
        classifier.set_in_flight(&in_flight);
        classifier.set_connections(connections.open_connections(written));
    }

    /// Ends what ends without a record: `progress` returns what the kernel half has not reported yet of a connection.
    pub fn tick(&mut self, progress: impl FnMut(u64, u32) -> Option<ProgressSlot>) {
        let now_ns = self.classifier.now_ns;
        self.connections
            .tick(now_ns, progress, &mut self.classifier);
        for (socket, counts) in self.connections.coverage.drain() {
            self.classifier.on_bytes(socket, counts);
        }
        self.classifier.trials.tick(now_ns);
        if now_ns.saturating_sub(self.swept_ns) >= SWEEP_NS {
            self.swept_ns = now_ns;
            self.classifier.forget_replicas();
        }
        self.classifier.tick();
    }

    /// Records everything that still waits: no more records will come.
    pub fn finish(&mut self) {
        self.classifier.finish();
    }

    /// Processes the end of a watched process.
    pub fn on_process_exit(&mut self, pid: u32) {
        self.connections.on_process_exit(pid);
        self.classifier.on_process_exit(pid);
    }

    /// Records that a TorchServe frontend's thread dispatched a frame to a worker at `at_ns`.
    pub fn on_dispatch(&mut self, worker: WorkerId, at_ns: u64) {
        self.classifier.on_dispatch(worker, at_ns);
    }

    /// Counts a loss that concerns no connection.
    pub fn lose(&mut self, loss: Loss) {
        self.classifier.lose(What::Lost(loss), None);
    }

    /// Counts what the programs in the kernel lost at a server; returns `false` if they do not know at which.
    pub fn on_dropped(&mut self, dropped: Dropped) -> bool {
        self.classifier.on_dropped(dropped)
    }

    /// Exports a TorchServe worker that was found with its model loaded.
    pub fn add_worker(&mut self, pid: u32, worker: Worker) {
        self.classifier.add_worker(pid, worker, None);
    }
}

/// Which processes are watched.
impl Pipeline {
    /// Finds the processes to watch on this host.
    pub fn scan(&mut self) -> io::Result<Vec<u32>> {
        self.classifier.registry.scan()
    }

    /// Applies another configuration; returns the processes that are not watched any more.
    pub fn reconfigure(&mut self, changes: Changes) -> Vec<u32> {
        let registry = &mut self.classifier.registry;
        let left = registry.reconfigure(changes.watches, changes.catalogue);
        let containers = Containers::new(&changes.host_root);
        registry.label_replicas(containers, changes.shown_labels);
        self.classifier.forget_routes();
        if let Some(log) = changes.log {
            self.classifier.recorder.replace_log(log);
        }
        left
    }

    /// The TCP ports that are watched.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.classifier.registry.ports().collect()
    }

    /// Adds a watch.
    pub fn add_watch(&mut self, watch: Watch) {
        self.classifier.registry.add(watch);
    }

    /// Decides whether to watch a process; returns whether it has to be watched from now on.
    pub fn inspect(&mut self, pid: u32) -> bool {
        self.classifier.registry.inspect(pid)
    }

    /// Records that `parent` started `child`.
    pub fn on_fork(&mut self, parent: u32, child: u32) {
        self.classifier.registry.forked(parent, child);
    }

    /// Records that a process listens on a TCP port.
    pub fn on_listen(&mut self, pid: u32, port: u32) {
        if let Ok(port) = u16::try_from(port) {
            self.classifier.registry.listens(pid, port);
        }
    }

    /// Inspects a process that listens; returns whether its modules show an inference server, so that it is watched from now
    /// on.
    pub fn inspect_modules(&mut self, pid: u32) -> bool {
        self.classifier.registry.inspect_modules(pid)
    }

    /// Begins to decide about the listener of a port by its requests, if nothing tells what its process is.
    pub fn begin_trial(&mut self, port: u16, pids: &BTreeSet<u32>) {
        let Classifier {
            registry,
            trials,
            now_ns,
            ..
        } = &mut self.classifier;
        if !registry.has_port(port) && pids.iter().any(|&pid| registry.may_be_discovered(pid)) {
            trials.begin(port, *now_ns);
        }
    }

    /// Whether reads and writes of sockets have to be reported, because something is watched or undecided.
    pub fn reads_sockets(&self) -> bool {
        let Classifier {
            registry,
            trials,
            now_ns,
            ..
        } = &self.classifier;
        registry.watches_any() || trials.reads_sockets(*now_ns)
    }

    /// Ends what is undecided about a port, because a watched process listens on it.
    pub fn cancel_trial(&mut self, port: u16) {
        self.classifier.trials.cancel(port);
    }

    /// Records that a connection to an undecided listener began.
    pub fn on_connected(&mut self, port: u32) {
        let now_ns = self.classifier.now_ns;
        if let Ok(port) = u16::try_from(port) {
            self.classifier.trials.connected(port, now_ns);
        }
    }

    /// Returns what the kernel is to do about undecided listeners.
    pub fn take_actions(&mut self) -> Vec<Action> {
        self.classifier.trials.take_actions()
    }

    /// Watches a process for the same reason as another one, which serves on the same listener.
    pub fn discovered_with(&mut self, pid: u32, other: u32) -> bool {
        let why = self.why(other);
        why.is_some_and(|why| self.classifier.registry.discovered(pid, &why))
    }

    /// Returns why a process is watched, in words.
    pub fn why(&self, pid: u32) -> Option<String> {
        self.classifier.registry.why(Some(pid), None)
    }

    /// Whether a process is watched.
    pub fn is_watched(&self, pid: u32) -> bool {
        self.classifier.registry.is_watched(pid)
    }

    /// Whether a process is a TorchServe worker.
    pub fn is_worker(&self, pid: u32) -> bool {
        self.classifier.registry.is_worker(pid)
    }

    /// Name of the server that a process belongs to.
    pub fn server_name(&mut self, pid: u32) -> Arc<str> {
        self.classifier.registry.server(pid, None).name
    }

    /// Watched processes that have ended.
    pub fn ended(&self) -> Vec<u32> {
        self.classifier.registry.gone()
    }

    /// Processes of this host that are not watched.
    pub fn unwatched(&self) -> io::Result<Vec<u32>> {
        self.classifier.registry.unwatched()
    }
}
