//! The thread between the kernel and the metrics: drains the rings, pairs, names and counts.
//!
//! Everything on the way is decided elsewhere; here it is called in order.

use std::{
    collections::BTreeSet,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
};

use anyhow::{Context as _, Result};
use inferprobe_ebpf::abi::{DropReason, ProcessEvent, process};
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
    time::{ClockId, clock_gettime},
};
use tracing::{info, warn};

use crate::{
    catalogue::Question,
    config::Watch,
    exchange::{Exchange, Loss, Outcome, Peer, Request, Unfinished, WorkerExchange, table::Table},
    frontends::{Answered, Frontends, Settled},
    kernel::{
        loader::Probes,
        rings::{Rings, parse_process_event},
    },
    latency::{Identity, Inner, Observation, Purpose},
    metrics::{LiveWorker, Metrics},
    protocol::{route::Route, torchserve::command::Command},
    request_log::RequestLog,
    torchserve::{lookup, management::Running, url::HttpUrl},
    workers::{
        process::children_of,
        registry::{Registry, Server},
        torchserve::{self, Slot, Worker},
    },
};

/// Longest time between two drains: records below the kernel's watermark wake nobody up.
const DRAIN_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// Least time between two looks at the answers under way, ns: process events may wake the thread much more often.
const TICK_NS: u64 = 15_000_000;
/// Records taken in one go: behind them, processes and answers under way have their turn.
const RECORDS_PER_DRAIN: u32 = 65_536;
/// What an event tells of: the end of the run, or a ring.
const STOP: u64 = 0;
const RING: u64 = 1;
/// Label `server` of TorchServe's workers.
const TORCHSERVE: &str = "torchserve";
/// Drains between two readings of the kernel's loss counters.
const DRAINS_PER_COUNT: u32 = 10;

/// Everything that the thread owns.
pub struct Watcher {
    probes: Probes,
    rings: Rings,
    registry: Registry,
    table: Table,
    frontends: Frontends,
    /// What TorchServe says of workers that nothing else names.
    looked_up: Option<mpsc::Receiver<Running>>,
    /// When the latest turn began: what is told in between is no older.
    now_ns: u64,
    metrics: Arc<Metrics>,
    log: Option<RequestLog>,
    outcomes: Vec<Outcome>,
    settled: Vec<Settled>,
}

impl Watcher {
    /// Begins to watch what `registry` asks for.
    pub fn new(
        probes: Probes,
        rings: Rings,
        registry: Registry,
        table: Table,
        metrics: Arc<Metrics>,
        log: Option<RequestLog>,
    ) -> Result<Self> {
        metrics.declare_lost(&DropReason::ALL.map(DropReason::name));
        metrics.declare_lost(&Loss::ALL.map(Loss::name));
        metrics.declare_unfinished(&Unfinished::ALL.map(Unfinished::name));
        let mut this = Self {
            probes,
            rings,
            registry,
            table,
            frontends: Frontends::default(),
            looked_up: None,
            now_ns: monotonic_ns(),
            metrics,
            log,
            outcomes: Vec::new(),
            settled: Vec::new(),
        };
        let ports: Vec<u16> = this.registry.ports().collect();
        for port in ports {
            this.rings.set_port(port, true)?;
        }
        Ok(this)
    }

    /// Finds the servers that are there already; returns how many processes are watched.
    ///
    /// `management` is where a TorchServe is asked about workers whose models nothing else tells.
    pub fn discover(&mut self, management: &HttpUrl) -> Result<usize> {
        let found = self.registry.scan().context("look through /proc")?;
        let mut unnamed = BTreeSet::new();
        for &pid in &found {
            self.rings.watch_process(pid)?;
            if !self.registry.is_worker(pid) {
                continue;
            }
            match torchserve::identify(pid, None) {
                Some(worker) => self.introduce(pid, worker, None),
                None => drop(unnamed.insert(pid)),
            }
        }
        if !unnamed.is_empty() {
            let looked_up = lookup::spawn(management.clone(), unnamed);
            self.looked_up = Some(looked_up.context("start to ask TorchServe")?);
        }
        self.probes.scan_listeners()?;
        Ok(found.len())
    }

    /// Watches one more port.
    pub fn watch_port(&mut self, port: u16, watch: Watch) -> Result<()> {
        self.registry.add(watch);
        self.rings.set_port(port, true)?;
        self.probes.scan_listeners()
    }

    /// Runs until `stop` is readable or closed.
    pub fn run(mut self, stop: &OwnedFd) -> Result<()> {
        let waiter = self.waiter(stop)?;
        let mut ticked_ns = 0;
        let mut drains = 0_u32;
        loop {
            let stopped = self.wait(&waiter)?;
            self.now_ns = monotonic_ns();
            self.drain_processes();
            self.drain_records();
            if self.now_ns - ticked_ns < TICK_NS && !stopped {
                continue;
            }
            ticked_ns = self.now_ns;
            self.tick();
            if drains.is_multiple_of(DRAINS_PER_COUNT) || stopped {
                self.count_drops();
            }
            drains = drains.wrapping_add(1);
            if stopped {
                self.finish();
                return Ok(());
            }
        }
    }

    /// Waits for work; returns whether it is time to stop.
    fn wait(&self, waiter: &OwnedFd) -> Result<bool> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 3];
        match epoll::wait(waiter, &mut events, Some(&DRAIN_INTERVAL)) {
            Ok((ready, _)) => Ok(ready.iter().any(|event| event.data.u64() == STOP)),
            Err(Errno::INTR) => Ok(false),
            Err(err) => Err(io::Error::from(err)).context("wait for the rings"),
        }
    }

    /// What to wait on: the end of the run, process events, and the record ring's wake-ups.
    ///
    /// A ring is readable for as long as it holds anything, so the record ring tells of its wake-ups alone (EPOLLET):
    /// else every record would end the wait.
    fn waiter(&self, stop: &OwnedFd) -> Result<OwnedFd> {
        let add = || -> io::Result<OwnedFd> {
            let waiter = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let data = epoll::EventData::new_u64;
            let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&waiter, stop, data(STOP), epoll::EventFlags::IN)?;
            epoll::add(
                &waiter,
                &self.rings.processes,
                data(RING),
                epoll::EventFlags::IN,
            )?;
            epoll::add(&waiter, &self.rings.records, data(RING), edge)?;
            Ok(waiter)
        };
        add().context("prepare to wait for the rings")
    }

    fn drain_processes(&mut self) {
        let mut found = Vec::new();
        while let Some(event) = self.next_process_event() {
            match event {
                Some(event) => self.take_process_event(event, &mut found),
                None => self.metrics.lost(Loss::Malformed.name(), 1),
            }
        }
        if found.is_empty() {
            return;
        }
        // A process may have listened, and forked, before it was found.
        if let Err(err) = self.probes.scan_listeners() {
            warn!(err = format!("{err:#}"), "listeners not scanned");
        }
        for pid in found {
            info!(pid, server = %self.registry.server(pid, None).name, "watching");
        }
    }

    /// The next event; an inner `None` stands for one that is too short.
    fn next_process_event(&mut self) -> Option<Option<ProcessEvent>> {
        self.rings
            .processes
            .next()
            .map(|entry| parse_process_event(&entry))
    }

    /// Adds the processes that were found to be watched to `found`.
    fn take_process_event(&mut self, event: ProcessEvent, found: &mut Vec<u32>) {
        match event.kind {
            process::EXIT => {
                self.registry.exited(event.tgid);
                self.table.process_ended(event.tgid);
                self.metrics.worker_ended(event.tgid);
                self.frontends.handovers.forget(event.tgid);
            }
            process::THREAD => {
                let name = event.name.split(|&byte| byte == 0).next();
                if let Some(slot) = Slot::of_thread(event.tgid, name.unwrap_or_default()) {
                    self.frontends.handovers.note(slot, event.at_ns);
                }
            }
            process::FORK => self.registry.forked(event.parent, event.tgid),
            process::EXEC => self.inspect(event.tgid, found),
            // A process may have changed its command line since it was started.
            process::LISTEN if !self.registry.is_watched(event.tgid) => {
                self.inspect(event.tgid, found);
            }
            _ => {}
        }
    }

    fn inspect(&mut self, pid: u32, found: &mut Vec<u32>) {
        if !self.registry.inspect(pid) {
            return;
        }
        if let Err(err) = self.rings.watch_process(pid) {
            self.metrics.lost(Loss::NotWatched.name(), 1);
            warn!(pid, err = format!("{err:#}"), "process not watched");
            return;
        }
        found.push(pid);
        // Forks from here on are told of by events; of those before, nothing else tells.
        for child in children_of(pid) {
            if !self.registry.is_watched(child) {
                self.inspect(child, found);
            }
        }
    }

    fn drain_records(&mut self) {
        for _ in 0..RECORDS_PER_DRAIN {
            if !self.take_record() {
                break;
            }
            if !self.outcomes.is_empty() {
                self.settle();
            }
        }
    }

    /// Takes the next record in; returns whether there was one.
    fn take_record(&mut self) -> bool {
        let Some(entry) = self.rings.records.next() else {
            return false;
        };
        self.table.take(&entry, &mut self.outcomes);
        true
    }

    fn tick(&mut self) {
        self.take_looked_up();
        let rings = &self.rings;
        self.table.tick(
            self.now_ns,
            |cookie, seq| rings.progress(cookie, seq),
            &mut self.outcomes,
        );
        self.settle();
        for ((pid, port), tally) in self.table.coverage.take() {
            let server = self.registry.server(pid, port);
            self.metrics.carried(&server.name, tally);
        }
        let registry = &self.registry;
        self.frontends.tick(
            self.now_ns,
            |pid| registry.model_of_worker(pid),
            &mut self.settled,
            &mut self.outcomes,
        );
        self.settle();
        self.flush_log();
    }

    /// Counts what waits, since nothing more will come.
    fn finish(&mut self) {
        self.frontends.finish(&mut self.settled);
        self.settle();
        self.flush_log();
    }

    /// Names what came out, and counts what need not wait.
    fn settle(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        for outcome in outcomes.drain(..) {
            match outcome {
                Outcome::Finished(exchange) => self.answered(exchange),
                Outcome::Worked(worked) => self.worked(worked),
                Outcome::Abandoned(peer, request) => self.abandoned(peer, &request),
                Outcome::Unfinished(reason) => self.metrics.unfinished(reason.name()),
                Outcome::Lost(loss) => self.metrics.lost(loss.name(), 1),
            }
        }
        // What was lost on the way came in between.
        outcomes.append(&mut self.outcomes);
        self.outcomes = outcomes;
        let mut settled = std::mem::take(&mut self.settled);
        for settled in settled.drain(..) {
            match settled {
                Settled::Answer(answered, inner, worker) => {
                    self.count(answered, inner, worker.as_deref());
                }
                Settled::Abandoned(observation) => self.metrics.observe_abandoned(&observation),
            }
        }
        self.settled = settled;
    }

    fn answered(&mut self, exchange: Exchange) {
        let is_grpc = exchange.is_grpc();
        let (server, route) = self.classify(exchange.peer, &exchange.request, is_grpc);
        let answered = Answered {
            exchange,
            server,
            route,
        };
        self.frontends
            .answered(answered, self.now_ns, &mut self.settled);
    }

    fn abandoned(&mut self, peer: Peer, request: &Request) {
        let (server, route) = self.classify(peer, request, request.is_call());
        if !server.hands_on || route.purpose != Purpose::Inference {
            return;
        }
        let identity = Identity::new(server, route);
        if request.is_call() {
            self.frontends.abandoned_call(identity, &mut self.settled);
        } else {
            self.frontends
                .abandoned(identity, request.last_read_ns, self.now_ns);
        }
    }

    /// Who was asked, and for what.
    fn classify(&mut self, peer: Peer, request: &Request, is_grpc: bool) -> (Server, Route) {
        let server = self.registry.server(peer.tgid, peer.local_port);
        if request.method.is_empty() && !is_grpc {
            // Nothing tells what it was for, but that workers are asked by their frontends alone.
            let purpose = match self.registry.is_worker(peer.tgid) {
                true => Purpose::Inner,
                false => Purpose::Inference,
            };
            return (server, Route::of(purpose));
        }
        let asked = Question {
            method: &request.method,
            target: &request.target,
            is_grpc,
            on_unix: peer.local_port.is_none(),
            named: request.named.as_deref(),
        };
        let route = self.registry.route(&server, asked);
        (server, route)
    }

    fn worked(&mut self, worked: WorkerExchange) {
        if let Command::Load { model_name, .. } = &worked.command {
            if worked.reply.code == 200 {
                let loaded_ns = worked.replied_ns();
                self.worker_loaded(worked.peer.tgid, model_name.as_deref(), loaded_ns);
            }
            return;
        }
        let model = self.registry.model_of_worker(worked.peer.tgid);
        self.frontends.worked(
            worked,
            model.as_ref(),
            self.now_ns,
            &mut self.settled,
            &mut self.outcomes,
        );
    }

    /// Exports a worker that loaded the model `loaded`, at `loaded_ns`.
    fn worker_loaded(&mut self, pid: u32, loaded: Option<&str>, loaded_ns: u64) {
        match torchserve::identify(pid, loaded) {
            Some(worker) => self.introduce(pid, worker, Some(loaded_ns)),
            None => warn!(
                pid,
                "worker of TorchServe left out: nothing tells its model and version"
            ),
        }
    }

    /// Exports a worker that has its model loaded: since `loaded_ns`, where that was seen.
    fn introduce(&mut self, pid: u32, worker: Worker, loaded_ns: Option<u64>) {
        self.frontends.handovers.introduce(pid, worker.slot);
        let load_ns = worker
            .started_ns
            .and_then(|started_ns| loaded_ns?.checked_sub(started_ns));
        let worker = LiveWorker {
            name: worker.name,
            identity: Identity {
                model: worker.model.into(),
                version: worker.version.into(),
                server: TORCHSERVE.into(),
            },
            load_ns,
        };
        self.registry.loaded(pid, &worker.identity.model);
        self.metrics.worker_loaded(pid, worker);
    }

    /// Takes in what TorchServe said of workers that nothing else named.
    fn take_looked_up(&mut self) {
        let Some(looked_up) = &self.looked_up else {
            return;
        };
        let found: Vec<Running> = looked_up.try_iter().collect();
        for Running {
            pid,
            model,
            version,
        } in found
        {
            if let Some(worker) = torchserve::identify_as(pid, model, version) {
                self.introduce(pid, worker, None);
            }
        }
    }

    fn count(&mut self, answered: Answered, inner: Inner, worker: Option<&WorkerExchange>) {
        let Answered {
            exchange,
            server,
            route,
        } = answered;
        let observation = Observation::new(&exchange, server, route, inner);
        self.metrics.observe(&observation);
        if observation.purpose == Purpose::Inner {
            return;
        }
        if let Some(log) = &mut self.log
            && let Err(err) = log.write(&exchange, worker, &observation)
        {
            self.end_log(&err);
        }
    }

    fn flush_log(&mut self) {
        if let Some(log) = &mut self.log
            && let Err(err) = log.flush()
        {
            self.end_log(&err);
        }
    }

    fn end_log(&mut self, err: &io::Error) {
        warn!(%err, "request log ended");
        self.log = None;
    }

    fn count_drops(&self) {
        for (reason, total) in self.rings.drops() {
            self.metrics.set_lost_total(reason.name(), total);
        }
    }
}

/// Now, nanoseconds of CLOCK_MONOTONIC: the kernel half's clock.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither part is ever negative on this clock.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
