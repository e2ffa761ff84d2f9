//! Reads the counters that TorchServe and the agent both export.

use std::{collections::BTreeMap, time::Duration};

use super::TorchServe;
use crate::{agent::Agent, clock::wait_within, exposition::Exposition};

const PATIENCE: Duration = Duration::from_secs(20);
const CLASSES: [&str; 3] = ["Requests2XX", "Requests4XX", "Requests5XX"];

/// Name of a model, and the requested version.
pub type ModelVersion = (String, String);

/// The counters of both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    /// Responses, by family.
    pub answers: BTreeMap<&'static str, f64>,
    /// `ts_inference_requests_total`.
    pub requests: BTreeMap<ModelVersion, f64>,
    /// `ts_inference_latency_microseconds`.
    pub latency_us: BTreeMap<ModelVersion, f64>,
    /// `ts_queue_latency_microseconds`.
    pub queue_us: BTreeMap<ModelVersion, f64>,
}

impl Counters {
    /// Reads them from a page.
    pub fn of(page: &Exposition) -> Self {
        let by_model = |name: &str| {
            let samples = page.samples(name, &[]).map(|sample| {
                let label = |name: &str| sample.label(name).unwrap_or_default().to_owned();
                let key = (label("model_name"), label("model_version"));
                (key, sample.value)
            });
            samples.collect()
        };
        Self {
            answers: CLASSES.map(|name| (name, page.sum(name, &[]))).into(),
            requests: by_model("ts_inference_requests_total"),
            latency_us: by_model("ts_inference_latency_microseconds"),
            queue_us: by_model("ts_queue_latency_microseconds"),
        }
    }

    /// Reads TorchServe's, and adds the scrape itself: TorchServe counts it after it is rendered.
    pub fn of_torchserve(torchserve: &TorchServe) -> Self {
        let mut counters = Self::of(&torchserve.metrics());
        *counters.answers.entry("Requests2XX").or_default() += 1.0;
        counters
    }

    /// Reads the agent's, once it has counted `answers` since `base`.
    pub fn of_agent(agent: &Agent, base: &Self, answers: f64) -> Self {
        let counted = wait_within(PATIENCE, || {
            let counters = Self::of(&agent.metrics());
            (counters.since(base).all_answers() >= answers).then_some(counters)
        });
        counted.unwrap_or_else(|| {
            let page = agent.metrics();
            panic!(
                "{answers} answers, of which the agent counted {:?} within {PATIENCE:?} and lost {:?}",
                Self::of(&page).since(base).counts(),
                losses(&page)
            )
        })
    }

    /// Reads both at the same moment, each since its base.
    pub fn of_both(
        agent: &Agent,
        agent_base: &Self,
        torchserve: &TorchServe,
        torchserve_base: &Self,
    ) -> (Self, Self) {
        let theirs = Self::of_torchserve(torchserve).since(torchserve_base);
        let ours = Self::of_agent(agent, agent_base, theirs.all_answers()).since(agent_base);
        (ours, theirs)
    }

    /// Returns the responses of all classes.
    pub fn all_answers(&self) -> f64 {
        self.answers.values().sum()
    }

    /// Returns what was added since `base`, without counters that did not change.
    pub fn since(&self, base: &Self) -> Self {
        fn less<K: Ord + Clone>(
            counters: &BTreeMap<K, f64>,
            base: &BTreeMap<K, f64>,
        ) -> BTreeMap<K, f64> {
            let added = counters.iter().map(|(key, value)| {
                let before = base.get(key).copied().unwrap_or_default();
                (key.clone(), value - before)
            });
            added.filter(|(_, value)| *value != 0.0).collect()
        }
        Self {
            answers: less(&self.answers, &base.answers),
            requests: less(&self.requests, &base.requests),
            latency_us: less(&self.latency_us, &base.latency_us),
            queue_us: less(&self.queue_us, &base.queue_us),
        }
    }

    /// Returns the counts without the times.
    pub fn counts(&self) -> (&BTreeMap<&'static str, f64>, &BTreeMap<ModelVersion, f64>) {
        (&self.answers, &self.requests)
    }
}

/// Returns the sum over all models and versions, in milliseconds.
pub fn sum_ms(times_us: &BTreeMap<ModelVersion, f64>) -> f64 {
    times_us.values().sum::<f64>() / 1e3
}

/// Returns what was lost, unfinished or not timed, by reason or stage.
pub fn losses(page: &Exposition) -> BTreeMap<String, f64> {
    let families = [
        ("inferprobe_records_lost_total", "reason"),
        ("inferprobe_requests_unfinished_total", "reason"),
        ("inferprobe_request_stage_unknown_total", "stage"),
    ];
    let mut losses = BTreeMap::new();
    for (name, label) in families {
        for sample in page.samples(name, &[]).filter(|sample| sample.value != 0.0) {
            let why = sample.label(label).unwrap_or_default();
            // A request that the frontend answers itself has no worker whose thread could be compared: nothing is lost.
            // Of every other, `assert_nothing_lost` demands the time.
            if why == "starved" {
                continue;
            }
            *losses.entry(format!("{name}: {why}")).or_default() += sample.value;
        }
    }
    losses
}

/// Asserts that nothing was lost, unfinished or not timed.
pub fn assert_nothing_lost(agent: &Agent) {
    let found = losses(&agent.metrics());
    assert!(found.is_empty(), "{found:?}: {}", agent.errors());
    let log = agent.log();
    let unknown = log
        .iter()
        .find(|row| row.worker.is_some() && row.starved_ms.is_none());
    assert!(unknown.is_none(), "{unknown:?}");
}
