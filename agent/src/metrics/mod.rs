//! Keeps the values of every family, behind one handle that the agent's threads share.
//!
//! The pipeline and the collectors add and set values; the exporter reads them as text.
//! Does not depend on: the kernel, procfs, HTTP.

mod autoscale;
mod cardinality;
mod encode;
pub mod families;
pub mod family;
mod gauges;
mod gen_ai;
mod histogram;
mod on_demand;
pub mod page;
mod plain;
mod readings;
mod requests;
pub mod stages;
mod streams;
mod tls;
mod torchserve;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub use autoscale::AutoscaleMetrics;
pub use encode::{Format, Selection, Value};
pub use gauges::{DiskSample, GpuMemory, GpuSample, MemorySample};
pub use on_demand::OnDemand;
pub use readings::Reading;
pub use torchserve::{LiveWorker, torchserve_times};

use crate::{
    exchange::{byte_accounting::ByteCounts, event::TlsEvent},
    identity::{Identity, Instance, Replica, ShownLabels},
    metrics::{
        encode::Samples,
        family::Family,
        gauges::{Expiring, Gauges},
        plain::Plain,
        readings::Readings,
        requests::Requests,
        tls::Tls,
        torchserve::Workers,
    },
    observation::Observation,
};

/// The values of every family. Each call holds a lock briefly; [`Metrics::encode`] holds it only while it copies the
/// values.
#[derive(Debug)]
pub struct Metrics {
    hostname: String,
    state: Mutex<State>,
    /// What a scrape asks for.
    pub on_demand: OnDemand,
}

#[derive(Debug)]
struct State {
    requests: Requests,
    tls: Tls,
    workers: Workers,
    plain: Plain,
    collectors: BTreeMap<&'static str, Liveness>,
    gauges: Gauges,
    readings: Readings,
    /// Labels of replicas that may have a value.
    shown: ShownLabels,
}

#[derive(Debug, Clone, Copy)]
enum Liveness {
    Up,
    UpUntil(Instant),
    Down,
}

impl Metrics {
    /// Creates families without samples; `hostname` is the value of TorchServe's label `Hostname`.
    pub fn new(hostname: &str) -> Self {
        let mut plain = Plain::default();
        let version = env!("CARGO_PKG_VERSION");
        plain.set(&families::BUILD_INFO, &[version], Value::Integer(1));
        Self {
            hostname: hostname.to_owned(),
            state: Mutex::new(State {
                requests: Requests::new(),
                tls: Tls::default(),
                workers: Workers::default(),
                plain,
                collectors: BTreeMap::new(),
                gauges: Gauges::default(),
                readings: Readings::default(),
                shown: ShownLabels::ALL,
            }),
            on_demand: OnDemand::new(),
        }
    }

    /// Prints only these labels of replicas.
    pub fn show_labels(&self, shown: ShownLabels) {
        self.state().shown = shown;
    }

    /// Adds one finished request.
    pub fn observe(&self, observation: &Observation) {
        self.state().requests.observe(observation);
    }

    /// Adds a TorchServe request whose client left before the response.
    pub fn observe_abandoned(&self, observation: &Observation) {
        self.state().requests.observe_abandoned(observation);
    }

    /// Sets how many requests each identity has open, those of others are 0.
    pub fn set_in_flight(&self, open: &BTreeMap<Identity, u64>) {
        self.state().requests.set_in_flight(open);
    }

    /// Sets how many connections each server has open, those of others are 0.
    pub fn set_connections(&self, open: &BTreeMap<Instance, u64>) {
        self.state().requests.set_connections(open);
    }

    /// Adds a worker process that has its model loaded.
    pub fn worker_loaded(&self, pid: u32, worker: LiveWorker) {
        self.state().workers.insert(pid, worker);
    }

    /// Removes a worker process that ended; ignores any other process.
    pub fn worker_ended(&self, pid: u32) {
        self.state().workers.remove(pid);
    }

    /// Adds `n` to a plain counter. The label values must be few: no peer may choose them.
    pub fn add(&self, family: &'static Family, labels: &[&str], n: u64) {
        self.state().plain.add(family, labels, n);
    }

    /// Adds `n` to a counter of what was lost or left unfinished of `server`; 0 exports it as 0 if nothing was.
    pub fn lost(&self, family: &'static Family, server: &Instance, reason: &'static str, n: u64) {
        self.state().requests.lost(family, server, reason, n);
    }

    /// Forgets the replicas that ended long ago, if only those in `running` run; returns them.
    pub fn forget_replicas(&self, running: &HashSet<Replica>) -> HashSet<Replica> {
        let mut state = self.state();
        let forgotten = state.requests.forget_replicas(running, Instant::now());
        state.workers.forget(&forgotten);
        forgotten
    }

    /// Sets a plain gauge, or the total of a plain counter that is kept elsewhere; such a total never falls.
    pub fn set(&self, family: &'static Family, labels: &[&str], value: impl Into<Value>) {
        self.state().plain.set(family, labels, value.into());
    }

    /// Removes a series of a plain family.
    pub fn unset(&self, family: &'static Family, labels: &[&str]) {
        self.state().plain.unset(family, labels);
    }

    /// Adds a connection that had waited `wait_ns` until `server` accepted it.
    pub fn accepted(&self, server: &Instance, wait_ns: u64) {
        self.state().requests.accepted(server, wait_ns);
    }

    /// Adds what a TLS connection of `server` showed.
    pub fn tls(&self, server: &Instance, event: TlsEvent) {
        let mut state = self.state();
        let server = state.requests.admit_instance(server);
        state.tls.add(server, event);
    }

    /// Adds bytes read and written on watched sockets of `server`.
    pub fn carried(&self, server: &Instance, tally: ByteCounts) {
        self.state().requests.carried(server, tally);
    }

    /// Sets whether a data source works.
    pub fn collector_up(&self, collector: &'static str, up: bool) {
        let liveness = if up { Liveness::Up } else { Liveness::Down };
        self.state().collectors.insert(collector, liveness);
    }

    /// Sets that a data source works until `until`; after that it counts as failed, unless it is set again.
    pub fn collector_up_until(&self, collector: &'static str, until: Instant) {
        let liveness = Liveness::UpUntil(until);
        self.state().collectors.insert(collector, liveness);
    }

    /// Sets the busy share of all CPUs, percent; `None` removes the value.
    pub fn set_cpu_pct(&self, cpu_pct: Option<f64>) {
        self.state().gauges.cpu_pct = cpu_pct;
    }

    /// Sets the memory values; `None` removes them.
    pub fn set_memory(&self, memory: Option<MemorySample>) {
        self.state().gauges.memory = memory;
    }

    /// Sets the disk values, which expire after `valid_until`; `None` removes them at once.
    pub fn set_disk(&self, disk: Option<DiskSample>, valid_until: Instant) {
        self.state().gauges.disk = disk.map(|value| Expiring { value, valid_until });
    }

    /// Replaces all GPUs by those that could be read; their values expire after `valid_until`.
    pub fn set_gpus(&self, gpus: Vec<GpuSample>, valid_until: Instant) {
        self.state().gauges.gpus = Some(Expiring {
            value: gpus,
            valid_until,
        });
    }

    /// Replaces everything that `source` has read; it expires after `valid_until`.
    pub fn set_readings(&self, source: &'static str, readings: Vec<Reading>, valid_until: Instant) {
        self.state().readings.set(source, readings, valid_until);
    }

    /// Has the values read that only a scrape of `selection` reads. If they are not there in time, they are not exported.
    pub fn refresh(&self, selection: &Selection) {
        let is_asked = [&families::IN_FLIGHT, &families::CONNECTIONS]
            .iter()
            .any(|family| selection.names(family));
        if is_asked && !self.on_demand.ask() {
            self.state().requests.forget_in_flight();
        }
    }

    /// Returns the requests in flight of the processes of a server in one container; `None` if they are not known in time.
    pub fn in_flight(&self, server: &Instance) -> Option<u64> {
        if !self.on_demand.ask() {
            return None;
        }
        self.state().requests.in_flight_of(server)
    }

    /// Returns the text of the families that `selection` asks for.
    pub fn encode(&self, selection: &Selection, format: Format) -> String {
        self.samples(Instant::now()).encode(selection, format)
    }

    fn samples(&self, now: Instant) -> Samples {
        let state = self.state();
        let mut samples = Samples::new(state.shown);
        state.requests.collect(&self.hostname, &mut samples);
        state.tls.collect(&mut samples);
        state.workers.collect(&self.hostname, &mut samples);
        state.plain.collect(&mut samples);
        state.gauges.collect(&self.hostname, now, &mut samples);
        state.readings.collect(now, &mut samples);
        for (collector, liveness) in &state.collectors {
            let up = match liveness {
                Liveness::Up => true,
                Liveness::UpUntil(until) => now <= *until,
                Liveness::Down => false,
            };
            let value = Value::Integer(u64::from(up));
            samples.push(&families::COLLECTOR_UP, &[*collector], value);
        }
        samples
    }

    /// Locks the values. After a panic elsewhere at most one request is half counted, so they stay readable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines_at(metrics: &Metrics, name: &str, now: Instant) -> Vec<String> {
        let samples = metrics.samples(now);
        let text = samples.encode(&Selection::named([name]), Format::Text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn losses_of_many_servers_share_a_label() {
        let metrics = Metrics::new("vm");
        for server in 0..100 {
            let server = Instance {
                server: format!("server-{server}").into(),
                replica: Replica::default(),
            };
            metrics.lost(&families::RECORDS_LOST, &server, "ring_full", 1);
        }
        let lines = lines_at(&metrics, "inferprobe_records_lost_total", Instant::now());
        let other = r#"inferprobe_records_lost_total{server="other",port="",namespace="",pod="",container="",reason="ring_full"} 36"#;
        assert_eq!((lines.len(), &*lines[0]), (65, other));
    }

    #[test]
    fn a_total_that_is_set_never_falls() {
        let metrics = Metrics::new("vm");
        for total in [7_u64, 9, 8] {
            metrics.set(&families::BPF_RECURSION_MISSES, &["a"], total);
        }
        for n in [2, 3] {
            metrics.add(&families::BPF_RECURSION_MISSES, &["b"], n);
        }
        let name = families::BPF_RECURSION_MISSES.name;
        assert_eq!(
            lines_at(&metrics, name, Instant::now()),
            [
                format!(r#"{name}{{program="a"}} 9"#),
                format!(r#"{name}{{program="b"}} 5"#),
            ]
        );
    }

    #[test]
    fn values_of_a_hung_source_expire_and_it_counts_as_down() {
        let metrics = Metrics::new("vm");
        let start = Instant::now();
        let until = start + Duration::from_secs(15);
        let gpu = GpuSample {
            index: 0,
            busy_pct: Some(37.0),
            memory: None,
        };
        let disk = DiskSample {
            used_gib: 1.0,
            available_gib: 3.0,
            used_pct: 25.0,
        };
        metrics.set_gpus(vec![gpu], until);
        metrics.set_disk(Some(disk), until);
        metrics.collector_up_until("gpu", until);
        let up = |now| lines_at(&metrics, "inferprobe_collector_up", now);
        assert_eq!(lines_at(&metrics, "GPUUtilization", until).len(), 1);
        assert_eq!(lines_at(&metrics, "DiskUsage", until).len(), 1);
        assert_eq!(up(until), [r#"inferprobe_collector_up{collector="gpu"} 1"#]);
        let late = until + Duration::from_nanos(1);
        assert!(lines_at(&metrics, "GPUUtilization", late).is_empty());
        assert!(lines_at(&metrics, "DiskUsage", late).is_empty());
        assert_eq!(up(late), [r#"inferprobe_collector_up{collector="gpu"} 0"#]);
    }

    #[test]
    fn a_filter_drops_families_without_samples_and_unknown_names() {
        let metrics = Metrics::new("vm");
        for names in [&["GPUUtilization"][..], &["NoSuchMetric"], &[""], &[]] {
            let selection = Selection::named(names.iter().copied());
            assert_eq!(metrics.encode(&selection, Format::Text), "", "{names:?}");
            let text = metrics.encode(&selection, Format::OpenMetrics);
            assert_eq!(text, "# EOF\n", "{names:?}");
        }
    }
}
