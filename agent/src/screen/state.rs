//! Holds what a screen shows, and what its user chose.
//!
//! Does not depend on: how it is drawn, where it comes from.

use std::collections::VecDeque;

use crate::{
    api::{
        Labels, Served,
        history::History,
        live::{Live, Model},
        requests::{Request, Requests},
    },
    cli::{Sort, View},
    screen::moments,
};

/// Requests that are kept, as many as an agent keeps.
pub const KEPT: usize = 4096;

impl Sort {
    const ALL: [Self; 5] = [Self::Rate, Self::Errors, Self::P50, Self::P99, Self::Name];

    /// Returns the next one.
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self);
        Self::ALL[(at.unwrap_or_default() + 1) % Self::ALL.len()]
    }

    /// Returns it as a noun.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Name => "name",
        }
    }
}

/// Where a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Playback {
    /// Time since its start, ms.
    pub at_ms: u64,
    /// Its length, ms.
    pub length_ms: u64,
}

/// A model, and where it runs: replicas are chosen one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The model.
    pub served: Served,
    /// Where it runs.
    pub labels: Labels,
}

impl Chosen {
    fn of(model: &Model) -> Self {
        Self {
            served: model.served.clone(),
            labels: model.labels.clone(),
        }
    }

    fn is(&self, model: &Model) -> bool {
        self.served == model.served && self.labels == model.labels
    }
}

/// Everything that a screen depends on.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Where it comes from, as the user names it.
    pub target: String,
    /// Where browsers find the same; `None`: nowhere else than at the target.
    pub page: Option<String>,
    /// What was known last; `None` before the first answer.
    pub live: Option<Live>,
    /// The latest requests, oldest first.
    pub requests: VecDeque<Request>,
    /// Requests that were no longer kept when they were asked for.
    pub missed: u64,
    /// The last minutes of the chosen model, or of the host.
    pub history: Option<History>,
    /// Why there is no newer answer; `None` if there is.
    pub fault: Option<String>,
    /// Where the recording is played; `None` if it is an agent.
    pub playback: Option<Playback>,
    /// What is shown.
    pub view: View,
    /// Whether the chosen model is explained.
    pub detail: bool,
    /// Only models and requests that contain this are shown, whatever the case of letters.
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// What rows are sorted by.
    pub sort: Sort,
    /// Whether the longest requests are first instead of the latest.
    pub slowest_first: bool,
    /// Whether newer answers are not shown.
    pub frozen: bool,
    /// Whether the keys are explained.
    pub help: bool,
    /// The chosen model.
    pub chosen: Option<Chosen>,
}

impl State {
    /// Takes an answer. The requests of another run of the agent are forgotten, because their numbers begin anew.
    pub fn take_live(&mut self, live: Live) {
        let is_same_run = self.live.as_ref().is_none_or(|before| {
            before.source.started_ns == live.source.started_ns
                && before.source.hostname == live.source.hostname
        });
        if !is_same_run {
            self.requests.clear();
            self.missed = 0;
            self.history = None;
        }
        self.fault = None;
        self.live = Some(live);
    }

    /// Takes the requests that followed.
    pub fn take_requests(&mut self, requests: Requests) {
        self.missed += requests.missed;
        self.requests.extend(requests.requests);
        let excess = self.requests.len().saturating_sub(KEPT);
        self.requests.drain(..excess);
    }

    /// Returns the number of the latest request.
    pub fn after(&self) -> u64 {
        self.requests.back().map_or(0, |request| request.number)
    }

    /// Returns the models that match the filter, sorted.
    pub fn models(&self) -> Vec<&Model> {
        let models = self.live.iter().flat_map(|live| &live.models);
        let mut models: Vec<&Model> = models.filter(|model| self.is_shown(model)).collect();
        let errors = |model: &Model| model.figures.client_errors + model.figures.server_errors;
        models.sort_by(|a, b| {
            let by = match self.sort {
                Sort::Rate => b.figures.per_second.total_cmp(&a.figures.per_second),
                Sort::Errors => errors(b).cmp(&errors(a)),
                Sort::P50 => b.figures.p50_ns.cmp(&a.figures.p50_ns),
                Sort::P99 => b.figures.p99_ns.cmp(&a.figures.p99_ns),
                Sort::Name => std::cmp::Ordering::Equal,
            };
            by.then_with(|| (&a.served, &a.labels).cmp(&(&b.served, &b.labels)))
        });
        models
    }

    fn is_shown(&self, model: &Model) -> bool {
        let names = [&*model.served.model, &model.served.server];
        self.matches(names.into_iter().chain(model.labels.values()))
    }

    /// Returns the requests that match the filter, in the order of the screen.
    pub fn listed(&self) -> Vec<&Request> {
        let latest_first = self.requests.iter().rev();
        let mut listed: Vec<&Request> =
            latest_first.filter(|request| self.lists(request)).collect();
        if self.slowest_first {
            listed.sort_by_key(|request| std::cmp::Reverse(moments::duration_ns(request)));
        }
        listed
    }

    /// Whether a request matches the filter.
    pub fn lists(&self, request: &Request) -> bool {
        let status = request.status.to_string();
        let because = request.because.as_deref().unwrap_or_default();
        let names = [
            &*request.served.model,
            &request.served.server,
            &status,
            because,
        ];
        self.matches(names.into_iter().chain(request.labels.values()))
    }

    fn matches<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        let filter = self.filter.to_lowercase();
        filter.is_empty()
            || texts
                .into_iter()
                .any(|text| text.to_lowercase().contains(&filter))
    }

    /// Returns the chosen model, or else the first one.
    pub fn chosen_model(&self) -> Option<&Model> {
        let models = self.models();
        let chosen = models.iter().find(|model| self.is_chosen(model));
        chosen.or(models.first()).copied()
    }

    fn is_chosen(&self, model: &Model) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| chosen.is(model))
    }

    /// Chooses the model that is `steps` further down.
    pub fn step(&mut self, steps: isize) {
        let models = self.models();
        let Some(last) = models.len().checked_sub(1) else {
            return;
        };
        let at = models.iter().position(|model| self.is_chosen(model));
        let at = at
            .unwrap_or_default()
            .saturating_add_signed(steps)
            .min(last);
        self.chosen = Some(Chosen::of(models[at]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Source, live::Figures};

    fn model(name: &str, per_second: f64, p99_ms: u64, server_errors: u64) -> Model {
        Model {
            served: Served {
                model: name.into(),
                version: "1".into(),
                server: "vllm".into(),
            },
            figures: Figures {
                per_second,
                server_errors,
                p99_ns: Some(p99_ms * 1_000_000),
                ..Figures::default()
            },
            ..Model::default()
        }
    }

    fn live(started_ns: u64) -> Live {
        Live {
            source: Source {
                started_ns,
                ..Source::default()
            },
            models: vec![
                model("a", 1.0, 30, 2),
                model("b", 3.0, 10, 0),
                model("Car", 2.0, 20, 1),
            ],
            ..Live::default()
        }
    }

    fn names(state: &State) -> Vec<&str> {
        state
            .models()
            .iter()
            .map(|model| &*model.served.model)
            .collect()
    }

    #[test]
    fn models_are_sorted_and_filtered() {
        let mut state = State::default();
        state.take_live(live(1));
        for (sort, expected) in [
            (Sort::Rate, ["b", "Car", "a"]),
            (Sort::P99, ["a", "Car", "b"]),
            (Sort::Errors, ["a", "Car", "b"]),
            (Sort::Name, ["Car", "a", "b"]),
        ] {
            state.sort = sort;
            assert_eq!(names(&state), expected, "{sort:?}");
        }
        state.filter = "A".into();
        assert_eq!(names(&state), ["Car", "a"]);
        state.filter = "vllm".into();
        assert_eq!(names(&state).len(), 3);
        state.filter = "none".into();
        assert_eq!(state.chosen_model(), None);
        state.step(1);
    }

    #[test]
    fn choice_follows_its_model_when_the_order_changes() {
        let mut state = State::default();
        state.take_live(live(1));
        assert_eq!(state.chosen_model().unwrap().served.model, "b");
        state.step(1);
        assert_eq!(state.chosen_model().unwrap().served.model, "Car");
        state.sort = Sort::P99;
        assert_eq!(state.chosen_model().unwrap().served.model, "Car");
        state.step(-9);
        assert_eq!(state.chosen_model().unwrap().served.model, "a");
        state.step(9);
        assert_eq!(state.chosen_model().unwrap().served.model, "b");
    }

    #[test]
    fn replicas_are_chosen_one_by_one() {
        let mut state = State::default();
        let mut replicas = live(1);
        replicas.models = ["0", "1", "2"]
            .map(|pod| Model {
                labels: Labels::new(["", "", pod, ""]),
                ..model("a", 1.0, 30, 0)
            })
            .into();
        state.take_live(replicas);
        for pod in ["1", "2", "2"] {
            state.step(1);
            assert_eq!(state.chosen_model().unwrap().labels.get("pod"), pod);
        }
    }

    #[test]
    fn requests_are_bounded_and_forgotten_after_a_restart() {
        let mut state = State::default();
        state.take_live(live(1));
        let request = |number| Request {
            number,
            ..Request::default()
        };
        state.take_requests(Requests {
            missed: 3,
            requests: (1..=2 * KEPT as u64).map(request).collect(),
            ..Requests::default()
        });
        assert_eq!(
            (state.requests.len(), state.after()),
            (KEPT, 2 * KEPT as u64)
        );
        state.take_live(live(1));
        assert_eq!((state.requests.len(), state.missed), (KEPT, 3));
        state.take_live(live(2));
        assert_eq!((state.after(), state.missed), (0, 0));
    }

    #[test]
    fn slowest_requests_come_first_and_unknown_ones_last() {
        let mut state = State::default();
        for (number, end_ns) in [(1, Some(5)), (2, None), (3, Some(9)), (4, Some(7))] {
            state.requests.push_back(Request {
                number,
                arrival_ns: Some(1),
                last_write_ns: end_ns,
                status: 500 + number as u16,
                ..Request::default()
            });
        }
        let numbers = |state: &State| -> Vec<u64> {
            state
                .listed()
                .iter()
                .map(|request| request.number)
                .collect()
        };
        assert_eq!(numbers(&state), [4, 3, 2, 1]);
        state.slowest_first = true;
        assert_eq!(numbers(&state), [3, 4, 1, 2]);
        state.filter = "503".into();
        assert_eq!(numbers(&state), [3]);
    }
}
