//! A histogram of seconds with fixed buckets. Nothing here knows what is measured.

/// Upper bounds of the buckets, seconds; a last one without a bound follows.
const BOUNDS_S: [f64; 20] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
const BUCKETS: usize = BOUNDS_S.len() + 1;

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

    /// Sum of the durations observed, seconds.
    pub(super) fn sum_s(&self) -> f64 {
        ns_to_s_f64(self.sum_ns)
    }

    /// Upper bound in seconds and own count of each bucket; the last bound is infinite.
    pub(super) fn buckets(&self) -> [(f64, u64); BUCKETS] {
        std::array::from_fn(|index| {
            let bound_s = BOUNDS_S.get(index).copied().unwrap_or(f64::INFINITY);
            (bound_s, self.counts[index])
        })
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
            let filled = histogram.buckets().iter().position(|bucket| bucket.1 == 1);
            assert_eq!(filled, Some(expected), "{ns} ns");
        }
    }

    #[test]
    fn sum_and_count_cover_every_bucket() {
        let mut histogram = Histogram::default();
        for ns in [1_000_000, 500_000_000, 200_000_000_000] {
            histogram.observe_ns(ns);
        }
        assert_eq!(histogram.count(), 3);
        assert!((histogram.sum_s() - 200.501).abs() < 1e-9);
    }
}
