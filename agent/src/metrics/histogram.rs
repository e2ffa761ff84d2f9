//! Counts durations and numbers in histograms with fixed buckets.
//!
//! Each family of histograms names its buckets here.
//! Does not depend on: what is measured.

/// The buckets of a family of histograms.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Upper bounds, in the quantity's own unit; one more bucket has no upper bound.
    bounds: &'static [u64],
    /// Values of the label `le`, that of the last bucket included.
    le: &'static [&'static str],
    quantity: Quantity,
}

/// What is observed, and how its sum is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    /// Durations: observed in nanoseconds, exported in seconds.
    Duration,
    /// Numbers of something.
    Count,
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;

/// Buckets of the stages of requests.
pub(super) static STAGES: Buckets = Buckets {
    bounds: &[
        50 * US,
        100 * US,
        250 * US,
        500 * US,
        MS,
        2_500 * US,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        S,
        2_500 * MS,
        5 * S,
        10 * S,
        30 * S,
        60 * S,
        120 * S,
    ],
    le: &[
        "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025",
        "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "120.0", "+Inf",
    ],
    quantity: Quantity::Duration,
};

/// Buckets of the chunks of a streamed response.
pub(super) static CHUNKS: Buckets = Buckets {
    bounds: &[
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000,
    ],
    le: &[
        "1.0", "2.0", "5.0", "10.0", "20.0", "50.0", "100.0", "200.0", "500.0", "1000.0", "2000.0",
        "5000.0", "10000.0", "+Inf",
    ],
    quantity: Quantity::Count,
};

// The three lists below are those of the OpenTelemetry semantic conventions for generative AI:
// https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/#generative-ai-model-server-metrics

/// Buckets of `gen_ai.server.request.duration`.
pub(super) static GEN_AI_DURATION: Buckets = Buckets {
    bounds: &[
        10 * MS,
        20 * MS,
        40 * MS,
        80 * MS,
        160 * MS,
        320 * MS,
        640 * MS,
        1_280 * MS,
        2_560 * MS,
        5_120 * MS,
        10_240 * MS,
        20_480 * MS,
        40_960 * MS,
        81_920 * MS,
    ],
    le: &[
        "0.01", "0.02", "0.04", "0.08", "0.16", "0.32", "0.64", "1.28", "2.56", "5.12", "10.24",
        "20.48", "40.96", "81.92", "+Inf",
    ],
    quantity: Quantity::Duration,
};

/// Buckets of `gen_ai.server.time_to_first_token`.
pub(super) static GEN_AI_FIRST_TOKEN: Buckets = Buckets {
    bounds: &[
        MS,
        5 * MS,
        10 * MS,
        20 * MS,
        40 * MS,
        60 * MS,
        80 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        750 * MS,
        S,
        2_500 * MS,
        5 * S,
        7_500 * MS,
        10 * S,
    ],
    le: &[
        "0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08", "0.1", "0.25", "0.5", "0.75",
        "1.0", "2.5", "5.0", "7.5", "10.0", "+Inf",
    ],
    quantity: Quantity::Duration,
};

/// Buckets of `gen_ai.server.time_per_output_token`.
pub(super) static GEN_AI_OUTPUT_TOKEN: Buckets = Buckets {
    bounds: &[
        10 * MS,
        25 * MS,
        50 * MS,
        75 * MS,
        100 * MS,
        150 * MS,
        200 * MS,
        300 * MS,
        400 * MS,
        500 * MS,
        750 * MS,
        S,
        2_500 * MS,
    ],
    le: &[
        "0.01", "0.025", "0.05", "0.075", "0.1", "0.15", "0.2", "0.3", "0.4", "0.5", "0.75", "1.0",
        "2.5", "+Inf",
    ],
    quantity: Quantity::Duration,
};

/// Count of each bucket, and sum of all observed values.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    buckets: &'static Buckets,
    /// Count of each bucket, not cumulative; empty until something is observed.
    counts: Vec<u64>,
    sum: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new(&STAGES)
    }
}

impl Histogram {
    /// Creates a histogram without observations.
    pub(super) const fn new(buckets: &'static Buckets) -> Self {
        Self {
            buckets,
            counts: Vec::new(),
            sum: 0,
        }
    }

    /// Adds one duration.
    pub(super) fn observe_ns(&mut self, ns: u64) {
        debug_assert_eq!(self.buckets.quantity, Quantity::Duration);
        self.observe(ns);
    }

    /// Adds one number of something.
    pub(super) fn observe_count(&mut self, count: u64) {
        debug_assert_eq!(self.buckets.quantity, Quantity::Count);
        self.observe(count);
    }

    fn observe(&mut self, value: u64) {
        let index = self.buckets.bounds.partition_point(|bound| *bound < value);
        self.counts.resize(self.buckets.le.len(), 0);
        self.counts[index] += 1;
        self.sum += u128::from(value);
    }

    /// Returns the number of observations.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all observed values in the unit of the family, as text. It loses no digit, however long the
    /// agent runs.
    pub(super) fn sum_text(&self) -> String {
        if self.buckets.quantity == Quantity::Count {
            return format!("{}.0", self.sum);
        }
        let (seconds, ns) = (self.sum / u128::from(S), self.sum % u128::from(S));
        let text = format!("{seconds}.{ns:09}");
        let significant = text.trim_end_matches('0').len();
        let one_decimal = text.len() - 8;
        text[..significant.max(one_decimal)].to_owned()
    }

    /// Returns the count of each bucket, not cumulative, in the order of [`Histogram::le`]; empty without observations.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns the label `le` of each bucket.
    pub(super) fn le(&self) -> &'static [&'static str] {
        self.buckets.le
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (ns, expected) in [
            (0, 0),
            (50_000, 0),
            (50_001, 1),
            (100_000, 1),
            (1_000_000, 4),
            (120_000_000_000, 19),
            (120_000_000_001, 20),
            (u64::MAX, 20),
        ] {
            let mut histogram = Histogram::default();
            histogram.observe_ns(ns);
            let filled = histogram.counts().iter().position(|count| *count == 1);
            assert_eq!(filled, Some(expected), "{ns} ns");
        }
    }

    #[test]
    fn labels_match_the_bounds() {
        for buckets in [
            &STAGES,
            &CHUNKS,
            &GEN_AI_DURATION,
            &GEN_AI_FIRST_TOKEN,
            &GEN_AI_OUTPUT_TOKEN,
        ] {
            let unit = match buckets.quantity {
                Quantity::Duration => 1e9,
                Quantity::Count => 1.0,
            };
            let bounds = buckets.bounds.iter().map(|bound| *bound as f64 / unit);
            let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
            let labels: Vec<f64> = buckets.le.iter().map(|le| le.parse().unwrap()).collect();
            assert_eq!(labels, bounds);
            assert!(bounds.is_sorted_by(|one, next| one < next), "{bounds:?}");
        }
    }

    #[test]
    fn numbers_are_summed_up_as_they_are() {
        let mut histogram = Histogram::new(&CHUNKS);
        for count in [1, 200, 201] {
            histogram.observe_count(count);
        }
        assert_eq!(
            (histogram.count(), histogram.sum_text()),
            (3, "402.0".into())
        );
        assert_eq!(histogram.counts()[7..9], [1, 1]);
    }

    #[test]
    fn sum_and_count_cover_every_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.sum_text(), "0.0");
        for ns in [1_000_000, 500_000_000, 200_000_000_000] {
            histogram.observe_ns(ns);
        }
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.sum_text(), "200.501");
        histogram.observe_ns(499_000_000);
        assert_eq!(histogram.sum_text(), "201.0");
        histogram.observe_ns(1);
        assert_eq!(histogram.sum_text(), "201.000000001");
    }
}
