//! Reads what an agent counts apart from requests: those that stayed unfinished, and what it lost, by reason.

use std::collections::BTreeMap;

use crate::agent::Agent;

/// Family of requests without a response.
pub const UNFINISHED: &str = "inferprobe_requests_unfinished_total";
/// Family of dropped records.
pub const LOST: &str = "inferprobe_records_lost_total";

/// Both families at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LossCounters(BTreeMap<(&'static str, String), f64>);

impl LossCounters {
    /// Reads both families now.
    pub fn of(agent: &Agent) -> Self {
        let metrics = agent.metrics();
        let mut counts = BTreeMap::new();
        for family in [UNFINISHED, LOST] {
            for sample in metrics.samples(family, &[]) {
                let reason = sample.label("reason").unwrap_or_default().to_owned();
                *counts.entry((family, reason)).or_default() += sample.value;
            }
        }
        Self(counts)
    }

    /// Returns how much each reason of `family` has grown since `before`; reasons that have not grown are absent.
    pub fn grown(&self, before: &Self, family: &str) -> Vec<(String, f64)> {
        let of = self.0.iter().filter(|((name, _), _)| *name == family);
        let grown = of.map(|(key, value)| {
            let by = value - before.0.get(key).copied().unwrap_or_default();
            (key.1.clone(), by)
        });
        grown.filter(|(_, by)| *by > 0.0).collect()
    }

    /// Returns what is wrong with the counts since `before`: any loss, and more or fewer unfinished requests than
    /// allowed.
    pub fn faults(&self, before: &Self, fewest: u32, most: u32) -> Vec<String> {
        let mut faults: Vec<String> = self
            .grown(before, LOST)
            .iter()
            .map(|(reason, by)| format!("{by} lost: {reason}"))
            .collect();
        let unfinished = self.grown(before, UNFINISHED);
        if !(fewest..=most).contains(&self.unfinished(before)) {
            faults.push(format!("unfinished {unfinished:?}, not {fewest} to {most}"));
        }
        faults
    }

    /// Returns how many requests stayed unfinished since `before`.
    pub fn unfinished(&self, before: &Self) -> u32 {
        let unfinished = self.grown(before, UNFINISHED);
        unfinished.iter().map(|(_, by)| *by as u32).sum()
    }
}
