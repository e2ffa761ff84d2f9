//! Runs the thread between the kernel half and the pipeline: drains the rings, and says which processes to watch.
//!
//! Feeds every record and process event to the pipeline, and ticks it.
//! Does not depend on: what records contain.

use std::{
    collections::BTreeSet,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
};

use anyhow::{Context as _, Result};
use inferprobe_ebpf::abi::{ProcessEvent, process};
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};
use tracing::{debug, info, warn};

use crate::{
    bpf::{
        loader::Probes,
        maps::{Maps, parse_process_event},
        plaintext_thread::Ask,
    },
    clock::monotonic_ns,
    discovery::{
        listeners,
        procfs::{self, children_of},
        registry::Registry,
        roster::Roster,
        trials::Action,
        watch::Watch,
    },
    exchange::event::Loss,
    history::History,
    http::url::HttpUrl,
    metrics::{Metrics, families},
    pipeline::{Changes, Pipeline, connections::ConnectionTable, drops::Drops},
    request_log::RequestLog,
    torchserve::{
        management::{RunningWorker, model_lookup},
        worker::{self, WorkerId},
    },
};

/// Longest time between two drains: fewer records than the ring's watermark do not wake the thread.
const DRAIN_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// Shortest time between two ticks, ns: process events may wake the thread much more often.
const TICK_NS: u64 = 15_000_000;
/// Records of one drain; process events and ticks come between two drains.
const RECORDS_PER_DRAIN: u32 = 65_536;
/// Meaning of an epoll event: the end of the run, or work, in a ring or for a scrape.
const STOP: u64 = 0;
const RING: u64 = 1;
/// Drains between two readings of the kernel's loss counters.
const DRAINS_PER_COUNT: u32 = 10;
/// Time between two publications of the watched processes, ns.
const PUBLICATION_NS: u64 = 1_000_000_000;
/// How long the hooks of sockets stay attached after the last server that needed them, ns: to attach them takes milliseconds.
const SOCKETS_NS: u64 = 5_000_000_000;
/// Programs that report processes.
const PROCESS_PROGRAMS: [&str; 3] = [
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_fork",
];

/// What the thread owns.
pub struct EventLoop {
    probes: Probes,
    maps: Maps,
    pipeline: Pipeline,
    /// TorchServe workers whose model procfs does not show.
    unnamed: BTreeSet<u32>,
    /// What TorchServe's management API says about them.
    looked_up: Option<mpsc::Receiver<RunningWorker>>,
    /// Whether to find servers by more than their command lines.
    discovers: bool,
    /// Process events that the kernel skipped.
    skipped_events: u64,
    /// Losses of the programs.
    drops: Drops,
    metrics: Arc<Metrics>,
    /// Whether the hooks of sockets are to be attached.
    reads_sockets: bool,
    /// When the hooks of sockets were last needed, ns.
    needed_ns: u64,
    /// Other configurations; `None`: none comes.
    changes: Option<mpsc::Receiver<Changes>>,
    /// Where to ask for the plaintext of TLS; `None`: it is not read.
    plaintext: Option<mpsc::Sender<Ask>>,
}

impl EventLoop {
    /// Watches the ports of `registry`.
    pub fn new(
        probes: Probes,
        mut maps: Maps,
        registry: Registry,
        connections: ConnectionTable,
        metrics: Arc<Metrics>,
        log: Option<RequestLog>,
    ) -> Result<Self> {
        for port in registry.ports() {
            maps.set_port(port, true)?;
        }
        metrics.set(&families::SOCKET_HOOKS, &[], 1);
        Ok(Self {
            probes,
            maps,
            pipeline: Pipeline::new(registry, connections, metrics.clone(), log, monotonic_ns()),
            unnamed: BTreeSet::new(),
            looked_up: None,
            discovers: false,
            skipped_events: 0,
            drops: Drops::default(),
            reads_sockets: true,
            needed_ns: monotonic_ns(),
            metrics,
            changes: None,
            plaintext: None,
        })
    }

    /// Publishes the watched processes, and what they served, to `roster`.
    pub fn publish_to(&mut self, roster: Arc<Roster>, history: Arc<History>) {
        self.pipeline.publish_to(roster, history);
    }

    /// Applies the configurations that come from `changes`.
    pub fn listen_to(&mut self, changes: mpsc::Receiver<Changes>) {
        self.changes = Some(changes);
    }

    /// Asks for the plaintext of the TLS of watched processes.
    pub fn ask_for_plaintext(&mut self, asks: mpsc::Sender<Ask>) {
        self.plaintext = Some(asks);
    }

    /// Asks for the plaintext of a process, if it is watched.
    fn read_plaintext(&mut self, pid: u32) {
        if let Some(asks) = &self.plaintext
            && self.pipeline.is_watched(pid)
        {
            let server = self.pipeline.server_name(pid);
            // Without the thread, nothing is read.
            let _ = asks.send(Ask::Attach(pid, server));
        }
    }

    fn forget_plaintext(&self, pid: u32) {
        if let Some(asks) = &self.plaintext {
            let _ = asks.send(Ask::Forget(pid));
        }
    }

    fn report_unread(&mut self) {
        if let Some(asks) = &self.plaintext {
            for pid in self.pipeline.take_unread() {
                let server = self.pipeline.server_name(pid);
                let _ = asks.send(Ask::Unread(pid, server));
            }
        }
    }

    fn apply_changes(&mut self) {
        let changes = self.changes.as_ref();
        let changes: Vec<Changes> =
            changes.map_or_else(Vec::new, |changes| changes.try_iter().collect());
        for changes in changes {
            if let Err(err) = self.reconfigure(changes) {
                warn!(
                    err = format!("{err:#}"),
                    "not all of what the configuration names is watched"
                );
            }
        }
    }

    fn reconfigure(&mut self, changes: Changes) -> Result<()> {
        let before = self.pipeline.ports();
        for pid in self.pipeline.reconfigure(changes) {
            self.maps.unwatch_process(pid);
        }
        let now = self.pipeline.ports();
        for &port in before.difference(&now) {
            self.maps.set_port(port, false)?;
        }
        for &port in now.difference(&before) {
            self.pipeline.cancel_trial(port);
            self.maps.set_port(port, true)?;
        }
        let mut found = Vec::new();
        for pid in self.pipeline.unwatched().context("look through /proc")? {
            self.inspect(pid, &mut found);
        }
        self.on_found(&found);
        self.scan_listeners()
    }

    /// Finds the servers that run already; returns how many processes are watched.
    pub fn discover(&mut self) -> Result<usize> {
        let found = self.pipeline.scan().context("look through /proc")?;
        for &pid in &found {
            self.maps.watch_process(pid)?;
            self.read_plaintext(pid);
            if !self.pipeline.is_worker(pid) {
                continue;
            }
            match worker::identify(pid, None) {
                Some(worker) => self.pipeline.add_worker(pid, worker),
                None => drop(self.unnamed.insert(pid)),
            }
        }
        self.scan_listeners()?;
        Ok(found.len())
    }

    /// Finds servers by more than their command lines, now and from now on; returns how many processes are watched for it.
    pub fn discover_more(&mut self) -> usize {
        self.discovers = true;
        let mut found = Vec::new();
        for listener in listeners::find().found {
            if let Some(port) = listener.place.port() {
                self.consider(port, &listener.pids, &mut found);
            }
        }
        self.on_found(&found);
        self.act();
        found.len()
    }

    /// Has the kernel do what follows from the first requests of undecided listeners.
    fn act(&mut self) {
        let mut found = Vec::new();
        let mut left = Vec::new();
        for action in self.pipeline.take_actions() {
            let outcome = match action {
                Action::Look(port) => self.maps.look_at(port, true),
                Action::Leave(port) => {
                    left.push(port);
                    self.maps.look_at(port, false)
                }
                Action::Watch(port, pid) => {
                    self.watch_with_siblings(port, pid, &mut found);
                    self.maps.look_at(port, false)
                }
            };
            if let Err(err) = outcome {
                warn!(
                    err = format!("{err:#}"),
                    "undecided listener not looked at, or still looked at"
                );
            }
        }
        self.on_found(&found);
        if !left.is_empty()
            && let Err(err) = self.release(&left)
        {
            warn!(
                err = format!("{err:#}"),
                "connections of listeners that are no inference servers still cost time"
            );
        }
    }

    /// Watches a process that serves on a port, and the others that hold the same listener.
    fn watch_with_siblings(&mut self, port: u16, pid: u32, found: &mut Vec<u32>) {
        self.watch(pid, found);
        let line = procfs::command_line(pid);
        let listeners = listeners::find().found.into_iter();
        let on_port = listeners.filter(|listener| listener.place.port() == Some(port));
        // Workers with a listener of their own on the same port have the same command line.
        let mut siblings = BTreeSet::new();
        for pids in on_port.map(|listener| listener.pids) {
            let shares = pids.contains(&pid);
            siblings.extend(
                pids.into_iter()
                    .filter(|&other| shares || procfs::command_line(other) == line),
            );
        }
        for sibling in siblings {
            if !self.pipeline.is_watched(sibling) && self.pipeline.discovered_with(sibling, pid) {
                self.watch(sibling, found);
            }
        }
    }

    /// Removes the state that the kernel keeps of the connections of these ports.
    fn release(&mut self, ports: &[u16]) -> Result<()> {
        for &port in ports {
            self.maps.set_released(port, true)?;
        }
        self.scan_listeners()?;
        for &port in ports {
            self.maps.set_released(port, false)?;
        }
        Ok(())
    }

    /// Considers whether `pids`, which hold the listener of a port, are an inference server; adds those that are watched
    /// from now on to `found`.
    fn consider(&mut self, port: u16, pids: &BTreeSet<u32>, found: &mut Vec<u32>) {
        for &pid in pids {
            if self.pipeline.inspect_modules(pid) {
                self.watch(pid, found);
            }
        }
        if pids.iter().any(|&pid| self.pipeline.is_watched(pid)) {
            self.pipeline.cancel_trial(port);
        } else {
            self.pipeline.begin_trial(port, pids);
        }
    }

    /// Asks TorchServe's management API, on a thread of its own, for the models of workers that procfs does not show.
    pub fn ask(&mut self, management: &HttpUrl) -> Result<()> {
        if self.unnamed.is_empty() {
            return Ok(());
        }
        let unnamed = std::mem::take(&mut self.unnamed);
        let looked_up = model_lookup::spawn(management.clone(), unnamed);
        self.looked_up = Some(looked_up.context("start to ask TorchServe")?);
        Ok(())
    }

    /// Whether the kernel still lets this process use its maps and its iterator.
    pub fn reaches_kernel(&mut self) -> bool {
        self.maps.is_open() && self.probes.scan_listeners().is_ok()
    }

    /// Watches one more port.
    pub fn watch_port(&mut self, port: u16, watch: Watch) -> Result<()> {
        self.pipeline.add_watch(watch);
        self.maps.set_port(port, true)?;
        self.scan_listeners()
    }

    /// Finds the listeners that were open before their watch.
    fn scan_listeners(&mut self) -> Result<()> {
        for listener in self.probes.scan_listeners()? {
            self.pipeline.on_listen(listener.tgid, listener.port);
        }
        Ok(())
    }

    /// Runs until `stop` is readable or closed.
    pub fn run(mut self, stop: &OwnedFd) -> Result<()> {
        let waiter = self.waiter(stop)?;
        self.metrics.on_demand.attend(true);
        let _leave = Leave(self.metrics.clone());
        let mut ticked_ns = 0;
        let mut published_ns = 0;
        let mut drains = 0_u32;
        loop {
            let stopped = self.wait(&waiter)?;
            let now_ns = monotonic_ns();
            self.pipeline.set_now(now_ns);
            self.drain_processes();
            self.attach_as_needed(now_ns)?;
            self.drain_records();
            self.serve_scrapes();
            if now_ns - ticked_ns < TICK_NS && !stopped {
                continue;
            }
            ticked_ns = now_ns;
            self.add_looked_up();
            self.apply_changes();
            let maps = &self.maps;
            self.pipeline.tick(|cookie, seq| maps.progress(cookie, seq));
            self.act();
            self.report_unread();
            self.attach_as_needed(now_ns)?;
            if drains.is_multiple_of(DRAINS_PER_COUNT) || stopped {
                self.count_drops();
            }
            if now_ns - published_ns >= PUBLICATION_NS {
                published_ns = now_ns;
                self.pipeline.publish();
            }
            drains = drains.wrapping_add(1);
            if stopped {
                self.pipeline.finish();
                return Ok(());
            }
        }
    }

    /// Attaches the hooks of sockets while something is measured: nothing else on the host is to pay for them.
    fn attach_as_needed(&mut self, now_ns: u64) -> Result<()> {
        if self.pipeline.reads_sockets() {
            self.needed_ns = now_ns;
        }
        let needed = now_ns - self.needed_ns < SOCKETS_NS;
        if needed == self.reads_sockets {
            return Ok(());
        }
        self.probes.read_sockets(needed)?;
        self.reads_sockets = needed;
        let attached = self.probes.reads_sockets();
        debug!(needed, attached, "hooks of sockets");
        self.metrics
            .set(&families::SOCKET_HOOKS, &[], u64::from(attached));
        Ok(())
    }

    /// Waits for work; returns whether it is time to stop.
    fn wait(&self, waiter: &OwnedFd) -> Result<bool> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 4];
        match epoll::wait(waiter, &mut events, Some(&DRAIN_INTERVAL)) {
            Ok((ready, _)) => Ok(ready.iter().any(|event| event.data.u64() == STOP)),
            Err(Errno::INTR) => Ok(false),
            Err(err) => Err(io::Error::from(err)).context("wait for the rings"),
        }
    }

    /// Makes what to wait on: the end of the run, process events, and the record ring's wake-ups.
    ///
    /// A ring is readable for as long as it holds anything. The record ring reports only its wake-ups (EPOLLET), because
    /// otherwise every record would end the wait.
    fn waiter(&self, stop: &OwnedFd) -> Result<OwnedFd> {
        let add = || -> io::Result<OwnedFd> {
            let waiter = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let data = epoll::EventData::new_u64;
            let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&waiter, stop, data(STOP), epoll::EventFlags::IN)?;
            epoll::add(
                &waiter,
                &self.maps.processes,
                data(RING),
                epoll::EventFlags::IN,
            )?;
            epoll::add(&waiter, &self.maps.records, data(RING), edge)?;
            let scrape = self.metrics.on_demand.wake()?;
            epoll::add(&waiter, scrape, data(RING), epoll::EventFlags::IN)?;
            Ok(waiter)
        };
        add().context("prepare to wait for the rings")
    }

    fn drain_processes(&mut self) {
        let mut found = Vec::new();
        while let Some(event) = self.next_process_event() {
            match event {
                Some(event) => self.on_process_event(event, &mut found),
                None => self.pipeline.lose(Loss::Malformed),
            }
        }
        self.on_found(&found);
    }

    /// Watches what processes that are newly watched serve already.
    fn on_found(&mut self, found: &[u32]) {
        if found.is_empty() {
            return;
        }
        // A process may have listened, and forked, before it was found.
        if let Err(err) = self.scan_listeners() {
            warn!(err = format!("{err:#}"), "listeners not scanned");
        }
        for &pid in found {
            let why = self.pipeline.why(pid).unwrap_or_default();
            info!(pid, server = %self.pipeline.server_name(pid), why, "watching");
            self.read_plaintext(pid);
        }
    }

    /// Returns the next event; `Some(None)` for one that is too short.
    fn next_process_event(&mut self) -> Option<Option<ProcessEvent>> {
        self.maps
            .processes
            .next()
            .map(|entry| parse_process_event(&entry))
    }

    /// Adds the processes that are watched from now on to `found`.
    fn on_process_event(&mut self, event: ProcessEvent, found: &mut Vec<u32>) {
        match event.kind {
            process::EXIT => {
                self.forget_plaintext(event.tgid);
                self.maps.forget_process(event.tgid);
                self.pipeline.on_process_exit(event.tgid);
            }
            process::THREAD => {
                let name = event.name.split(|&byte| byte == 0).next();
                if let Some(worker) = WorkerId::of_thread(event.tgid, name.unwrap_or_default()) {
                    self.pipeline.on_dispatch(worker, event.at_ns);
                }
            }
            process::CONNECTED => self.pipeline.on_connected(event.port),
            process::FORK => {
                if let Err(err) = self.maps.note_process(event.tgid) {
                    self.not_watched(event.tgid, &err);
                }
                self.pipeline.on_fork(event.parent, event.tgid);
                self.read_plaintext(event.tgid);
            }
            process::EXEC => {
                self.forget_plaintext(event.tgid);
                self.maps.forget_process(event.tgid);
                self.inspect(event.tgid, found);
            }
            // A process may have changed its command line since it was started.
            process::LISTEN => {
                if !self.pipeline.is_watched(event.tgid) {
                    self.inspect(event.tgid, found);
                }
                if let Some(port) = u16::try_from(event.port).ok().filter(|_| self.discovers) {
                    self.consider(port, &BTreeSet::from([event.tgid]), found);
                }
                self.pipeline.on_listen(event.tgid, event.port);
                self.read_plaintext(event.tgid);
            }
            _ => {}
        }
    }

    fn inspect(&mut self, pid: u32, found: &mut Vec<u32>) {
        if self.pipeline.inspect(pid) {
            self.watch(pid, found);
        }
    }

    /// Has the kernel watch a process, and inspects its children.
    fn watch(&mut self, pid: u32, found: &mut Vec<u32>) {
        if let Err(err) = self.maps.watch_process(pid) {
            self.not_watched(pid, &err);
            return;
        }
        found.push(pid);
        // Events report later forks. Earlier ones are only visible in procfs.
        for child in children_of(pid) {
            if !self.pipeline.is_watched(child) {
                self.inspect(child, found);
            }
        }
    }

    fn not_watched(&mut self, pid: u32, err: &anyhow::Error) {
        self.pipeline.lose(Loss::NotWatched);
        warn!(pid, err = format!("{err:#}"), "process not watched");
    }

    fn drain_records(&mut self) {
        for _ in 0..RECORDS_PER_DRAIN {
            let Some(entry) = self.maps.records.next() else {
                break;
            };
            self.pipeline.on_record(&entry);
        }
    }

    /// Counts the requests in flight, if a scrape asks for them.
    fn serve_scrapes(&mut self) {
        let Some(number) = self.metrics.on_demand.asked() else {
            return;
        };
        match self.probes.scan_open() {
            Ok(written) => {
                // What was answered before the pass is not in flight any more, and what was answered after it need not be.
                self.drain_records();
                self.pipeline.count_in_flight(&written);
                self.metrics.on_demand.serve(number);
            }
            Err(err) => warn!(err = format!("{err:#}"), "open connections not scanned"),
        }
    }

    /// Exports the workers that TorchServe's management API has described.
    fn add_looked_up(&mut self) {
        let Some(looked_up) = &self.looked_up else {
            return;
        };
        for RunningWorker {
            pid,
            model,
            version,
        } in looked_up.try_iter()
        {
            if let Some(worker) = worker::identify_as(pid, model, version) {
                self.pipeline.add_worker(pid, worker);
            }
        }
    }

    fn count_drops(&mut self) {
        let (maps, pipeline) = (&self.maps, &mut self.pipeline);
        self.drops.update(
            maps.drops(),
            || maps.losers(),
            |dropped| pipeline.on_dropped(dropped),
        );
        for (reason, total) in self.drops.unassigned() {
            let labels = [procfs::UNKNOWN, "", "", "", "", reason.name()];
            self.metrics.set(&families::RECORDS_LOST, &labels, total);
        }
        let misses = self.probes.recursion_misses();
        let of_processes = PROCESS_PROGRAMS.iter().filter_map(|name| misses.get(name));
        let skipped_events = of_processes.sum();
        for (program, total) in misses {
            self.metrics
                .set(&families::BPF_RECURSION_MISSES, &[program], total);
        }
        if skipped_events > self.skipped_events {
            self.skipped_events = skipped_events;
            self.catch_up();
        }
    }

    /// Finds the processes whose start or end the kernel did not report.
    fn catch_up(&mut self) {
        for pid in self.pipeline.ended() {
            self.forget_plaintext(pid);
            self.maps.unwatch_process(pid);
            self.pipeline.on_process_exit(pid);
        }
        let unknown = match self.pipeline.unwatched() {
            Ok(unknown) => unknown,
            Err(err) => {
                warn!(%err, "/proc not scanned");
                return;
            }
        };
        let mut found = Vec::new();
        for pid in unknown {
            self.inspect(pid, &mut found);
        }
        self.on_found(&found);
    }
}

/// Says, when dropped, that no thread serves scrapes any more.
struct Leave(Arc<Metrics>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.on_demand.attend(false);
    }
}
