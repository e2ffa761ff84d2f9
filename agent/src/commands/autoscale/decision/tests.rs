//! Tests each rule of the decision by itself, then all of them with random values.

use super::*;

const INTERVAL: Duration = Duration::from_secs(5);
const COOL_DOWN: Duration = Duration::from_secs(30);
const POLICY: Policy = Policy {
    min: 1,
    max: 4,
    target_queue_ms: 20.0,
    cool_down: COOL_DOWN,
    down_after: 3,
};

/// A scaler whose TorchServe reaches the desired number of workers at once, unless a test changes that.
struct Trial {
    scaler: Scaler,
    now: Instant,
    workers: Description,
}

impl Trial {
    fn new(policy: Policy, workers: u32) -> Self {
        Self {
            scaler: Scaler::new(policy),
            now: Instant::now(),
            workers: ready(workers),
        }
    }

    /// One interval later: the decision with this queue.
    fn step(&mut self, queue: Queue) -> Decision {
        self.now += INTERVAL;
        let decision = self.scaler.decide(Ok(&queue), Ok(&self.workers), self.now);
        if let Some(desired) = decision.change() {
            self.workers = ready(desired);
        }
        decision
    }

    fn verdicts(&mut self, queue: Queue, intervals: usize) -> Vec<Verdict> {
        (0..intervals).map(|_| self.step(queue).verdict).collect()
    }

    fn cool(&mut self) {
        self.now += COOL_DOWN;
    }
}

fn ready(workers: u32) -> Description {
    Description {
        ready: workers,
        desired: workers,
        pending: 0,
    }
}

/// Ten requests that waited `mean_ms` each in the mean.
fn waited(mean_ms: f64) -> Queue {
    Queue {
        finished: 10,
        waited_ms: mean_ms * 10.0,
        answered: 10,
    }
}

/// Requests that were answered without waiting for a worker.
fn only_answered(answered: u64) -> Queue {
    Queue {
        finished: 0,
        waited_ms: 0.0,
        answered,
    }
}

const NOTHING: Queue = Queue {
    finished: 0,
    waited_ms: 0.0,
    answered: 0,
};

#[test]
fn a_queue_above_the_target_adds_a_worker_and_far_above_it_doubles_them() {
    for (workers, mean_ms, desired, verdict) in [
        (2, 20.0, 2, Verdict::Hold),
        (2, 20.1, 3, Verdict::Up),
        (2, 80.0, 3, Verdict::Up),
        (2, 80.1, 4, Verdict::Up),
        (1, 80.1, 2, Verdict::Up),
        (3, 1e9, 4, Verdict::Up),
        (4, 1e9, 4, Verdict::Hold),
    ] {
        let decision = Trial::new(POLICY, workers).step(waited(mean_ms));
        let found = (decision.desired, decision.verdict);
        assert_eq!(
            found,
            (Some(desired), verdict),
            "{workers} workers, {mean_ms} ms"
        );
    }
}

#[test]
fn a_reason_names_the_value_and_the_limit() {
    for (workers, queue, expected) in [
        (
            1,
            waited(50.0),
            "queue 50.0 ms is above the target of 20 ms",
        ),
        (
            1,
            waited(90.0),
            "queue 90.0 ms is above 4 times the target of 20 ms",
        ),
        (
            4,
            waited(50.0),
            "queue 50.0 ms is above the target of 20 ms, and 4 workers are the most",
        ),
        (2, waited(10.0), "queue 10.0 ms is between 5 and 20 ms"),
        (
            2,
            waited(1.0),
            "queue 1.0 ms is below 5 ms, in 1 of 3 intervals",
        ),
        (
            1,
            waited(1.0),
            "queue 1.0 ms is below 5 ms, and 1 workers are the fewest",
        ),
        (2, NOTHING, "no requests, in 1 of 3 intervals"),
        (9, waited(10.0), "9 workers are not 1 to 4"),
    ] {
        assert_eq!(Trial::new(POLICY, workers).step(queue).reason, expected);
    }
}

#[test]
fn a_low_queue_takes_a_worker_away_after_enough_intervals_in_a_row() {
    use Verdict::{Down, Hold};
    let mut trial = Trial::new(POLICY, 3);
    assert_eq!(trial.verdicts(waited(4.9), 2), [Hold, Hold]);
    assert_eq!(trial.verdicts(waited(5.0), 1), [Hold]);
    assert_eq!(trial.verdicts(waited(4.9), 3), [Hold, Hold, Down]);
    assert_eq!(trial.workers.desired, 2);
    trial.cool();
    assert_eq!(trial.verdicts(NOTHING, 3), [Hold, Hold, Down]);
    assert_eq!(trial.workers.desired, 1);
    trial.cool();
    assert_eq!(trial.verdicts(NOTHING, 9), [Hold; 9]);
}

#[test]
fn a_missing_figure_ends_the_row_of_low_intervals() {
    let mut trial = Trial::new(POLICY, 2);
    trial.verdicts(NOTHING, 2);
    trial.now += INTERVAL;
    let workers = trial.workers;
    trial
        .scaler
        .decide(Err("no agent"), Ok(&workers), trial.now);
    assert_eq!(trial.verdicts(NOTHING, 2), [Verdict::Hold; 2]);
}

#[test]
fn requests_that_wait_while_none_finishes_are_overload() {
    let mut trial = Trial::new(POLICY, 1);
    trial.workers.pending = 7;
    let decision = trial.step(NOTHING);
    assert_eq!(decision.change(), Some(2));
    assert_eq!(decision.reason, "7 requests wait and none was finished");
}

#[test]
fn two_changes_are_a_cool_down_apart_in_either_direction() {
    use Verdict::{Down, Hold, Up};
    let mut trial = Trial::new(POLICY, 1);
    assert_eq!(
        trial.verdicts(waited(50.0), 7),
        [Up, Hold, Hold, Hold, Hold, Hold, Up]
    );
    assert_eq!(
        trial.verdicts(NOTHING, 6),
        [Hold, Hold, Hold, Hold, Hold, Down]
    );
    let decision = trial.step(waited(50.0));
    assert_eq!(
        decision.reason,
        "queue 50.0 ms is above the target of 20 ms, but the cool-down lasts 25.0 s more"
    );
}

#[test]
fn the_cool_down_counts_from_when_a_change_was_carried_out() {
    let mut trial = Trial::new(POLICY, 1);
    trial.step(waited(50.0));
    trial.scaler.changed(trial.now + Duration::from_secs(4));
    trial.now += COOL_DOWN - INTERVAL;
    assert_eq!(trial.step(waited(50.0)).verdict, Verdict::Hold);
    assert_eq!(trial.step(waited(50.0)).verdict, Verdict::Up);
}

#[test]
fn nothing_changes_while_workers_start_unless_that_outlasts_the_cool_down() {
    let mut trial = Trial::new(POLICY, 2);
    trial.workers.ready = 1;
    for _ in 0..7 {
        let decision = trial.step(waited(50.0));
        assert_eq!(decision.verdict, Verdict::Hold);
        assert_eq!(decision.reason, "1 of 2 workers are ready");
    }
    assert_eq!(trial.step(waited(50.0)).change(), Some(3));
}

#[test]
fn another_number_of_workers_starts_anew() {
    let mut trial = Trial::new(POLICY, 2);
    trial.workers.ready = 1;
    trial.verdicts(waited(50.0), 5);
    trial.workers.desired = 3;
    assert_eq!(trial.verdicts(waited(50.0), 7), [Verdict::Hold; 7]);
}

#[test]
fn workers_outside_the_bounds_are_brought_back_even_without_a_queue_figure() {
    for (workers, policy, desired) in [
        (9, POLICY, 4),
        (0, POLICY, 1),
        (1, Policy { min: 3, ..POLICY }, 3),
    ] {
        let mut starting = ready(workers);
        starting.ready = workers / 2;
        let mut scaler = Scaler::new(policy);
        let decision = scaler.decide(Err("no agent"), Ok(&starting), Instant::now());
        assert_eq!(decision.change(), Some(desired), "{workers} workers");
    }
}

#[test]
fn workers_outside_the_bounds_wait_for_the_cool_down() {
    let mut trial = Trial::new(POLICY, 1);
    trial.step(waited(50.0));
    trial.workers = ready(9);
    let decision = trial.step(waited(50.0));
    assert_eq!(decision.verdict, Verdict::Hold);
    assert_eq!(
        decision.reason,
        "9 workers are not 1 to 4, but the cool-down lasts 25.0 s more"
    );
    trial.now += COOL_DOWN - 2 * INTERVAL;
    assert_eq!(trial.step(waited(50.0)).change(), Some(4));
}

#[test]
fn missing_figures_hold_with_their_reason() {
    let workers = ready(2);
    for (queue, workers, desired, reason) in [
        (Err("no agent"), Ok(&workers), Some(2), "no agent"),
        (
            Ok(&waited(50.0)),
            Err("no TorchServe"),
            None,
            "no TorchServe",
        ),
        (Err("no agent"), Err("no TorchServe"), None, "no TorchServe"),
    ] {
        let decision = Scaler::new(POLICY).decide(queue, workers, Instant::now());
        let expected = Decision {
            verdict: Verdict::Unknown,
            desired,
            reason: reason.into(),
        };
        assert_eq!(decision, expected);
        assert_eq!(decision.change(), None);
    }
}

#[test]
fn the_last_worker_goes_only_when_no_request_comes() {
    use Verdict::{Down, Hold};
    let policy = Policy { min: 0, ..POLICY };
    let mut trial = Trial::new(policy, 1);
    assert_eq!(trial.verdicts(waited(0.1), 9), [Hold; 9]);
    assert_eq!(trial.verdicts(only_answered(1), 9), [Hold; 9]);
    assert_eq!(trial.verdicts(NOTHING, 3), [Hold, Hold, Down]);
    assert_eq!(trial.workers.desired, 0);
}

#[test]
fn without_workers_a_refused_request_brings_one_back() {
    let policy = Policy { min: 0, ..POLICY };
    let mut trial = Trial::new(policy, 0);
    assert_eq!(trial.verdicts(NOTHING, 9), [Verdict::Hold; 9]);
    let decision = trial.step(only_answered(2));
    assert_eq!(decision.change(), Some(1));
    assert_eq!(
        decision.reason,
        "no workers, and 2 requests were answered without one"
    );
}

/// Numbers that look random and are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn no_figures_lead_outside_the_bounds_or_faster_than_the_cool_down() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut changes = 0;
    for _ in 0..300 {
        let min = random.below(4) as u32;
        let policy = Policy {
            min,
            max: (min + random.below(6) as u32).max(1),
            target_queue_ms: 1.0 + random.below(50) as f64,
            cool_down: Duration::from_secs(1 + random.below(60)),
            down_after: 1 + random.below(4) as u32,
        };
        let mut scaler = Scaler::new(policy);
        let mut now = Instant::now();
        let mut last_change = None;
        let mut desired = random.below(12) as u32;
        for _ in 0..300 {
            now += Duration::from_millis(1 + random.below(10_000));
            // Somebody else scales now and then, and workers come and go by themselves.
            if random.below(20) == 0 {
                desired = random.below(12) as u32;
            }
            let workers = Description {
                ready: match random.below(3) {
                    0 => random.below(12) as u32,
                    _ => desired,
                },
                desired,
                pending: random.below(3) * random.below(100),
            };
            let finished = random.below(2) * random.below(100);
            let queue = Queue {
                finished,
                waited_ms: finished as f64 * random.below(300) as f64 / 2.0,
                answered: finished + random.below(2) * random.below(10),
            };
            let queue = if random.below(10) == 0 {
                Err("no agent")
            } else {
                Ok(&queue)
            };
            let reported = if random.below(10) == 0 {
                Err("no TorchServe")
            } else {
                Ok(&workers)
            };
            let decision = scaler.decide(queue, reported, now);
            let Some(change) = decision.change() else {
                assert!(
                    decision.desired.is_none_or(|held| held == desired),
                    "{decision:?}"
                );
                continue;
            };
            assert!(
                (policy.min..=policy.max).contains(&change),
                "{decision:?}, {policy:?}"
            );
            assert_ne!(change, desired, "{decision:?}");
            let last = last_change.replace(now);
            let apart = last.is_none_or(|last| now - last >= policy.cool_down);
            assert!(apart, "{decision:?}, {policy:?}");
            // Not every change is carried out.
            if random.below(5) > 0 {
                desired = change;
            }
            changes += 1;
        }
    }
    assert!(changes > 1000, "only {changes} changes");
}
