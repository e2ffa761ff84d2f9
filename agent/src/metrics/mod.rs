//! Everything that is exported, behind one handle that the agent's threads share.
//!
//! Observations and figures go in, text comes out. Nothing here reads the system or knows of HTTP.

mod autoscale;
mod cardinality;
mod encode;
pub mod families;
mod gauges;
mod gen_ai;
mod histogram;
mod requests;
mod streams;
mod torchserve;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub use autoscale::AutoscaleMetrics;
pub use encode::{Format, Selection};
pub use gauges::{DiskSample, GpuMemory, GpuSample, MemorySample, ProcessSample};
pub use torchserve::LiveWorker;

use crate::{
    exchange::byte_accounting::ByteCounts,
    metrics::{
        encode::{Samples, Value},
        gauges::{Expiring, Figures},
        requests::Requests,
        torchserve::Workers,
    },
    observation::Observation,
};

/// The state of every family. Each call holds a lock for a moment; [`Metrics::encode`] holds it only
/// while it copies the numbers.
#[derive(Debug)]
pub struct Metrics {
    hostname: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    requests: Requests,
    workers: Workers,
    lost: BTreeMap<&'static str, u64>,
    unfinished: BTreeMap<&'static str, u64>,
    collectors: BTreeMap<&'static str, Liveness>,
    hooks: BTreeMap<&'static str, &'static str>,
    recursion_misses: BTreeMap<&'static str, u64>,
    gpu_errors: BTreeMap<u32, u64>,
    figures: Figures,
}

#[derive(Debug, Clone, Copy)]
enum Liveness {
    Up,
    UpUntil(Instant),
    Down,
}

impl Metrics {
    /// Empty families; `hostname` is TorchServe's `Hostname` label.
    pub fn new(hostname: &str) -> Self {
        Self {
            hostname: hostname.to_owned(),
            state: Mutex::new(State {
                requests: Requests::new(),
                workers: Workers::default(),
                lost: BTreeMap::new(),
                unfinished: BTreeMap::new(),
                collectors: BTreeMap::new(),
                hooks: BTreeMap::new(),
                recursion_misses: BTreeMap::new(),
                gpu_errors: BTreeMap::new(),
                figures: Figures::default(),
            }),
        }
    }

    /// Adds one finished request.
    pub fn observe(&self, observation: &Observation) {
        self.state().requests.observe(observation);
    }

    /// Adds one request of TorchServe whose client left before its answer.
    pub fn observe_abandoned(&self, observation: &Observation) {
        self.state().requests.observe_abandoned(observation);
    }

    /// Adds a worker process that has its model loaded.
    pub fn worker_loaded(&self, pid: u32, worker: LiveWorker) {
        self.state().workers.insert(pid, worker);
    }

    /// Takes a worker process out that ended; any other process is none.
    pub fn worker_ended(&self, pid: u32) {
        self.state().workers.remove(pid);
    }

    /// Exports each of these reasons of [`Metrics::lost`] from now on, as 0 until one occurs.
    pub fn declare_lost(&self, reasons: &[&'static str]) {
        let mut state = self.state();
        for reason in reasons {
            state.lost.entry(reason).or_default();
        }
    }

    /// Adds `n` records that were lost for `reason`.
    pub fn lost(&self, reason: &'static str, n: u64) {
        *self.state().lost.entry(reason).or_default() += n;
    }

    /// Sets how many records have been lost for `reason`, where the kernel keeps that count. It never falls.
    pub fn set_lost_total(&self, reason: &'static str, total: u64) {
        let mut state = self.state();
        let lost = state.lost.entry(reason).or_default();
        *lost = total.max(*lost);
    }

    /// Exports each of these reasons of [`Metrics::unfinished`] from now on, as 0 until one occurs.
    pub fn declare_unfinished(&self, reasons: &[&'static str]) {
        let mut state = self.state();
        for reason in reasons {
            state.unfinished.entry(reason).or_default();
        }
    }

    /// Counts one request that was read and never answered in full.
    pub fn unfinished(&self, reason: &'static str) {
        *self.state().unfinished.entry(reason).or_default() += 1;
    }

    /// Adds a connection that had waited `wait_ns` until `server` accepted it.
    pub fn accepted(&self, server: &Arc<str>, wait_ns: u64) {
        self.state().requests.accepted(server, wait_ns);
    }

    /// Adds bytes that went over watched sockets of `server`.
    pub fn carried(&self, server: &Arc<str>, tally: ByteCounts) {
        self.state().requests.carried(server, tally);
    }

    /// Says whether a source of figures works.
    pub fn collector_up(&self, collector: &'static str, up: bool) {
        let liveness = if up { Liveness::Up } else { Liveness::Down };
        self.state().collectors.insert(collector, liveness);
    }

    /// Says that a source of figures works, and counts as failed after `until` unless it says so again.
    pub fn collector_up_until(&self, collector: &'static str, until: Instant) {
        let liveness = Liveness::UpUntil(until);
        self.state().collectors.insert(collector, liveness);
    }

    /// Says which kind of program a hook of the probes is on, `none` if it is on nothing.
    pub fn hook(&self, hook: &'static str, kind: &'static str) {
        self.state().hooks.insert(hook, kind);
    }

    /// Publishes how often the recursion guard of the kernel skipped each program.
    pub fn set_recursion_misses(&self, misses: BTreeMap<&'static str, u64>) {
        self.state().recursion_misses = misses;
    }

    /// Publishes the busy share of all CPUs, percent; `None` takes the figure away.
    pub fn set_cpu_pct(&self, cpu_pct: Option<f64>) {
        self.state().figures.cpu_pct = cpu_pct;
    }

    /// Publishes the memory figures; `None` takes them away.
    pub fn set_memory(&self, memory: Option<MemorySample>) {
        self.state().figures.memory = memory;
    }

    /// Publishes the disk figures, which vanish after `valid_until`; `None` takes them away at once.
    pub fn set_disk(&self, disk: Option<DiskSample>, valid_until: Instant) {
        self.state().figures.disk = disk.map(|value| Expiring { value, valid_until });
    }

    /// Publishes the GPUs that could be read, in place of all before; they vanish after `valid_until`.
    pub fn set_gpus(&self, gpus: Vec<GpuSample>, valid_until: Instant) {
        self.state().figures.gpus = Some(Expiring {
            value: gpus,
            valid_until,
        });
    }

    /// Counts one reading that a GPU refused.
    pub fn gpu_error(&self, index: u32) {
        *self.state().gpu_errors.entry(index).or_default() += 1;
    }

    /// Publishes the agent's own figures.
    pub fn set_process(&self, process: ProcessSample) {
        self.state().figures.process = Some(process);
    }

    /// The text of what `selection` asks for.
    pub fn encode(&self, selection: &Selection, format: Format) -> String {
        self.samples(Instant::now()).encode(selection, format)
    }

    fn samples(&self, now: Instant) -> Samples {
        let mut samples = Samples::default();
        let version = env!("CARGO_PKG_VERSION");
        samples.push(&families::BUILD_INFO, &[version], Value::Integer(1));
        let state = self.state();
        state.requests.collect(&self.hostname, &mut samples);
        state.workers.collect(&self.hostname, &mut samples);
        state.figures.collect(&self.hostname, now, &mut samples);
        for (family, totals) in [
            (&families::RECORDS_LOST, &state.lost),
            (&families::UNFINISHED, &state.unfinished),
        ] {
            for (reason, total) in totals {
                samples.push(family, &[*reason], Value::Integer(*total));
            }
        }
        for (collector, liveness) in &state.collectors {
            let up = match liveness {
                Liveness::Up => true,
                Liveness::UpUntil(until) => now <= *until,
                Liveness::Down => false,
            };
            let value = Value::Integer(u64::from(up));
            samples.push(&families::COLLECTOR_UP, &[*collector], value);
        }
        for (hook, kind) in &state.hooks {
            samples.push(&families::HOOK_INFO, &[*hook, *kind], Value::Integer(1));
        }
        for (program, count) in &state.recursion_misses {
            samples.push(
                &families::BPF_RECURSION_MISSES,
                &[*program],
                Value::Integer(*count),
            );
        }
        for (index, count) in &state.gpu_errors {
            let device = index.to_string();
            samples.push(&families::GPU_ERRORS, &[&device], Value::Integer(*count));
        }
        samples
    }

    /// A panic elsewhere leaves at worst one request half counted, so the figures stay readable after it.
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
    fn declared_reasons_are_exported_as_zero() {
        let metrics = Metrics::new("vm");
        metrics.declare_lost(&["ring_full"]);
        metrics.declare_unfinished(&["closed"]);
        let now = Instant::now();
        for (name, expected) in [
            (
                "inferprobe_records_lost_total",
                r#"inferprobe_records_lost_total{reason="ring_full"} 0"#,
            ),
            (
                "inferprobe_requests_unfinished_total",
                r#"inferprobe_requests_unfinished_total{reason="closed"} 0"#,
            ),
        ] {
            assert_eq!(lines_at(&metrics, name, now), [expected]);
        }
    }

    #[test]
    fn a_total_of_the_kernel_replaces_and_never_falls() {
        let metrics = Metrics::new("vm");
        metrics.set_lost_total("ring_full", 7);
        metrics.set_lost_total("ring_full", 9);
        metrics.set_lost_total("ring_full", 8);
        metrics.lost("head_too_long", 2);
        metrics.lost("head_too_long", 3);
        assert_eq!(
            lines_at(&metrics, "inferprobe_records_lost_total", Instant::now()),
            [
                r#"inferprobe_records_lost_total{reason="head_too_long"} 5"#,
                r#"inferprobe_records_lost_total{reason="ring_full"} 9"#,
            ]
        );
    }

    #[test]
    fn figures_of_a_hung_source_vanish_and_it_counts_as_down() {
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
    fn a_filter_leaves_out_families_without_samples_and_unknown_names() {
        let metrics = Metrics::new("vm");
        for names in [&["GPUUtilization"][..], &["NoSuchMetric"], &[""], &[]] {
            let selection = Selection::named(names.iter().copied());
            assert_eq!(metrics.encode(&selection, Format::Text), "", "{names:?}");
            let text = metrics.encode(&selection, Format::OpenMetrics);
            assert_eq!(text, "# EOF\n", "{names:?}");
        }
    }
}
