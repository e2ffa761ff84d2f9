//! Computes how many CPUs the agent keeps busy, from its CPU time at two answers.
//!
//! Does not depend on: how CPU time is read.

use std::sync::{Mutex, PoisonError};

use crate::{api::live::Cost, live::values::Values, metrics::families};

/// Shortest time that the share is taken over, ns.
const SPAN_NS: u64 = 5_000_000_000;

/// CPU time at earlier answers.
#[derive(Debug, Default)]
pub(super) struct CpuTime(Mutex<Option<Earlier>>);

#[derive(Debug, Clone, Copy)]
struct Earlier {
    at_ns: u64,
    cpu_seconds: f64,
    /// What was found over the time before.
    cpus: Option<f64>,
}

impl CpuTime {
    /// Returns what the agent costs, at `now_ns`.
    pub(super) fn cost(&self, values: &Values, now_ns: u64) -> Cost {
        let cpu_seconds = values.one(&families::PROCESS_CPU);
        Cost {
            cpus: cpu_seconds.and_then(|cpu_seconds| self.cpus(cpu_seconds, now_ns)),
            cpu_seconds,
            memory_bytes: values
                .one(&families::PROCESS_RESIDENT)
                .map(|bytes| bytes as u64),
        }
    }

    fn cpus(&self, cpu_seconds: f64, now_ns: u64) -> Option<f64> {
        let mut earlier = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = *earlier else {
            *earlier = Some(Earlier {
                at_ns: now_ns,
                cpu_seconds,
                cpus: None,
            });
            return None;
        };
        let span_ns = now_ns.saturating_sub(before.at_ns);
        if span_ns < SPAN_NS {
            return before.cpus;
        }
        let cpus = (cpu_seconds - before.cpu_seconds).max(0.0) / (span_ns as f64 / 1e9);
        *earlier = Some(Earlier {
            at_ns: now_ns,
            cpu_seconds,
            cpus: Some(cpus),
        });
        Some(cpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn share_is_taken_over_five_seconds_and_unknown_before() {
        let cpu_time = CpuTime::default();
        for (at_s, cpu_seconds, expected) in [
            (10, 1.0, None),
            (12, 1.5, None),
            (15, 1.5, Some(0.1)),
            (16, 2.0, Some(0.1)),
            (20, 3.5, Some(0.4)),
        ] {
            assert_eq!(cpu_time.cpus(cpu_seconds, at_s * S), expected, "{at_s}");
        }
    }
}
