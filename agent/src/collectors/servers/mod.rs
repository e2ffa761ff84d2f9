//! Reads how long the threads of each watched server waited for a CPU, and what stopped them.
//!
//! On a thread of its own: with many threads a reading takes milliseconds. It exports the readers of requests as well.
//! Does not depend on: what requests are.

mod cgroups;
mod cpus;
pub mod pressure;
mod threads;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use procfs::process::{LimitValue, Process};
use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::{
    clock::monotonic_ns,
    collectors::{
        readers,
        servers::{
            cgroups::{Cgroups, Mounts, Readings, Stalls},
            cpus::{Cpus, Taken},
            pressure::RESOURCES,
            threads::{Threads, Times},
        },
    },
    discovery::{procfs as processes, roster::Roster},
    history::{History, readings},
    identity::{Instance, KEPT_AFTER_END},
    metrics::{Metrics, Reading, families},
};

/// Label `collector`, and name of the thread.
const COLLECTOR: &str = "servers";
/// Longest time between two readings: threads that end between them are lost.
const MAX_INTERVAL: Duration = Duration::from_secs(1);
/// Readings after which a value that was not read again expires.
const STALE_AFTER: u32 = 15;
/// Most servers and containers to tell apart.
const MAX_SERVERS: usize = 256;
/// Label of all further ones.
const OTHER: &str = "other";

/// Reads the servers of `roster` for as long as `metrics` is in use elsewhere. Its figures are also evidence in `history`.
pub fn spawn(
    metrics: &Arc<Metrics>,
    history: Arc<History>,
    refresh: Duration,
    roster: Arc<Roster>,
) -> io::Result<()> {
    metrics.collector_up(COLLECTOR, false);
    let metrics = Arc::downgrade(metrics);
    // Before the thread starts: a process that is started from now on counts from its own start.
    let servers = Servers::new();
    thread::Builder::new()
        .name(COLLECTOR.into())
        .spawn(move || {
            let interval = refresh.min(MAX_INTERVAL);
            watch(&metrics, &history, interval, &roster, servers);
        })?;
    Ok(())
}

fn watch(
    metrics: &Weak<Metrics>,
    history: &History,
    interval: Duration,
    roster: &Roster,
    mut servers: Servers,
) {
    if !servers.counts_starvation {
        warn!("this kernel does not count how long threads wait for a CPU");
    }
    let mut from_ns = monotonic_ns();
    while let Some(metrics) = metrics.upgrade() {
        servers.read(&roster.servers(processes::exists), &metrics);
        let at_ns = monotonic_ns();
        for (server, total) in &servers.totals {
            let reading = readings::Reading {
                from_ns,
                at_ns,
                throttled_ns: total.throttled_now_ns,
                own_cpu: total.own_cpu,
                ..readings::Reading::default()
            };
            history.models().read(server, reading);
        }
        from_ns = at_ns;
        let valid_until = Instant::now() + interval * STALE_AFTER;
        metrics.set_readings(COLLECTOR, servers.series(), valid_until);
        let readers = readers::series(history, at_ns);
        metrics.set_readings(readers::SOURCE, readers, valid_until);
        metrics.collector_up_until(COLLECTOR, valid_until);
        drop(metrics);
        thread::sleep(interval);
    }
}

/// Totals of one server since it is watched.
#[derive(Debug, Default)]
struct Total {
    times: Times,
    /// Threads at the last reading.
    threads: u64,
    /// Since when it has had no process; `None` if it has some.
    ended: Option<Instant>,
    /// `None`: no cgroup counts it.
    throttled_ns: Option<u64>,
    /// What the last reading added, 0 without a limit; `None`: no cgroup is known.
    throttled_now_ns: Option<u64>,
    stalls: Stalls,
    /// Share of the busy time of its CPUs that it took itself, at the last reading; `None` if unknown.
    own_cpu: Option<f64>,
}

/// All servers.
#[derive(Debug)]
struct Servers {
    totals: BTreeMap<Instance, Total>,
    /// Label of each process at the last reading.
    labels: HashMap<u32, Instance>,
    threads: Threads,
    mounts: Mounts,
    cgroups: Readings,
    cpus: Cpus,
    counts_starvation: bool,
    /// Start of the readings, ticks since boot.
    start_ticks: u64,
    /// Processes that could not be read, until they end.
    refused: HashSet<u32>,
}

impl Servers {
    fn new() -> Self {
        let limits = Process::myself().and_then(|own| own.limits()).ok();
        let max_files = limits.and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        });
        let now = clock_gettime(ClockId::Boottime);
        let ticks = procfs::ticks_per_second() as f64;
        let boot_s = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
        Self {
            totals: BTreeMap::new(),
            labels: HashMap::new(),
            threads: Threads::new(max_files),
            mounts: Mounts::read(),
            cgroups: Readings::default(),
            cpus: Cpus::default(),
            counts_starvation: threads::are_counted(),
            start_ticks: (boot_s * ticks) as u64,
            refused: HashSet::new(),
        }
    }

    /// Reads these processes, by server.
    fn read(&mut self, processes: &HashMap<u32, Instance>, metrics: &Metrics) {
        for (pid, threads) in self.threads.retain(|pid| processes.contains_key(&pid)) {
            if let Some(server) = self.labels.get(&pid) {
                unread(metrics, server, "ended", threads);
            }
        }
        self.labels.retain(|pid, _| processes.contains_key(pid));
        self.refused.retain(|pid| processes.contains_key(pid));
        for total in self.totals.values_mut() {
            total.threads = 0;
            total.throttled_now_ns = None;
            total.own_cpu = None;
        }
        self.forget(processes, Instant::now());
        match processes.is_empty() {
            // The first reading with a server then knows of none before it.
            true => self.cpus = Cpus::default(),
            false => self.cpus.read(|pid| processes.contains_key(&pid)),
        }
        let mut taken: BTreeMap<Instance, Taken> = BTreeMap::new();
        let mut cgroups: BTreeMap<Instance, Vec<Cgroups>> = BTreeMap::new();
        for (pid, server) in processes {
            let server = self.admit(server);
            self.labels.insert(*pid, server.clone());
            let is_new = self.read_cpu(*pid, taken.entry(server.clone()).or_default());
            if self.counts_starvation {
                self.read_threads(*pid, is_new, &server, metrics);
            }
            if let Some(found) = self.mounts.of(*pid) {
                let of_server = cgroups.entry(server).or_default();
                if !of_server.contains(&found) {
                    of_server.push(found);
                }
            }
        }
        for (server, taken) in &taken {
            if let Some(total) = self.totals.get_mut(server) {
                total.own_cpu = self.cpus.share_of(taken);
            }
        }
        self.cgroups.read(cgroups.values().flatten());
        for (server, cgroups) in &cgroups {
            let total = self.totals.entry(server.clone()).or_default();
            let growth_ns = self.cgroups.throttled_ns(cgroups.iter());
            let is_known = !self.cgroups.are_new(cgroups.iter());
            total.throttled_now_ns = is_known.then(|| growth_ns.unwrap_or(0));
            if let Some(growth_ns) = growth_ns {
                *total.throttled_ns.get_or_insert(0) += growth_ns;
            }
            let stalls = self.cgroups.stalls(cgroups.iter());
            for (total, stall) in total.stalls.iter_mut().zip(stalls) {
                let Some(stall) = stall else {
                    continue;
                };
                let total = total.get_or_insert_default();
                total.some_us += stall.some_us;
                if let Some(full_us) = stall.full_us {
                    *total.full_us.get_or_insert(0) += full_us;
                }
            }
        }
    }

    /// Adds the CPU time of a process to `taken`; returns whether it was started after the readings began.
    fn read_cpu(&mut self, pid: u32, taken: &mut Taken) -> bool {
        let process = i32::try_from(pid)
            .ok()
            .and_then(|pid| Process::new(pid).ok());
        let Some((process, stat)) = process.and_then(|process| {
            let stat = process.stat().ok()?;
            Some((process, stat))
        }) else {
            return false;
        };
        let is_new = stat.starttime >= self.start_ticks;
        self.cpus.add(&process, &stat, is_new, taken);
        is_new
    }

    fn read_threads(&mut self, pid: u32, is_new: bool, server: &Instance, metrics: &Metrics) {
        let total = self.totals.entry(server.clone()).or_default();
        match self.threads.read(pid, is_new) {
            Ok(read) => {
                total.times.add(read.times);
                total.threads += read.threads;
                for (count, reason) in [(read.ended, "ended"), (read.unread, "limit")] {
                    if count > 0 {
                        unread(metrics, server, reason, count);
                    }
                }
            }
            // A process that has ended is no failure.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => {
                unread(metrics, server, "refused", 1);
                if self.refused.insert(pid) {
                    warn!(pid, %err, "threads not read");
                }
            }
        }
    }

    /// Forgets containers that ended a while ago.
    fn forget(&mut self, processes: &HashMap<u32, Instance>, now: Instant) {
        let running: HashSet<&Instance> = processes.values().collect();
        self.totals.retain(|server, total| {
            total.ended = match running.contains(server) {
                true => None,
                false => Some(total.ended.unwrap_or(now)),
            };
            let is_old = |ended| now.saturating_duration_since(ended) >= KEPT_AFTER_END;
            !server.replica.is_contained() || !total.ended.is_some_and(is_old)
        });
    }

    /// Returns the labels of a server: past the limit, `other`.
    fn admit(&mut self, server: &Instance) -> Instance {
        if self.totals.contains_key(server) {
            return server.clone();
        }
        let label = match self.totals.len() < MAX_SERVERS {
            true => server.clone(),
            false => Instance {
                server: OTHER.into(),
                replica: server.replica.all_as(OTHER),
            },
        };
        self.totals.entry(label.clone()).or_default();
        label
    }

    fn series(&self) -> Vec<Reading> {
        let mut series = Vec::new();
        for (server, total) in &self.totals {
            let series_of = |family, labels: &[&str], value: f64| {
                let labels = [
                    &[&*server.server],
                    labels,
                    &server.replica.container_labels(),
                ];
                Reading::new(family, &labels.concat(), value)
            };
            let seconds = |ns: u64| ns as f64 / 1e9;
            if self.counts_starvation {
                let Times { ran_ns, starved_ns } = total.times;
                for (family, value) in [
                    (&families::SERVER_CPU, seconds(ran_ns)),
                    (&families::SERVER_STARVED, seconds(starved_ns)),
                    (&families::SERVER_THREADS, total.threads as f64),
                ] {
                    series.push(series_of(family, &[], value));
                }
            }
            if let Some(throttled_ns) = total.throttled_ns {
                let value = seconds(throttled_ns);
                series.push(series_of(&families::SERVER_THROTTLED, &[], value));
            }
            for (resource, stall) in RESOURCES.into_iter().zip(total.stalls) {
                let Some(stall) = stall else {
                    continue;
                };
                for (kind, value) in stall.kinds() {
                    let labels = [resource, kind];
                    series.push(series_of(&families::SERVER_PRESSURE, &labels, value));
                }
            }
        }
        series
    }
}

/// Counts threads whose last times are unknown.
fn unread(metrics: &Metrics, server: &Instance, reason: &str, threads: u64) {
    let labels = [
        &[&*server.server, reason][..],
        &server.replica.container_labels(),
    ];
    metrics.add(&families::SERVER_THREADS_UNREAD, &labels.concat(), threads);
}
