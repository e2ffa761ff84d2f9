//! Reads values from the metrics, as a scrape would, so that both say the same.
//!
//! Does not depend on: what a value means.

use std::collections::BTreeMap;

use crate::metrics::{
    Format, Metrics, Selection, families,
    family::Family,
    page::{self, Sample},
};

/// Families that are read.
static READ: &[&Family] = &[
    &families::IN_FLIGHT,
    &families::SOCKET_BYTES,
    &families::MISSED_BYTES,
    &families::RECORDS_LOST,
    &families::UNFINISHED,
    &families::LABEL_OVERFLOW,
    &families::BPF_RECURSION_MISSES,
    &families::COLLECTOR_UP,
    &families::CPU_UTILIZATION,
    &families::MEMORY_UTILIZATION,
    &families::MEMORY_USED,
    &families::SERVER_THREADS,
    &families::GPU_BUSY,
    &families::GPU_MEMORY_USED_BYTES,
    &families::GPU_MEMORY_TOTAL_BYTES,
    &families::GPU_POWER,
    &families::GPU_POWER_LIMIT,
    &families::GPU_TEMPERATURE,
    &families::GPU_THROTTLE_REASON,
    &families::GPU_PROCESS_BUSY,
    &families::GPU_PROCESS_MEMORY,
    &families::PROCESS_CPU,
    &families::PROCESS_RESIDENT,
];

/// Samples by name.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<String, Vec<Sample>>);

impl Values {
    /// Reads the values of now.
    pub(super) fn read(metrics: &Metrics) -> Self {
        let selection = Selection::named(READ.iter().map(|family| family.name));
        metrics.refresh(&selection);
        Self::parse(&metrics.encode(&selection, Format::Text))
    }

    /// Reads them from the text of a scrape.
    pub(super) fn parse(text: &str) -> Self {
        let samples = page::parse(text).expect("the agent's own text has its format");
        let mut by_name: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for sample in samples {
            by_name.entry(sample.name.clone()).or_default().push(sample);
        }
        Self(by_name)
    }

    /// Returns the samples of a family.
    pub(super) fn of(&self, family: &Family) -> &[Sample] {
        self.0.get(family.name).map_or(&[], Vec::as_slice)
    }

    /// Returns the value of a family with one sample; `None` if it has none.
    pub(super) fn one(&self, family: &Family) -> Option<f64> {
        self.of(family).first().map(|sample| sample.value)
    }
}

/// Returns the value of a label; empty if the sample has no such label.
pub(super) fn label<'a>(sample: &'a Sample, name: &str) -> &'a str {
    let found = sample.labels.iter().find(|(label, _)| label == name);
    found.map_or("", |(_, value)| value)
}
