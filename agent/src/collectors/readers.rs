//! Exports which threads read the requests of each model, and how busy they are.
//!
//! Does not depend on: how that is measured.

use crate::{
    history::History,
    identity::Identity,
    metrics::{Reading, families},
};

/// Name of these readings.
pub(super) const SOURCE: &str = "readers";

/// Returns the series of all models of which requests ended in the windows before `now_ns`.
pub(super) fn series(history: &History, now_ns: u64) -> Vec<Reading> {
    let mut series = Vec::new();
    for (identity, readers) in history.models().readers(now_ns) {
        let Identity {
            model,
            version,
            server,
            replica,
        } = identity;
        let labels = [&[&**model, version, server][..], &replica.labels()].concat();
        let threads = f64::from(readers.threads);
        series.push(Reading::new(&families::READERS, &labels, threads));
        if let Some(busy) = readers.busy {
            series.push(Reading::new(&families::READERS_BUSY, &labels, busy));
        }
    }
    series
}
