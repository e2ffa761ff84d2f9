//! A histogram of seconds with fixed buckets. Nothing here knows what is measured.

/// Upper bounds of the buckets, seconds; a last one without a bound follows.
const BOUNDS_S: [f64; 20] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
const BUCKETS: usize = BOUNDS_S.len() + 1;

/// The bounds as label `le` spells them, the last one too.
const LE: [&str; BUCKETS] = [
    "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05",
    "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "120.0", "+Inf",
];

/// Counts per bucket and the sum of what was observed.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: [u64; BUCKETS],
    sum_ns: u128,
}

impl Histogram {
    /// Adds one duration.
    pub(super) fn observe_ns(&mut self, ns: u64) {
        let seconds = ns_to_s_f64(u128::from(ns));
        let index = BOUNDS_S.partition_point(|bound| *bound < seconds);
        self.counts[index] += 1;
        self.sum_ns += u128::from(ns);
    }

    /// Number of durations observed.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of the durations observed, seconds, as text: no digit is lost, however long the agent runs.
    pub(super) fn sum_s_text(&self) -> String {
        let (seconds, ns) = (self.sum_ns / 1_000_000_000, self.sum_ns % 1_000_000_000);
        let text = format!("{seconds}.{ns:09}");
        let significant = text.trim_end_matches('0').len();
        let one_decimal = text.len() - 8;
        text[..significant.max(one_decimal)].to_owned()
    }

    /// Own count of each bucket, in the order of [`Histogram::le`].
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Label `le` of each bucket.
    pub(super) fn le() -> &'static [&'static str] {
        &LE
    }
}

fn ns_to_s_f64(ns: u128) -> f64 {
    ns as f64 / 1e9
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
    fn labels_spell_the_bounds() {
        let spelt: Vec<f64> = LE.iter().map(|le| le.parse().unwrap()).collect();
        assert_eq!(spelt, [&BOUNDS_S[..], &[f64::INFINITY]].concat());
    }

    #[test]
    fn sum_and_count_cover_every_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.sum_s_text(), "0.0");
        for ns in [1_000_000, 500_000_000, 200_000_000_000] {
            histogram.observe_ns(ns);
        }
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.sum_s_text(), "200.501");
        histogram.observe_ns(499_000_000);
        assert_eq!(histogram.sum_s_text(), "201.0");
        histogram.observe_ns(1);
        assert_eq!(histogram.sum_s_text(), "201.000000001");
    }
}
