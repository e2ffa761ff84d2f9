//! What it means that the agent's figures are TorchServe's: every count the same, every sum of times close to it.

use std::collections::BTreeMap;

use super::figures::{Figures, ModelVersion, sum_ms};
use crate::{
    cpu_steal::{CpuTime, DISTURBING_SHARE},
    report::row,
};

/// What the sums of the latency may differ by for each request, where all clients and workers together want more CPUs
/// than there are: TorchServe's threads wait for one between its last read, which we see, and its own clock.
const LATENCY_MS: f64 = 2.0;
/// Or by this share of TorchServe's sum.
const LATENCY_SHARE: f64 = 0.01;
/// The same where a hypervisor takes CPUs away too.
const DISTURBED_LATENCY_MS: f64 = 20.0;

/// Holds that counts are equal and the latency's sum is close, and reports both; `start` is when the traffic began.
pub fn assert_alike(scenario: &str, start: CpuTime, ours: &Figures, theirs: &Figures) {
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
    for (figure, ours, theirs) in [
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
        row(
            scenario,
            figure,
            &theirs.to_string(),
            &ours.to_string(),
            "equal",
        );
    }
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

fn labels(figures: &BTreeMap<ModelVersion, f64>) -> Vec<&ModelVersion> {
    figures.keys().collect()
}
