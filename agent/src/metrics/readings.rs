//! Keeps series that a source reads again and again. Each reading replaces the one before as a whole.
//!
//! GPUs and servers come and go: what a source does not read any more vanishes, and all of it expires if the source
//! hangs. Does not depend on: how a value is read.

use std::{collections::BTreeMap, time::Instant};

use crate::metrics::{
    encode::{Samples, Value},
    family::Family,
    gauges::Expiring,
};

/// One series, as it was read.
#[derive(Debug, Clone)]
pub struct Reading {
    family: &'static Family,
    labels: Vec<Box<str>>,
    value: Value,
}

impl Reading {
    /// Describes a series; `labels` are the values of the family's labels, in their order.
    pub fn new(family: &'static Family, labels: &[&str], value: impl Into<Value>) -> Self {
        Self {
            family,
            labels: labels.iter().map(|label| (*label).into()).collect(),
            value: value.into(),
        }
    }
}

/// The latest reading of each source.
#[derive(Debug, Default)]
pub(super) struct Readings(BTreeMap<&'static str, Expiring<Vec<Reading>>>);

impl Readings {
    /// Replaces the series of `source`.
    pub(super) fn set(&mut self, source: &'static str, value: Vec<Reading>, valid_until: Instant) {
        self.0.insert(source, Expiring { value, valid_until });
    }

    /// Adds every series that has not expired at `now` to `samples`.
    pub(super) fn collect(&self, now: Instant, samples: &mut Samples) {
        let current = self.0.values().filter_map(|readings| readings.at(now));
        for reading in current.flatten() {
            let labels: Vec<&str> = reading.labels.iter().map(|label| &**label).collect();
            samples.push(reading.family, &labels, reading.value);
        }
    }
}
