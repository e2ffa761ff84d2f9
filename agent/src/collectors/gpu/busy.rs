//! Decides whether a utilization of 0 is true.
//!
//! Some drivers report 0 of a GPU that works. A wrong 0 looks like an idle GPU, so it becomes unknown.
//! Does not depend on: NVML.

/// Share of the power limit from which a GPU is not idle.
const BUSY_SHARE_OF_LIMIT: f64 = 0.5;
/// Times its own idle power, from which a GPU is not idle.
const BUSY_TIMES_IDLE: f64 = 2.0;
/// Power above its own idle power, from which a GPU is not idle, mW. A GPU that waits at full clocks stays below.
const BUSY_OVER_IDLE_MW: f64 = 50_000.0;

/// What shows whether a GPU works.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signs {
    /// NVML's utilization, percent; `None` if it has none.
    pub(super) gpu_pct: Option<u32>,
    /// Power now, mW.
    pub(super) power_mw: Option<u32>,
    /// Power limit, mW.
    pub(super) limit_mw: Option<u32>,
    /// Least power so far while it was idle, mW.
    pub(super) idle_mw: Option<u32>,
}

/// Whether a GPU works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// NVML's utilization, percent, is plausible.
    Known(u32),
    /// It is 0, and something else shows that the GPU works.
    FalseZero,
    /// NVML has no utilization.
    Absent,
}

impl Signs {
    /// Judges the utilization.
    pub(super) fn judge(self) -> Busy {
        match self.gpu_pct {
            None => Busy::Absent,
            Some(0) if self.draws_much() => Busy::FalseZero,
            Some(pct) => Busy::Known(pct),
        }
    }

    /// Whether it draws much more than an idle GPU.
    fn draws_much(self) -> bool {
        let Some(power_mw) = self.power_mw.map(f64::from) else {
            return false;
        };
        let over_limit = self.limit_mw.is_some_and(|limit_mw| {
            limit_mw > 0 && power_mw > BUSY_SHARE_OF_LIMIT * f64::from(limit_mw)
        });
        let over_idle = self.idle_mw.map(f64::from).is_some_and(|idle_mw| {
            power_mw > BUSY_TIMES_IDLE * idle_mw && power_mw > idle_mw + BUSY_OVER_IDLE_MW
        });
        over_limit || over_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_at_high_power_is_unknown_and_zero_at_idle_power_is_zero() {
        let zero = Signs {
            gpu_pct: Some(0),
            ..Signs::default()
        };
        let at = |watts: u32, limit: Option<u32>, idle: Option<u32>| Signs {
            power_mw: Some(watts * 1_000),
            limit_mw: limit.map(|limit| limit * 1_000),
            idle_mw: idle.map(|idle| idle * 1_000),
            ..zero
        };
        for (signs, expected) in [
            (zero, Busy::Known(0)),
            (at(70, Some(700), None), Busy::Known(0)),
            (at(120, Some(700), Some(70)), Busy::Known(0)),
            (at(28, Some(70), Some(10)), Busy::Known(0)),
            (at(351, Some(700), None), Busy::FalseZero),
            (at(200, Some(700), Some(70)), Busy::FalseZero),
            (at(200, None, Some(70)), Busy::FalseZero),
            (at(200, None, None), Busy::Known(0)),
            (
                Signs {
                    gpu_pct: Some(3),
                    ..at(690, Some(700), Some(70))
                },
                Busy::Known(3),
            ),
            (
                Signs {
                    gpu_pct: None,
                    ..at(690, Some(700), Some(70))
                },
                Busy::Absent,
            ),
        ] {
            assert_eq!(signs.judge(), expected, "{signs:?}");
        }
    }
}
