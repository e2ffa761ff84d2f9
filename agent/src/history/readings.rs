//! Keeps what collectors read of one server, summed by window.
//!
//! Does not depend on: where it is read, a clock.

use std::collections::VecDeque;

use crate::{
    history::span::{WINDOW_NS, WINDOWS},
    verdict::evidence::{Engine, Evidence, Gpu},
};

/// What a collector read of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// Start of the time that it tells of: the reading before, ns.
    pub from_ns: u64,
    /// End of that time, ns.
    pub at_ns: u64,
    /// How long the CPU limit of its control group stopped it, ns; `None` if that is unknown.
    pub throttled_ns: Option<u64>,
    /// The GPUs that it uses; `None` if it uses none, or they are unknown.
    pub gpu: Option<Gpu>,
    /// What it says of itself; `None` if it was not asked, or did not say.
    pub engine: Option<Engine>,
}

/// The readings of one server.
#[derive(Debug, Default)]
pub(super) struct Readings(VecDeque<Sum>);

/// The readings of one window.
#[derive(Debug, Default)]
struct Sum {
    window: u64,
    throttled_ns: Option<u64>,
    gpu: Option<Gpu>,
    /// Time that the readings of GPUs tell of, ns.
    gpu_span_ns: u64,
    engine: Option<Engine>,
}

impl Readings {
    /// Adds a reading to the window that most of its time is in.
    pub(super) fn add(&mut self, reading: &Reading) {
        let span_ns = reading.at_ns.saturating_sub(reading.from_ns);
        let window = (reading.at_ns - span_ns / 2) / WINDOW_NS;
        let sum = self.window(window);
        sum.throttled_ns = added(sum.throttled_ns, reading.throttled_ns);
        if let Some(gpu) = &reading.gpu {
            sum.add_gpu(gpu, span_ns);
        }
        if let Some(engine) = &reading.engine {
            sum.add_engine(engine);
        }
    }

    /// Adds what was read in the windows `from..to` to `evidence`.
    pub(super) fn tell(&self, from: u64, to: u64, evidence: &mut Evidence) {
        let mut all = Sum::default();
        let sums = self.0.iter();
        for sum in sums.filter(|sum| (from..to).contains(&sum.window)) {
            all.throttled_ns = added(all.throttled_ns, sum.throttled_ns);
            if let Some(gpu) = &sum.gpu {
                all.add_gpu(gpu, sum.gpu_span_ns);
            }
            if let Some(engine) = &sum.engine {
                all.add_engine(engine);
            }
        }
        evidence.throttled_ns = all.throttled_ns;
        evidence.gpu = all.gpu;
        evidence.engine = all.engine;
    }

    /// The sum of a window. Readings of several collectors may come in another order than their windows.
    fn window(&mut self, window: u64) -> &mut Sum {
        let at = self.0.partition_point(|sum| sum.window < window);
        if self.0.get(at).is_none_or(|sum| sum.window != window) {
            self.0.insert(
                at,
                Sum {
                    window,
                    ..Sum::default()
                },
            );
        }
        let mut at = at;
        if self.0.len() > WINDOWS && at > 0 {
            self.0.pop_front();
            at -= 1;
        }
        &mut self.0[at]
    }
}

impl Sum {
    /// Adds up throttling. The share of others is the mean, and the process that used most of it in one reading is named.
    fn add_gpu(&mut self, gpu: &Gpu, span_ns: u64) {
        let weight = |ns: u64| ns as f64 + 1.0;
        self.gpu = Some(match self.gpu {
            None => *gpu,
            Some(before) => Gpu {
                others: before.others.zip(gpu.others).map(|(one, other)| {
                    let (first, second) = (weight(self.gpu_span_ns), weight(span_ns));
                    (one * first + other * second) / (first + second)
                }),
                most_others: before
                    .most_others
                    .zip(gpu.most_others)
                    .map(|(one, other)| one.max(other)),
                other_pid: match before.others < gpu.others {
                    true => gpu.other_pid.or(before.other_pid),
                    false => before.other_pid.or(gpu.other_pid),
                },
                throttled_ns: added(before.throttled_ns, gpu.throttled_ns),
            },
        });
        self.gpu_span_ns += span_ns;
    }

    fn add_engine(&mut self, engine: &Engine) {
        match &mut self.engine {
            None => self.engine = Some(*engine),
            Some(sum) => sum.add(engine),
        }
    }
}

fn added(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    let known = one.into_iter().chain(other);
    known.reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn gpu(others: Option<f64>, other_pid: u32, throttled_ns: u64) -> Reading {
        Reading {
            gpu: Some(Gpu {
                others,
                most_others: others,
                other_pid: Some(other_pid),
                throttled_ns: Some(throttled_ns),
            }),
            ..Reading::default()
        }
    }

    fn evidence(readings: &Readings, from: u64, to: u64) -> Evidence {
        let mut evidence = Evidence::default();
        readings.tell(from, to, &mut evidence);
        evidence
    }

    #[test]
    fn a_reading_counts_in_the_window_that_most_of_its_time_is_in() {
        let mut readings = Readings::default();
        for (from_s, at_s, throttled_ns) in [(2, 7, 1), (6, 8, 2), (8, 9, 4), (9, 10, 8)] {
            readings.add(&Reading {
                from_ns: from_s * S,
                at_ns: at_s * S,
                throttled_ns: Some(throttled_ns),
                ..Reading::default()
            });
        }
        assert_eq!(evidence(&readings, 0, 1).throttled_ns, Some(1));
        assert_eq!(evidence(&readings, 1, 2).throttled_ns, Some(14));
        assert_eq!(evidence(&readings, 0, 3).throttled_ns, Some(15));
        assert_eq!(evidence(&readings, 2, 3), Evidence::default());
    }

    #[test]
    fn shares_of_others_are_weighted_by_time_and_unknown_ones_hide_the_mean() {
        let mut readings = Readings::default();
        for (from_s, at_s, reading) in [
            (0, 3, gpu(Some(0.1), 7, 5)),
            (3, 4, gpu(Some(0.5), 8, 6)),
            (5, 9, gpu(Some(0.4), 9, 7)),
            (10, 11, gpu(None, 9, 9)),
        ] {
            readings.add(&Reading {
                from_ns: from_s * S,
                at_ns: at_s * S,
                ..reading
            });
        }
        let first = evidence(&readings, 0, 1).gpu.unwrap();
        assert!((first.others.unwrap() - 0.2).abs() < 1e-6, "{first:?}");
        assert_eq!((first.other_pid, first.throttled_ns), (Some(8), Some(11)));
        assert_eq!(first.most_others, Some(0.5));
        let both = evidence(&readings, 0, 2).gpu.unwrap();
        assert!((both.others.unwrap() - 0.3).abs() < 1e-6, "{both:?}");
        assert_eq!(evidence(&readings, 0, 3).gpu.unwrap().others, None);
    }

    #[test]
    fn collectors_may_report_in_any_order_and_windows_are_bounded() {
        let mut readings = Readings::default();
        for at_s in [30, 10, 31, 20, 11] {
            readings.add(&Reading {
                from_ns: at_s * S,
                at_ns: at_s * S,
                throttled_ns: Some(at_s),
                ..Reading::default()
            });
        }
        assert_eq!(evidence(&readings, 2, 3).throttled_ns, Some(21));
        assert_eq!(evidence(&readings, 6, 7).throttled_ns, Some(61));
        for at_s in 0..10_000 {
            readings.add(&Reading {
                at_ns: at_s * S,
                ..Reading::default()
            });
            assert!(readings.0.len() <= WINDOWS);
        }
    }
}
