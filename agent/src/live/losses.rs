//! Lists what was lost, by the metric that counts it.
//!
//! Does not depend on: what is lost.

use crate::{
    api::live::Loss,
    live::values::{Values, label},
    metrics::families,
};

/// Returns everything that was lost at least once, most frequent first.
pub(super) fn list(values: &Values) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (family, reason) in [
        (&families::RECORDS_LOST, "reason"),
        (&families::UNFINISHED, "reason"),
        (&families::LABEL_OVERFLOW, "label"),
        (&families::BPF_RECURSION_MISSES, "program"),
    ] {
        let lost = values.of(family).iter();
        losses.extend(lost.filter(|sample| sample.value > 0.0).map(|sample| {
            let server = label(sample, "server");
            Loss {
                metric: family.name.into(),
                server: (!server.is_empty()).then(|| server.to_owned()),
                reason: label(sample, reason).into(),
                count: sample.value as u64,
            }
        }));
    }
    losses.sort_by_key(|loss| std::cmp::Reverse(loss.count));
    losses
}
