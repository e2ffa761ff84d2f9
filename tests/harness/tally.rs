//! What an agent counts beside requests: those that it could not finish, and what it lost, by reason.

use std::collections::BTreeMap;

use crate::agent::Agent;

/// Family of requests that were never answered.
pub const UNFINISHED: &str = "inferprobe_requests_unfinished_total";
/// Family of what was left out.
pub const LOST: &str = "inferprobe_records_lost_total";

/// Both families at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally(BTreeMap<(&'static str, String), f64>);

impl Tally {
    /// As they are now.
    pub fn of(agent: &Agent) -> Self {
        let metrics = agent.metrics();
        let mut counts = BTreeMap::new();
        for family in [UNFINISHED, LOST] {
            for sample in metrics.samples(family, &[]) {
                let reason = sample.label("reason").unwrap_or_default().to_owned();
                counts.insert((family, reason), sample.value);
            }
        }
        Self(counts)
    }

    /// By how much each reason of `family` has grown since `before`, without those that have not.
    pub fn grown(&self, before: &Self, family: &str) -> Vec<(String, f64)> {
        let of = self.0.iter().filter(|((name, _), _)| *name == family);
        let grown = of.map(|(key, value)| {
            let by = value - before.0.get(key).copied().unwrap_or_default();
            (key.1.clone(), by)
        });
        grown.filter(|(_, by)| *by > 0.0).collect()
    }

    /// What is wrong with what was counted since `before`: losses at all, and requests unfinished beyond the fewest and
    /// the most.
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

    /// How many requests were unfinished since `before`.
    pub fn unfinished(&self, before: &Self) -> u32 {
        let unfinished = self.grown(before, UNFINISHED);
        unfinished.iter().map(|(_, by)| *by as u32).sum()
    }
}
