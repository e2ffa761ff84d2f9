//! What `autoscale` exports of one model. Does not know how anything is decided.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::metrics::{
    encode::{Format, Samples, Selection, Value},
    families,
};

/// The figures of one model, shared by the loop and its endpoint.
#[derive(Debug)]
pub struct AutoscaleMetrics {
    model: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    desired: Option<u32>,
    actual: Option<u32>,
    queue_s: Option<f64>,
    decisions: BTreeMap<&'static str, u64>,
}

impl AutoscaleMetrics {
    /// No figures yet, and each of `decisions` counted 0 times.
    pub fn new(model: &str, decisions: impl IntoIterator<Item = &'static str>) -> Self {
        let decisions = decisions.into_iter().map(|decision| (decision, 0));
        Self {
            model: model.to_owned(),
            state: Mutex::new(State {
                decisions: decisions.collect(),
                ..State::default()
            }),
        }
    }

    /// Counts a decision, and publishes the workers that it wants; `None` leaves the last number.
    pub fn decided(&self, decision: &'static str, desired: Option<u32>) {
        let mut state = self.state();
        *state.decisions.entry(decision).or_default() += 1;
        state.desired = desired.or(state.desired);
    }

    /// Publishes the workers that are ready; `None` takes the figure away.
    pub fn set_actual(&self, actual: Option<u32>) {
        self.state().actual = actual;
    }

    /// Publishes the mean queue time of an interval, seconds.
    pub fn set_queue_s(&self, queue_s: f64) {
        self.state().queue_s = Some(queue_s);
    }

    /// The text of what `selection` asks for.
    pub fn encode(&self, selection: &Selection, format: Format) -> String {
        let mut samples = Samples::default();
        let model = [&*self.model];
        {
            let state = self.state();
            let integer = |count: u32| Value::Integer(u64::from(count));
            for (family, value) in [
                (&families::AUTOSCALE_DESIRED, state.desired.map(integer)),
                (&families::AUTOSCALE_ACTUAL, state.actual.map(integer)),
                (&families::AUTOSCALE_QUEUE, state.queue_s.map(Value::Float)),
            ] {
                if let Some(value) = value {
                    samples.push(family, &model, value);
                }
            }
            for (decision, count) in &state.decisions {
                let labels = [&*self.model, *decision];
                samples.push(
                    &families::AUTOSCALE_DECISIONS,
                    &labels,
                    Value::Integer(*count),
                );
            }
        }
        samples.encode_table(families::AUTOSCALE_FAMILIES, selection, format)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_appear_when_known_and_the_workers_vanish_when_not() {
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
