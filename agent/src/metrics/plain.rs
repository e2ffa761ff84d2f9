//! Keeps the counters and gauges that need no code of their own: one value for each series.
//!
//! Requests, workers and values that expire have files of their own. Does not depend on: what a value means.

use std::collections::BTreeMap;

use crate::metrics::{
    encode::{Samples, Value},
    family::{Family, Kind},
};

/// The series of plain counters and gauges, by name of the family.
#[derive(Debug, Default)]
pub(super) struct Plain(BTreeMap<&'static str, Series>);

#[derive(Debug)]
struct Series {
    family: &'static Family,
    /// By the values of the family's labels.
    values: BTreeMap<Vec<Box<str>>, Value>,
}

impl Plain {
    /// Adds `n` to a counter; 0 exports it as 0 if it has no value yet.
    pub(super) fn add(&mut self, family: &'static Family, labels: &[&str], n: u64) {
        debug_assert_eq!(family.kind, Kind::Counter, "{}", family.name);
        match self.value(family, labels, Value::Integer(0)) {
            Value::Integer(total) => *total += n,
            Value::Float(total) => *total += n as f64,
        }
    }

    /// Sets a gauge, or the total of a counter that is kept elsewhere; such a total never falls.
    pub(super) fn set(&mut self, family: &'static Family, labels: &[&str], value: Value) {
        let current = self.value(family, labels, value);
        if family.kind == Kind::Gauge || value.exceeds(*current) {
            *current = value;
        }
    }

    /// Removes a series.
    pub(super) fn unset(&mut self, family: &'static Family, labels: &[&str]) {
        if let Some(series) = self.0.get_mut(family.name) {
            series.values.remove(&owned(labels));
        }
    }

    /// Adds every series to `samples`.
    pub(super) fn collect(&self, samples: &mut Samples) {
        for Series { family, values } in self.0.values() {
            for (labels, value) in values {
                let labels: Vec<&str> = labels.iter().map(|label| &**label).collect();
                samples.push(family, &labels, *value);
            }
        }
    }

    fn value(&mut self, family: &'static Family, labels: &[&str], initial: Value) -> &mut Value {
        let series = self.0.entry(family.name).or_insert_with(|| Series {
            family,
            values: BTreeMap::new(),
        });
        series.values.entry(owned(labels)).or_insert(initial)
    }
}

fn owned(labels: &[&str]) -> Vec<Box<str>> {
    labels.iter().map(|label| (*label).into()).collect()
}
