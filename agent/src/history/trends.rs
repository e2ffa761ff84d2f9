//! Keeps a quarter of an hour of each model in windows, packed, in bounded memory.
//!
//! Does not depend on: verdicts.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::{
    api::{
        history::{Sum, Window},
        stages::Stages,
    },
    history::{sample::Sample, span::WINDOW_NS},
    identity::{Identity, Replica},
    observation::Observation,
};

/// Windows that are kept of each model: 15 minutes.
pub const WINDOWS: u64 = 180;
/// Models that are kept.
const MODELS: usize = 512;
/// Bytes that all windows may take, packed, with what it takes to keep them.
const KEPT_BYTES: usize = 3_000_000;
/// What it takes to keep one packed window, bytes.
const OVERHEAD: usize = 40;

/// Times of a request by TorchServe's definitions, ns; `None` if it has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TorchServeTimes {
    /// `QueueTime`.
    pub queue_ns: Option<u64>,
    /// `HandlerTime`.
    pub handler_ns: Option<u64>,
    /// `PredictionTime`.
    pub prediction_ns: Option<u64>,
}

/// The windows of each model, and of all requests.
#[derive(Debug, Default)]
pub struct Trends {
    whole: Trend,
    by_identity: BTreeMap<Identity, Trend>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Trend {
    closed: VecDeque<Packed>,
    open: Option<Window>,
}

#[derive(Debug)]
struct Packed {
    index: u64,
    bytes: Box<[u8]>,
}

impl Trends {
    /// Adds a finished request.
    pub fn add(&mut self, observation: &Observation, sample: &Sample, times: &TorchServeTimes) {
        let index = sample.at_ns / WINDOW_NS;
        let mut bytes = self.whole.open(index);
        add(self.whole.window(), observation, sample, times);
        let identity = &observation.identity;
        if !self.by_identity.contains_key(identity) && self.by_identity.len() < MODELS {
            self.by_identity.insert(identity.clone(), Trend::default());
        }
        if let Some(trend) = self.by_identity.get_mut(identity) {
            bytes += trend.open(index);
            add(trend.window(), observation, sample, times);
        }
        if bytes > 0 {
            self.bytes += bytes;
            self.forget(index);
        }
    }

    /// Returns the windows from number `from` on: of all requests, or of the identities that `is_meant`, added up, with
    /// these identities.
    pub fn windows(
        &self,
        from: u64,
        is_meant: Option<&dyn Fn(&Identity) -> bool>,
    ) -> (Vec<Identity>, Vec<Window>) {
        let Some(is_meant) = is_meant else {
            return (Vec::new(), self.whole.from(from).collect());
        };
        let mut identities = Vec::new();
        let mut sums: BTreeMap<u64, Window> = BTreeMap::new();
        for (identity, trend) in self.by_identity.iter().filter(|(one, _)| is_meant(one)) {
            identities.push(identity.clone());
            for window in trend.from(from) {
                sums.entry(window.index).or_default().merge(&window);
            }
        }
        (identities, sums.into_values().collect())
    }

    /// Forgets the models of these replicas.
    pub fn forget_replicas(&mut self, replicas: &HashSet<Replica>) {
        self.by_identity.retain(|identity, trend| {
            let is_kept = !replicas.contains(&identity.replica);
            if !is_kept {
                self.bytes -= trend.forget(u64::MAX);
            }
            is_kept
        });
    }

    /// Forgets what is too old at window `now`, and the oldest windows if they take too much memory.
    fn forget(&mut self, now: u64) {
        let mut oldest = (now + 1).saturating_sub(WINDOWS);
        loop {
            let trends = self.by_identity.values_mut().chain([&mut self.whole]);
            for trend in trends {
                self.bytes -= trend.forget(oldest);
            }
            if self.bytes <= KEPT_BYTES || oldest >= now {
                return;
            }
            oldest += 1;
        }
    }
}

impl Trend {
    /// Begins the window `index`, if it is later than the open one; returns the bytes that the open one takes from then
    /// on.
    fn open(&mut self, index: u64) -> usize {
        let is_later = |open: &mut Window| open.index < index;
        let mut bytes = 0;
        if let Some(ended) = self.open.take_if(is_later) {
            let packed = postcard::to_allocvec(&ended).expect("a window can be packed");
            bytes = packed.len() + OVERHEAD;
            self.closed.push_back(Packed {
                index: ended.index,
                bytes: packed.into(),
            });
        }
        self.open.get_or_insert_with(|| Window {
            index,
            ..Window::default()
        });
        bytes
    }

    fn window(&mut self) -> &mut Window {
        self.open.get_or_insert_default()
    }

    /// Forgets the closed windows before `oldest`; returns the bytes that they took.
    fn forget(&mut self, oldest: u64) -> usize {
        let mut bytes = 0;
        while let Some(first) = self.closed.pop_front_if(|first| first.index < oldest) {
            bytes += first.bytes.len() + OVERHEAD;
        }
        bytes
    }

    fn from(&self, from: u64) -> impl Iterator<Item = Window> {
        let closed = self.closed.iter().filter(move |one| one.index >= from);
        let closed = closed.filter_map(|one| postcard::from_bytes(&one.bytes).ok());
        let open = self.open.iter().filter(move |one| one.index >= from);
        closed.chain(open.cloned())
    }
}

fn add(window: &mut Window, observation: &Observation, sample: &Sample, times: &TorchServeTimes) {
    window.requests += 1;
    window.client_errors += u64::from((400..=499).contains(&observation.status));
    window.server_errors += u64::from(observation.status >= 500);
    if let Ok(components) = sample.parts.components() {
        window.complete += 1;
        window.sums_ns.add(&Stages::from(&components));
    }
    if let Some(total_ns) = observation.stages.total_ns() {
        window.add_duration(total_ns);
    }
    window.queue_time.add(times.queue_ns);
    window.handler_time.add(times.handler_ns);
    window.prediction_time.add(times.prediction_ns);
    if let Some(tokens) = &observation.tokens {
        window.with_tokens += u64::from(tokens.usage.is_stated());
        window.input_tokens += tokens.usage.input.unwrap_or(0);
        window.output_tokens += tokens.usage.output.unwrap_or(0);
        window.first_token.add(tokens.first.known_ns());
        window.token_gap.add(tokens.gap.known_ns());
    }
}

impl Sum {
    fn add(&mut self, ns: Option<u64>) {
        if let Some(ns) = ns {
            self.ns = self.ns.saturating_add(ns);
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        catalogue::route::{ModelSource, Purpose, Route},
        exchange::fixtures::exchange,
        identity::{Hop, Server, fixtures::server},
        torchserve::timing::WorkerSide,
    };

    use super::*;

    const S: u64 = 1_000_000_000;

    fn observation(model: &str, status: u16) -> Observation {
        let server = Server {
            model: model.into(),
            model_source: ModelSource::Configuration,
            ..server()
        };
        let mut exchange = exchange();
        exchange.response.status = status;
        let route = Route::of(Purpose::Inference);
        Observation::new(&exchange, server, route, Hop::ONLY, WorkerSide::NoWorker)
    }

    fn add_at(trends: &mut Trends, at_s: u64, model: &str, status: u16) {
        let sample = Sample {
            at_ns: at_s * S,
            ..Sample::default()
        };
        let times = TorchServeTimes {
            queue_ns: Some(7),
            ..TorchServeTimes::default()
        };
        trends.add(&observation(model, status), &sample, &times);
    }

    #[test]
    fn windows_of_a_model_and_of_all_are_kept_apart() {
        let mut trends = Trends::default();
        for (at_s, model, status) in [(100, "a", 200), (101, "b", 503), (106, "a", 404)] {
            add_at(&mut trends, at_s, model, status);
        }
        let (none, all) = trends.windows(0, None);
        assert!(none.is_empty());
        let counts = |windows: &[Window]| -> Vec<_> {
            let each = windows.iter();
            each.map(|one| {
                (
                    one.index,
                    one.requests,
                    one.client_errors,
                    one.server_errors,
                )
            })
            .collect()
        };
        assert_eq!(counts(&all), [(20, 2, 0, 1), (21, 1, 1, 0)]);
        assert_eq!(all[0].queue_time, Sum { ns: 14, count: 2 });
        assert_eq!(all[0].handler_time, Sum::default());
        // 4.321 µs: between 2^(8/4) and 2^(9/4) µs.
        assert_eq!(all[0].durations, [(9, 2)]);
        let (identities, of_a) = trends.windows(21, Some(&|one| &*one.model == "a"));
        assert_eq!(identities.len(), 1);
        assert_eq!(counts(&of_a), [(21, 1, 1, 0)]);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_windows_go_first() {
        let mut trends = Trends::default();
        for window in 0..300 {
            for model in 0..600 {
                add_at(&mut trends, 1_000 + window * 5, &model.to_string(), 200);
            }
        }
        assert!(trends.bytes <= KEPT_BYTES, "{}", trends.bytes);
        let (_, all) = trends.windows(0, None);
        assert!(
            all.len() > 20 && all.len() as u64 <= WINDOWS,
            "{}",
            all.len()
        );
        assert_eq!(all.last().map(|last| last.requests), Some(600));
        let mut one = Trends::default();
        for window in 0..300 {
            add_at(&mut one, 1_000 + window * 5, "m", 200);
        }
        assert_eq!(one.windows(0, None).1.len() as u64, WINDOWS);
    }
}
