//! The thread between the kernel and the ledger: drains the rings, and tells the kernel whom to watch.
//!
//! What records come to is the ledger's.

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
    bpf::{
        loader::Probes,
        maps::{Maps, parse_process_event},
    },
    discovery::{procfs::children_of, registry::Registry, watch::Watch},
    exchange::event::Loss,
    metrics::Metrics,
    pipeline::{Pipeline, connections::ConnectionTable},
    request_log::RequestLog,
    torchserve::{
        management::{RunningWorker, model_lookup, url::HttpUrl},
        worker::{self, WorkerId},
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
/// Drains between two readings of the kernel's loss counters.
const DRAINS_PER_COUNT: u32 = 10;
/// Programs that tell of processes.
const PROCESS_PROGRAMS: [&str; 3] = [
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_fork",
];

/// Everything that the thread owns.
pub struct EventLoop {
    probes: Probes,
    rings: Maps,
    ledger: Pipeline,
    /// Workers of TorchServe that procfs does not name.
    unnamed: BTreeSet<u32>,
    /// What TorchServe says of workers that nothing else names.
    looked_up: Option<mpsc::Receiver<RunningWorker>>,
    /// Times that the kernel did not tell of a process.
    untold: u64,
    metrics: Arc<Metrics>,
}

impl EventLoop {
    /// Begins to watch what `registry` asks for.
    pub fn new(
        probes: Probes,
        rings: Maps,
        registry: Registry,
        table: ConnectionTable,
        metrics: Arc<Metrics>,
        log: Option<RequestLog>,
    ) -> Result<Self> {
        metrics.declare_lost(&DropReason::ALL.map(DropReason::name));
        let mut this = Self {
            probes,
            rings,
            ledger: Pipeline::new(registry, table, metrics.clone(), log, monotonic_ns()),
            unnamed: BTreeSet::new(),
            looked_up: None,
            untold: 0,
            metrics,
        };
        let ports: Vec<u16> = this.ledger.registry.ports().collect();
        for port in ports {
            this.rings.set_port(port, true)?;
        }
        Ok(this)
    }

    /// Finds the servers that are there already; returns how many processes are watched.
    pub fn discover(&mut self) -> Result<usize> {
        let found = self.ledger.registry.scan().context("look through /proc")?;
        for &pid in &found {
            self.rings.watch_process(pid)?;
            if !self.ledger.registry.is_worker(pid) {
                continue;
            }
            match worker::identify(pid, None) {
                Some(worker) => self.ledger.introduce(pid, worker, None),
                None => drop(self.unnamed.insert(pid)),
            }
        }
        self.probes.scan_listeners()?;
        Ok(found.len())
    }

    /// Starts to ask a TorchServe about the workers that were found, and whose models nothing else tells.
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
        self.rings.is_open() && self.probes.scan_listeners().is_ok()
    }

    /// Watches one more port.
    pub fn watch_port(&mut self, port: u16, watch: Watch) -> Result<()> {
        self.ledger.registry.add(watch);
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
            let now_ns = monotonic_ns();
            self.ledger.begin_turn(now_ns);
            self.drain_processes();
            self.drain_records();
            if now_ns - ticked_ns < TICK_NS && !stopped {
                continue;
            }
            ticked_ns = now_ns;
            self.take_looked_up();
            let rings = &self.rings;
            self.ledger.tick(|cookie, seq| rings.progress(cookie, seq));
            if drains.is_multiple_of(DRAINS_PER_COUNT) || stopped {
                self.count_drops();
            }
            drains = drains.wrapping_add(1);
            if stopped {
                self.ledger.finish();
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
        self.welcome(&found);
    }

    /// Watches what the processes that were found serve already.
    fn welcome(&mut self, found: &[u32]) {
        if found.is_empty() {
            return;
        }
        // A process may have listened, and forked, before it was found.
        if let Err(err) = self.probes.scan_listeners() {
            warn!(err = format!("{err:#}"), "listeners not scanned");
        }
        for &pid in found {
            info!(pid, server = %self.ledger.registry.server(pid, None).name, "watching");
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
            process::EXIT => self.ledger.exited(event.tgid),
            process::THREAD => {
                let name = event.name.split(|&byte| byte == 0).next();
                if let Some(worker) = WorkerId::of_thread(event.tgid, name.unwrap_or_default()) {
                    self.ledger.dispatched(worker, event.at_ns);
                }
            }
            process::FORK => self.ledger.registry.forked(event.parent, event.tgid),
            process::EXEC => self.inspect(event.tgid, found),
            // A process may have changed its command line since it was started.
            process::LISTEN if !self.ledger.registry.is_watched(event.tgid) => {
                self.inspect(event.tgid, found);
            }
            _ => {}
        }
    }

    fn inspect(&mut self, pid: u32, found: &mut Vec<u32>) {
        if !self.ledger.registry.inspect(pid) {
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
            if !self.ledger.registry.is_watched(child) {
                self.inspect(child, found);
            }
        }
    }

    fn drain_records(&mut self) {
        for _ in 0..RECORDS_PER_DRAIN {
            let Some(entry) = self.rings.records.next() else {
                break;
            };
            self.ledger.take(&entry);
        }
    }

    /// Takes in what TorchServe said of workers that nothing else named.
    fn take_looked_up(&mut self) {
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
                self.ledger.introduce(pid, worker, None);
            }
        }
    }

    fn count_drops(&mut self) {
        for (reason, total) in self.rings.drops() {
            self.metrics.set_lost_total(reason.name(), total);
        }
        let skipped = self.probes.skipped();
        let of_processes = PROCESS_PROGRAMS.iter().filter_map(|name| skipped.get(name));
        let untold = of_processes.sum();
        self.metrics.set_skipped(skipped);
        if untold > self.untold {
            self.untold = untold;
            self.catch_up();
        }
    }

    /// Looks for the processes whose begin or end the kernel did not tell of.
    fn catch_up(&mut self) {
        for pid in self.ledger.registry.gone() {
            self.rings.unwatch_process(pid);
            self.ledger.exited(pid);
        }
        let unknown = match self.ledger.registry.unwatched() {
            Ok(unknown) => unknown,
            Err(err) => {
                warn!(%err, "/proc not looked through");
                return;
            }
        };
        let mut found = Vec::new();
        for pid in unknown {
            self.inspect(pid, &mut found);
        }
        self.welcome(&found);
    }
}

/// Now, nanoseconds of CLOCK_MONOTONIC: the kernel half's clock.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither part is ever negative on this clock.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
