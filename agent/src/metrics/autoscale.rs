//! Keeps the values that `autoscale` exports of one model.
//!
//! The command's loop sets them, and its endpoint serves them.
//! Does not depend on: how a decision is made.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    identity::ShownLabels,
    metrics::{
        encode::{Format, Samples, Selection, Value},
        families,
        family::Family,
        plain::Plain,
    },
};

/// The values of one model, which the loop and its endpoint share.
#[derive(Debug)]
pub struct AutoscaleMetrics {
    model: String,
    values: Mutex<Plain>,
}

impl AutoscaleMetrics {
    /// Exports each of `decisions` as 0, and no other value yet.
    pub fn new(model: &str, decisions: impl IntoIterator<Item = &'static str>) -> Self {
        let mut values = Plain::default();
        for decision in decisions {
            values.add(&families::AUTOSCALE_DECISIONS, &[model, decision], 0);
        }
        Self {
            model: model.to_owned(),
            values: Mutex::new(values),
        }
    }

    /// Counts a decision, and sets the number of workers that it wants; `None` leaves the last number.
    pub fn decided(&self, decision: &'static str, desired: Option<u32>) {
        let labels = [&*self.model, decision];
        self.values()
            .add(&families::AUTOSCALE_DECISIONS, &labels, 1);
        if let Some(desired) = desired {
            self.set(&families::AUTOSCALE_DESIRED, u64::from(desired).into());
        }
    }

    /// Sets the number of workers that are ready; `None` removes the value.
    pub fn set_actual(&self, actual: Option<u32>) {
        let family = &families::AUTOSCALE_ACTUAL;
        match actual {
            Some(actual) => self.set(family, u64::from(actual).into()),
            None => self.values().unset(family, &[&self.model]),
        }
    }

    /// Sets the mean queue time of an interval, seconds.
    pub fn set_queue_s(&self, queue_s: f64) {
        self.set(&families::AUTOSCALE_QUEUE, queue_s.into());
    }

    /// Returns the text of the families that `selection` asks for.
    pub fn encode(&self, selection: &Selection, format: Format) -> String {
        let mut samples = Samples::new(ShownLabels::ALL);
        self.values().collect(&mut samples);
        samples.encode_table(families::AUTOSCALE_FAMILIES, selection, format)
    }

    fn set(&self, family: &'static Family, value: Value) {
        self.values().set(family, &[&self.model], value);
    }

    fn values(&self) -> MutexGuard<'_, Plain> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_appear_when_known_and_unknown_workers_vanish() {
        let metrics = AutoscaleMetrics::new("a\"b", ["up", "hold"]);
        let lines = |metrics: &AutoscaleMetrics| {
            let text = metrics.encode(&Selection::all(), Format::Text);
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let decisions = |up: u64, hold: u64| {
            [
                format!(
                    r#"inferprobe_autoscale_decisions_total{{model="a\"b",decision="hold"}} {hold}"#
                ),
                format!(
                    r#"inferprobe_autoscale_decisions_total{{model="a\"b",decision="up"}} {up}"#
                ),
            ]
        };
        assert_eq!(lines(&metrics), decisions(0, 0));
        metrics.decided("up", Some(2));
        metrics.set_actual(Some(1));
        metrics.set_queue_s(0.0831);
        let desired = r#"inferprobe_autoscale_desired_workers{model="a\"b"} 2"#;
        let actual = r#"inferprobe_autoscale_actual_workers{model="a\"b"} 1"#;
        let queue = r#"inferprobe_autoscale_queue_seconds{model="a\"b"} 0.0831"#;
        let expected = [desired, actual, queue].map(str::to_owned);
        assert_eq!(lines(&metrics), [&expected[..], &decisions(1, 0)].concat());
        metrics.decided("hold", None);
        metrics.set_actual(None);
        let expected = [desired, queue].map(str::to_owned);
        assert_eq!(lines(&metrics), [&expected[..], &decisions(1, 1)].concat());
    }

    #[test]
    fn only_the_families_of_autoscale_are_served() {
        let metrics = AutoscaleMetrics::new("tiny", ["up"]);
        let text = metrics.encode(&Selection::all(), Format::Text);
        let types = text.lines().filter(|line| line.starts_with("# TYPE"));
        assert_eq!(types.count(), 4, "{text}");
        let selection = Selection::named(["inferprobe_autoscale_decisions_total", "QueueTime"]);
        let text = metrics.encode(&selection, Format::Text);
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
