//! Exports TorchServe's own families of requests and workers, by the rules of TorchServe 0.12.0.
//!
//! The rules decide which requests count, in which unit, and which times a response adds to.
//! Does not depend on: how a request was measured.

use std::collections::{BTreeMap, HashSet};

use crate::{
    history::trends::TorchServeTimes,
    identity::{Identity, Replica},
    metrics::{
        encode::{Samples, Value},
        families,
        histogram::Histogram,
    },
    observation::{Observation, Protocol},
    protocol::grpc,
    torchserve::timing::{WorkEnd, WorkerSide, WorkerTiming},
};

/// Counts and times of one model and version.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ModelTotals {
    requests: u64,
    /// `None` until the first request with a known time.
    latency_ns: Option<u128>,
    queue_ns: Option<u128>,
    handler: Option<LastTime>,
    prediction: Option<LastTime>,
}

/// The latest known time; a later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LastTime {
    /// Number of the request among all finished requests.
    index: u64,
    ns: u64,
}

/// Counts and times that one request adds.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    counts: bool,
    latency_ns: Option<u64>,
    queue_ns: Option<u64>,
    last_queue_ns: Option<u64>,
    handler_ns: Option<u64>,
    prediction_ns: Option<u64>,
}

impl Share {
    /// If a worker was observed, the worker's reply decides what counts (`BatchAggregator.sendResponse`); otherwise the
    /// status does.
    fn of(observation: &Observation) -> Self {
        let Observation {
            status,
            stages,
            worker_side,
            protocol,
            ..
        } = observation;
        if *protocol == Protocol::Unread && !matches!(worker_side, WorkerSide::Observed(_)) {
            return Self::default();
        }
        // TorchServe dispatches no request for an unknown model: the frontend's own 404 is no inference, and over gRPC it
        // is an INTERNAL (GRPCInferenceHandler.java).
        let names_no_model = match (worker_side, protocol) {
            (WorkerSide::NotObserved, Protocol::Grpc(Some(grpc_status))) => {
                *grpc_status == grpc::INTERNAL
            }
            _ => *status == 404,
        };
        let share = match worker_side {
            WorkerSide::Observed(timing) => Self::of_worker(timing),
            _ if !(200..=299).contains(status) => Self {
                counts: !names_no_model,
                ..Self::default()
            },
            WorkerSide::NoWorker => Self {
                counts: true,
                latency_ns: stages.total_ns(),
                queue_ns: stages.queue_ns,
                last_queue_ns: stages.queue_ns,
                handler_ns: stages.handler_ns,
                prediction_ns: stages.handler_ns,
            },
            WorkerSide::NotObserved => Self {
                counts: true,
                latency_ns: stages.handler_ns,
                ..Self::default()
            },
        };
        match (worker_side, protocol) {
            // TorchServe adds no sums for gRPC (GRPCJob.java).
            (WorkerSide::Observed(_) | WorkerSide::NotObserved, Protocol::Grpc(_)) => Self {
                latency_ns: None,
                queue_ns: None,
                ..share
            },
            _ => share,
        }
    }

    fn of_worker(timing: &WorkerTiming) -> Self {
        match timing.end {
            WorkEnd::Predicted => Self {
                counts: true,
                latency_ns: Some(timing.latency_ns),
                queue_ns: timing.internal_queue_ns,
                last_queue_ns: timing.internal_queue_ns,
                handler_ns: timing.worker_ns,
                prediction_ns: timing.worker_ns,
            },
            WorkEnd::Refused => Self {
                counts: true,
                handler_ns: timing.worker_ns,
                ..Self::default()
            },
            WorkEnd::Failed => Self {
                counts: true,
                ..Self::default()
            },
        }
    }
}

/// Returns the times of an inference request that TorchServe's gauges would show.
pub fn torchserve_times(observation: &Observation) -> TorchServeTimes {
    if !observation.hop.is_nearest {
        return TorchServeTimes::default();
    }
    let share = Share::of(observation);
    TorchServeTimes {
        queue_ns: share.last_queue_ns,
        handler_ns: share.handler_ns,
        prediction_ns: share.prediction_ns,
    }
}

impl ModelTotals {
    /// Adds one inference request, the `index`-th of all finished requests.
    pub(super) fn add(&mut self, observation: &Observation, index: u64) {
        let share = Share::of(observation);
        let wide = |ns: Option<u64>| ns.map(u128::from);
        self.requests += u64::from(share.counts);
        add_ns(&mut self.latency_ns, wide(share.latency_ns));
        add_ns(&mut self.queue_ns, wide(share.queue_ns));
        let last = |ns: Option<u64>| ns.map(|ns| LastTime { index, ns });
        self.handler = last(share.handler_ns).or(self.handler);
        self.prediction = last(share.prediction_ns).or(self.prediction);
    }

    /// Adds everything of `other`, which has the same model and version.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.merge(other);
        self.handler = self.handler.max(other.handler);
        self.prediction = self.prediction.max(other.prediction);
    }

    /// Adds the totals of `other`, which has the same model and version.
    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        add_ns(&mut self.latency_ns, other.latency_ns);
        add_ns(&mut self.queue_ns, other.queue_ns);
    }
}

/// Times of which TorchServe keeps the last one, over all models.
#[derive(Debug, Default)]
pub(super) struct LastTimes {
    queue_ns: Option<u64>,
    worker_thread_ns: Option<u64>,
}

impl LastTimes {
    /// Adds one inference request.
    pub(super) fn add(&mut self, observation: &Observation) {
        self.queue_ns = Share::of(observation).last_queue_ns.or(self.queue_ns);
        if let WorkerSide::Observed(timing) = observation.worker_side {
            self.worker_thread_ns = timing.relay_ns.or(self.worker_thread_ns);
        }
    }

    /// Adds both series to `samples`.
    pub(super) fn collect(&self, hostname: &str, samples: &mut Samples) {
        for (family, ns) in [
            (&families::QUEUE_TIME, self.queue_ns),
            (&families::WORKER_THREAD_TIME, self.worker_thread_ns),
        ] {
            if let Some(ns) = ns {
                let value = Value::Float(ns_to_whole_ms_f64(ns));
                samples.push(family, &["Host", hostname], value);
            }
        }
    }
}

/// Adds the series of models and versions to `samples`.
pub(super) fn collect_served<'a>(
    served: impl Iterator<Item = (&'a Identity, &'a ModelTotals)>,
    hostname: &str,
    samples: &mut Samples,
) {
    let mut last: BTreeMap<&str, (Option<LastTime>, Option<LastTime>)> = BTreeMap::new();
    let mut by_model_version: BTreeMap<(&str, &str), ModelTotals> = BTreeMap::new();
    for (identity, served) in served.filter(|(_, served)| served.requests > 0) {
        let (handler, prediction) = last.entry(&identity.model).or_default();
        *handler = served.handler.max(*handler);
        *prediction = served.prediction.max(*prediction);
        by_model_version
            .entry((&identity.model, &identity.version))
            .or_default()
            .merge(served);
    }
    for (model, (handler, prediction)) in last {
        for (family, last) in [
            (&families::HANDLER_TIME, handler),
            (&families::PREDICTION_TIME, prediction),
        ] {
            if let Some(LastTime { ns, .. }) = last {
                let value = Value::Float(ns_to_centi_ms_f64(ns));
                samples.push(family, &[model, "Model", hostname], value);
            }
        }
    }
    for ((model, version), served) in by_model_version {
        let labels = [model, version, hostname];
        let requests = Value::Float(served.requests as f64);
        samples.push(&families::TS_INFERENCE_REQUESTS, &labels, requests);
        for (family, ns) in [
            (&families::TS_INFERENCE_LATENCY, served.latency_ns),
            (&families::TS_QUEUE_LATENCY, served.queue_ns),
        ] {
            if let Some(ns) = ns {
                samples.push(family, &labels, Value::Float(ns_to_us_f64(ns)));
            }
        }
    }
}

/// The running workers, and the time each took to load its model.
#[derive(Debug, Default)]
pub(super) struct Workers {
    by_pid: BTreeMap<u32, LiveWorker>,
    load: BTreeMap<Identity, Histogram>,
}

/// A worker process that has its model loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveWorker {
    /// Name in TorchServe's metrics: `W-9000-resnet_1.0`.
    pub name: String,
    /// Model, its version, and the server.
    pub identity: Identity,
    /// Start of the process to the end of the load, ns; `None` if the load was not observed.
    pub load_ns: Option<u64>,
}

/// Most workers that are kept: more than a host can run.
const WORKER_CAP: usize = 4096;

impl Workers {
    /// Adds a worker that has its model loaded.
    pub(super) fn insert(&mut self, pid: u32, worker: LiveWorker) {
        if self.by_pid.len() >= WORKER_CAP {
            self.by_pid.pop_first();
        }
        if let Some(load_ns) = worker.load_ns {
            let load = self.load.entry(worker.identity.clone()).or_default();
            load.observe_ns(load_ns);
        }
        self.by_pid.insert(pid, worker);
    }

    /// Removes a worker whose process ended.
    pub(super) fn remove(&mut self, pid: u32) {
        self.by_pid.remove(&pid);
    }

    /// Adds every series to `samples`.
    pub(super) fn collect(&self, hostname: &str, samples: &mut Samples) {
        let mut load_ns: BTreeMap<&str, u64> = BTreeMap::new();
        let mut alive: BTreeMap<&Identity, u64> = BTreeMap::new();
        for worker in self.by_pid.values() {
            *alive.entry(&worker.identity).or_default() += 1;
            // Two TorchServes on one host may use the same names.
            load_ns.extend(worker.load_ns.map(|ns| (&*worker.name, ns)));
        }
        for (name, ns) in load_ns {
            let value = Value::Float(ns_to_whole_ms_f64(ns));
            samples.push(
                &families::WORKER_LOAD_TIME,
                &[name, "Host", hostname],
                value,
            );
        }
        for (identity, count) in alive {
            let (labels, value) = (labels_of(identity), Value::Integer(count));
            samples.push_of(&identity.replica, &families::WORKERS, &labels, value);
        }
        for (identity, histogram) in &self.load {
            let labels = labels_of(identity);
            let family = &families::WORKER_LOAD;
            samples.push_histogram_of(&identity.replica, family, &labels, histogram);
        }
    }

    /// Forgets what the workers of these replicas took to load.
    pub(super) fn forget(&mut self, replicas: &HashSet<Replica>) {
        self.load
            .retain(|identity, _| !replicas.contains(&identity.replica));
    }
}

fn labels_of(identity: &Identity) -> [&str; 3] {
    [&identity.model, &identity.version, &identity.server]
}

fn add_ns(sum_ns: &mut Option<u128>, ns: Option<u128>) {
    if let Some(ns) = ns {
        *sum_ns.get_or_insert_default() += ns;
    }
}

fn ns_to_us_f64(ns: u128) -> f64 {
    ns as f64 / 1e3
}

fn ns_to_whole_ms_f64(ns: u64) -> f64 {
    (ns / 1_000_000) as f64
}

/// Milliseconds with two decimals, as TorchServe's workers print them.
fn ns_to_centi_ms_f64(ns: u64) -> f64 {
    (ns as f64 / 1e4).round() / 100.0
}

#[cfg(test)]
mod tests;
