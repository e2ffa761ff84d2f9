//! Spells the last minutes in windows: `/api/v1/history`.
//!
//! Windows are kept in a form without names of keys, so no key may be left out when one is written.
//! Does not depend on: how anything is measured.

use serde::{Deserialize, Serialize};

use crate::{
    api::{Labels, Served, Source, stages::Stages},
    identity::REPLICA_LABELS,
};

/// Buckets of durations from one power of two to the next.
const BUCKETS_PER_DOUBLING: f64 = 4.0;

/// Answer of `/api/v1/history`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When and by whom it was made.
    pub source: Source,
    /// Length of a window, ms.
    pub window_ms: u64,
    /// What was served; empty: all requests of the host.
    pub served: Vec<Served>,
    /// Where each of them runs; recordings of earlier agents do not have it.
    #[serde(default)]
    pub labels: Vec<Labels>,
    /// Windows in which requests ended, oldest first; the last one may not be over.
    pub windows: Vec<Window>,
    /// Readings of GPUs, oldest first; only with all requests of the host.
    pub gpus: Vec<GpuReading>,
}

/// Which windows are wanted. `None`: any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this model.
    pub model: Option<String>,
    /// Of this version.
    pub version: Option<String>,
    /// Of this server.
    pub server: Option<String>,
    /// Where it runs: values of the labels that tell replicas apart, in their order.
    pub replica: [Option<String>; REPLICA_LABELS.len()],
    /// From this window on.
    pub from: Option<u64>,
}

impl Wanted {
    /// Returns what asks for exactly these: a label that is not known must not be known of them either.
    pub fn of(served: &Served, labels: &Labels) -> Self {
        Self {
            model: Some(served.model.clone()),
            version: Some(served.version.clone()),
            server: Some(served.server.clone()),
            replica: REPLICA_LABELS.map(|name| Some(labels.get(name).to_owned())),
            from: None,
        }
    }

    /// Returns the parameters that ask for it.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let served = [
            ("model", &self.model),
            ("version", &self.version),
            ("server", &self.server),
        ];
        let replica = REPLICA_LABELS.into_iter().zip(&self.replica);
        let named = served.into_iter().chain(replica);
        let mut parameters: Vec<_> = named
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect();
        parameters.extend(self.from.map(|from| ("from", from.to_string())));
        parameters
    }

    /// Whether all requests of the host are wanted.
    pub fn is_whole(&self) -> bool {
        let whole = Self {
            from: self.from,
            ..Self::default()
        };
        whole == *self
    }

    /// Whether requests of these are wanted.
    pub fn is_of(
        &self,
        [model, version, server]: [&str; 3],
        replica: [&str; REPLICA_LABELS.len()],
    ) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == name)
        };
        is(&self.model, model)
            && is(&self.version, version)
            && is(&self.server, server)
            && std::iter::zip(&self.replica, replica).all(|(wanted, label)| is(wanted, label))
    }
}

/// Returns the upper bound of a bucket of durations, ns.
pub fn bound_ns(bucket: u8) -> u64 {
    (1_000.0 * (f64::from(bucket) / BUCKETS_PER_DOUBLING).exp2()) as u64
}

/// The requests that ended in a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its number: it began at `index` times its length, on the records' clock.
    pub index: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Responses with status 400 to 499.
    pub client_errors: u64,
    /// Responses with status 500 and above.
    pub server_errors: u64,
    /// Requests of which each stage is known.
    pub complete: u64,
    /// Sums of their parts, ns.
    pub sums_ns: Stages,
    /// Durations: `[bucket, requests]` of each bucket that is not empty, in order. The upper bound of a bucket is
    /// 2^(bucket/4) µs.
    pub durations: Vec<(u8, u64)>,
    /// `QueueTime` of TorchServe: its sum and number.
    pub queue_time: Sum,
    /// `HandlerTime` of TorchServe.
    pub handler_time: Sum,
    /// `PredictionTime` of TorchServe.
    pub prediction_time: Sum,
    /// Tokens of prompts.
    pub input_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
    /// Responses that state tokens.
    pub with_tokens: u64,
    /// Times to first token.
    pub first_token: Sum,
    /// Mean times from one token to the next, of each response.
    pub token_gap: Sum,
}

impl Window {
    /// Adds a duration to its bucket.
    pub fn add_duration(&mut self, ns: u64) {
        self.add_to_bucket(bucket(ns), 1);
    }

    /// Adds the requests of another window.
    pub fn merge(&mut self, other: &Self) {
        self.index = other.index;
        for (sum, part) in [
            (&mut self.requests, other.requests),
            (&mut self.client_errors, other.client_errors),
            (&mut self.server_errors, other.server_errors),
            (&mut self.complete, other.complete),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.with_tokens, other.with_tokens),
        ] {
            *sum += part;
        }
        self.sums_ns.add(&other.sums_ns);
        for (bucket, count) in &other.durations {
            self.add_to_bucket(*bucket, *count);
        }
        for (sum, part) in [
            (&mut self.queue_time, other.queue_time),
            (&mut self.handler_time, other.handler_time),
            (&mut self.prediction_time, other.prediction_time),
            (&mut self.first_token, other.first_token),
            (&mut self.token_gap, other.token_gap),
        ] {
            sum.ns = sum.ns.saturating_add(part.ns);
            sum.count += part.count;
        }
    }

    /// Returns how many durations are known.
    pub fn timed(&self) -> u64 {
        self.durations.iter().map(|(_, count)| count).sum()
    }

    /// Returns what this share of the requests took at most, ns: the middle of its bucket, which is at most 9 % off. `None`
    /// if no duration is known.
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let rank = (self.timed() as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let (bucket, _) = self.durations.iter().find(|(_, count)| {
            below += count;
            below >= rank
        })?;
        Some((1_000.0 * ((f64::from(*bucket) - 0.5) / BUCKETS_PER_DOUBLING).exp2()) as u64)
    }

    fn add_to_bucket(&mut self, bucket: u8, count: u64) {
        let at = self
            .durations
            .binary_search_by_key(&bucket, |(bucket, _)| *bucket);
        match at {
            Ok(at) => self.durations[at].1 += count,
            Err(at) => self.durations.insert(at, (bucket, count)),
        }
    }
}

fn bucket(ns: u64) -> u8 {
    // Negative numbers become 0.
    (BUCKETS_PER_DOUBLING * (ns as f64 / 1_000.0).log2()).ceil() as u8
}

/// A sum of durations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// The sum, ns.
    pub ns: u64,
    /// How many were added.
    pub count: u64,
}

/// One reading of one GPU, in TorchServe's terms. `null`: the device has no such value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuReading {
    /// When, ns of the records' clock.
    pub at_ns: u64,
    /// Index of the device.
    pub device: u32,
    /// `GPUUtilization`, percent.
    pub busy_pct: Option<f64>,
    /// `GPUMemoryUtilization`, percent.
    pub memory_pct: Option<f64>,
    /// `GPUMemoryUsed`, MiB.
    pub memory_mib: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_the_bucket_below_whose_bound_they_are() {
        for (ns, expected) in [
            (0, 0),
            (1, 0),
            (1_000, 0),
            (1_001, 1),
            (2_000, 4),
            (2_001, 5),
            (1_024_000_000, 80),
            (u64::MAX, 217),
        ] {
            assert_eq!(bucket(ns), expected, "{ns}");
        }
    }

    #[test]
    fn quantiles_are_at_most_nine_percent_off() {
        let mut window = Window::default();
        assert_eq!(window.quantile_ns(0.5), None);
        for ms in 1..=1_000 {
            window.add_duration(ms * 1_000_000);
        }
        assert_eq!(window.timed(), 1_000);
        for (share, exact_ms) in [(0.5, 500.0), (0.99, 990.0), (0.001, 1.0), (1.0, 1_000.0)] {
            let ratio = window.quantile_ns(share).unwrap() as f64 / 1e6 / exact_ms;
            assert!((0.91..1.095).contains(&ratio), "{share}: {ratio}");
        }
    }

    #[test]
    fn merged_windows_have_the_sums_of_both() {
        let window = |ns| {
            let mut window = Window {
                index: 3,
                requests: 2,
                output_tokens: 5,
                first_token: Sum { ns: 4, count: 1 },
                ..Window::default()
            };
            window.add_duration(ns);
            window
        };
        let mut sum = window(5_000);
        sum.merge(&window(4_000));
        sum.merge(&window(5_000));
        assert_eq!(sum.durations, [(8, 1), (10, 2)]);
        assert_eq!((sum.index, sum.requests, sum.output_tokens), (3, 6, 15));
        assert_eq!(sum.first_token, Sum { ns: 12, count: 3 });
    }
}
