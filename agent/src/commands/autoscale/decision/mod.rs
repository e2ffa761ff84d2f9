//! Decides when to change the number of workers, and gives the reason.
//!
//! The control loop carries a decision out; the clock is an argument.
//! Does not depend on: the network.

use std::time::{Duration, Instant};

use crate::{commands::autoscale::queue::Queue, torchserve::management::Description};

/// A queue time below this share of the target is low.
const LOW_SHARE: f64 = 0.25;
/// A queue time above this many times the target doubles the workers.
const DOUBLING: f64 = 4.0;

/// Settings of the operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Fewest workers.
    pub min: u32,
    /// Most workers, at least 1 and at least `min`.
    pub max: u32,
    /// Mean queue time above which workers are added, milliseconds, above 0.
    pub target_queue_ms: f64,
    /// Shortest time between two changes.
    pub cool_down: Duration,
    /// Intervals in a row with a low queue before a worker is removed, at least 1.
    pub down_after: u32,
}

/// Kind of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// More workers.
    Up,
    /// Fewer workers.
    Down,
    /// No change.
    Hold,
    /// No change, because a value is unknown.
    Unknown,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Hold, Self::Unknown];

    /// Returns its word in output and labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Hold => "hold",
            Self::Unknown => "unknown",
        }
    }
}

/// A number of workers, and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Kind.
    pub verdict: Verdict,
    /// Desired number of workers; `None` if TorchServe's number is unknown.
    pub desired: Option<u32>,
    /// Reason, as a phrase.
    pub reason: String,
}

impl Decision {
    /// Returns the number of workers to request from TorchServe; `None` if nothing changes.
    pub fn change(&self) -> Option<u32> {
        match self.verdict {
            Verdict::Up | Verdict::Down => self.desired,
            Verdict::Hold | Verdict::Unknown => None,
        }
    }

    fn hold(workers: &Description, reason: String) -> Self {
        Self {
            verdict: Verdict::Hold,
            desired: Some(workers.desired),
            reason,
        }
    }
}

/// Queue time relative to the target.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Load {
    /// Above the target, milliseconds.
    High(f64),
    /// Requests wait, and none finished.
    Stuck,
    /// Between low and the target, milliseconds.
    Fair(f64),
    /// Low, milliseconds; `None` if there was no request.
    Low(Option<f64>),
}

/// State between decisions.
#[derive(Debug)]
pub struct Scaler {
    policy: Policy,
    /// Intervals in a row with a low queue.
    low: u32,
    /// Intervals in a row without any request.
    idle: u32,
    last_change: Option<Instant>,
    /// Number of workers that TorchServe has not reached yet, and since when.
    unsettled: Option<(u32, Instant)>,
}

impl Scaler {
    /// Makes a scaler without a past.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            low: 0,
            idle: 0,
            last_change: None,
            unsettled: None,
        }
    }

    /// Decides for one interval; `Err` is the reason why a value is unknown.
    pub fn decide(
        &mut self,
        queue: Result<&Queue, &str>,
        workers: Result<&Description, &str>,
        now: Instant,
    ) -> Decision {
        let load = match (queue, workers) {
            (Ok(queue), Ok(workers)) => Some(self.load(queue, workers)),
            _ => None,
        };
        self.count(load, queue);
        let workers = match workers {
            Ok(workers) => workers,
            Err(missing) => {
                self.unsettled = None;
                return Decision {
                    verdict: Verdict::Unknown,
                    desired: None,
                    reason: missing.to_owned(),
                };
            }
        };
        let is_starting = self.is_starting(workers, now);
        let Policy { min, max, .. } = self.policy;
        let bounded = workers.desired.clamp(min, max);
        if bounded != workers.desired {
            let reason = format!("{} workers are not {min} to {max}", workers.desired);
            return self.change(workers, bounded, reason, now);
        }
        let load = match (load, queue) {
            (Some(load), _) => load,
            (None, queue) => {
                return Decision {
                    verdict: Verdict::Unknown,
                    desired: Some(workers.desired),
                    reason: queue.err().unwrap_or_default().to_owned(),
                };
            }
        };
        if workers.desired == 0 {
            return self.wake(workers, queue, now);
        }
        if is_starting {
            let Description { ready, desired, .. } = workers;
            return Decision::hold(workers, format!("{ready} of {desired} workers are ready"));
        }
        self.follow(load, workers, now)
    }

    /// Records that a change was carried out: the cool-down counts from `at`.
    pub fn changed(&mut self, at: Instant) {
        self.last_change = Some(at);
    }

    fn load(&self, queue: &Queue, workers: &Description) -> Load {
        let target_ms = self.policy.target_queue_ms;
        match queue.mean_ms() {
            Some(mean_ms) if mean_ms > target_ms => Load::High(mean_ms),
            Some(mean_ms) if mean_ms >= target_ms * LOW_SHARE => Load::Fair(mean_ms),
            Some(mean_ms) => Load::Low(Some(mean_ms)),
            None if workers.pending > 0 => Load::Stuck,
            None => Load::Low(None),
        }
    }

    fn count(&mut self, load: Option<Load>, queue: Result<&Queue, &str>) {
        self.low = match load {
            Some(Load::Low(_)) => self.low.saturating_add(1),
            _ => 0,
        };
        let answered = queue.map_or(0, |queue| queue.answered);
        self.idle = match load {
            Some(Load::Low(None)) if answered == 0 => self.idle.saturating_add(1),
            _ => 0,
        };
    }

    /// Whether TorchServe is still changing its number of workers, and for no longer than the cool-down.
    fn is_starting(&mut self, workers: &Description, now: Instant) -> bool {
        if workers.ready == workers.desired {
            self.unsettled = None;
            return false;
        }
        let since = match self.unsettled {
            Some((desired, since)) if desired == workers.desired => since,
            _ => now,
        };
        self.unsettled = Some((workers.desired, since));
        now.saturating_duration_since(since) <= self.policy.cool_down
    }

    /// Decides without workers: no request waits then, so the first refused one calls for a worker.
    fn wake(
        &mut self,
        workers: &Description,
        queue: Result<&Queue, &str>,
        now: Instant,
    ) -> Decision {
        let refused = queue.map_or(0, |queue| queue.answered);
        if refused == 0 && workers.pending == 0 {
            return Decision::hold(workers, "no workers, and no requests".into());
        }
        let reason = format!("no workers, and {refused} requests were answered without one");
        self.change(workers, 1, reason, now)
    }

    fn follow(&mut self, load: Load, workers: &Description, now: Instant) -> Decision {
        let Policy {
            min,
            max,
            target_queue_ms: target_ms,
            down_after,
            ..
        } = self.policy;
        let current = workers.desired;
        let (wanted, reason) = match load {
            Load::High(mean_ms) if mean_ms > target_ms * DOUBLING => (
                current.saturating_mul(2),
                format!(
                    "queue {mean_ms:.1} ms is above {DOUBLING} times the target of {target_ms} ms"
                ),
            ),
            Load::High(mean_ms) => (
                current.saturating_add(1),
                format!("queue {mean_ms:.1} ms is above the target of {target_ms} ms"),
            ),
            Load::Stuck => (
                current.saturating_add(1),
                format!("{} requests wait and none was finished", workers.pending),
            ),
            Load::Fair(mean_ms) => (
                current,
                format!(
                    "queue {mean_ms:.1} ms is between {} and {target_ms} ms",
                    target_ms * LOW_SHARE
                ),
            ),
            Load::Low(mean_ms) => {
                let queue = match mean_ms {
                    Some(mean_ms) => format!(
                        "queue {mean_ms:.1} ms is below {} ms",
                        target_ms * LOW_SHARE
                    ),
                    None => "no requests".into(),
                };
                // A low queue shows that fewer workers are enough, but not that none is.
                let is_last = min == 0 && current == 1;
                let lasted = if is_last { self.idle } else { self.low };
                if is_last && lasted == 0 {
                    let reason = format!("{queue}, and the last worker stays while requests come");
                    (current, reason)
                } else if current > min && lasted < down_after {
                    (
                        current,
                        format!("{queue}, in {lasted} of {down_after} intervals"),
                    )
                } else {
                    (current - 1, queue)
                }
            }
        };
        let bounded = wanted.clamp(min, max);
        if bounded == current {
            let reason = match wanted {
                _ if wanted > current => format!("{reason}, and {max} workers are the most"),
                _ if wanted < current => format!("{reason}, and {min} workers are the fewest"),
                _ => reason,
            };
            return Decision::hold(workers, reason);
        }
        self.change(workers, bounded, reason, now)
    }

    /// Changes the number of workers, unless the last change is too recent.
    fn change(
        &mut self,
        workers: &Description,
        desired: u32,
        reason: String,
        now: Instant,
    ) -> Decision {
        if let Some(last) = self.last_change {
            let left = (last + self.policy.cool_down).saturating_duration_since(now);
            if !left.is_zero() {
                let left_s = left.as_secs_f64();
                let reason = format!("{reason}, but the cool-down lasts {left_s:.1} s more");
                return Decision::hold(workers, reason);
            }
        }
        self.last_change = Some(now);
        self.low = 0;
        self.idle = 0;
        Decision {
            verdict: match desired > workers.desired {
                true => Verdict::Up,
                false => Verdict::Down,
            },
            desired: Some(desired),
            reason,
        }
    }
}

#[cfg(test)]
mod tests;
