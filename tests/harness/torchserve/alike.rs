//! Compares the agent's counters with TorchServe's: counts must be equal, and sums of times close.

use std::collections::BTreeMap;

use super::counters::{Counters, ModelVersion, sum_ms};
use crate::{
    cpu_steal::{CpuTime, DISTURBING_SHARE},
    report::{equal, row},
};

/// Allowed difference of the latency sums for each request. If clients and workers need more CPUs than there are,
/// TorchServe's threads wait for one between their last read, which the agent observes, and their own clock.
const LATENCY_MS: f64 = 2.0;
/// Allowed difference as a share of TorchServe's sum.
const LATENCY_SHARE: f64 = 0.01;
/// Allowed difference if the hypervisor takes CPU time as well.
const DISTURBED_LATENCY_MS: f64 = 20.0;

/// Asserts that counts are equal and latency sums close, and reports both. `start` is when the traffic began.
pub fn assert_alike(scenario: &str, start: CpuTime, ours: &Counters, theirs: &Counters) {
    assert_eq!(ours.counts(), theirs.counts(), "{scenario}");
    assert_eq!(
        labels(&ours.latency_us),
        labels(&theirs.latency_us),
        "{scenario}"
    );
    assert_eq!(
        labels(&ours.queue_us),
        labels(&theirs.queue_us),
        "{scenario}"
    );
    let requests: f64 = theirs.requests.values().sum();
    for (value, ours, theirs) in [
        (
            "answers, by class",
            ours.all_answers(),
            theirs.all_answers(),
        ),
        (
            "ts_inference_requests_total, by model and version",
            ours.requests.values().sum(),
            requests,
        ),
    ] {
        equal(scenario, value, theirs, ours);
    }
    assert_latency_alike(scenario, start, ours, theirs);
}

/// Asserts that latency sums are close, and reports them. `start` is when the traffic began.
pub fn assert_latency_alike(scenario: &str, start: CpuTime, ours: &Counters, theirs: &Counters) {
    let requests: f64 = theirs.requests.values().sum();
    let each_ms = match start.stolen_share() <= DISTURBING_SHARE {
        true => LATENCY_MS,
        false => DISTURBED_LATENCY_MS,
    };
    let (ours_ms, theirs_ms) = (sum_ms(&ours.latency_us), sum_ms(&theirs.latency_us));
    let off_ms = (ours_ms - theirs_ms).abs();
    row(
        scenario,
        "sum of ts_inference_latency, ms",
        &format!("{theirs_ms:.1}"),
        &format!("{ours_ms:.1}"),
        &format!("{:.0} % or {each_ms} ms a request", LATENCY_SHARE * 1e2),
    );
    assert!(
        off_ms <= (requests * each_ms).max(theirs_ms * LATENCY_SHARE),
        "{scenario}, {requests} requests: {ours_ms} ms, TorchServe {theirs_ms} ms"
    );
}

fn labels(counters: &BTreeMap<ModelVersion, f64>) -> Vec<&ModelVersion> {
    counters.keys().collect()
}
