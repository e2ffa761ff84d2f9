//! Computes percentiles of measurements.

use serde::Serialize;

/// Median, tail and worst case of a set of numbers, in the unit of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Number of values.
    pub count: usize,
    /// The median.
    pub p50: u64,
    /// Nine in ten are at or below this.
    pub p90: u64,
    /// Ninety-nine in a hundred are at or below this.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

impl Spread {
    /// Returns the spread of `values`, by the nearest-rank method; `None` without values.
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let rank = |pct: usize| values.get((values.len() * pct).div_ceil(100).saturating_sub(1));
        Some(Self {
            count: values.len(),
            p50: *rank(50)?,
            p90: *rank(90)?,
            p99: *rank(99)?,
            max: *values.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let spread = Spread::of((1..=200).rev().collect()).unwrap();
        assert_eq!(
            (spread.count, spread.p50, spread.p90, spread.p99, spread.max),
            (200, 100, 180, 198, 200)
        );
        assert_eq!(Spread::of(vec![7]).unwrap().p99, 7);
        assert_eq!(Spread::of(vec![]), None);
    }
}
