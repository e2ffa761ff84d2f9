//! Splits the energy of a GPU between idling, the models of watched servers, and other processes: an estimate by time share.
//!
//! The parts always add up to the GPU's own counter: what cannot be split is a part of its own.
//! Does not depend on: NVML, processes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Most parts to keep of one GPU; energy of further models goes to [`Part::Unattributed`].
const MAX_PARTS: usize = 512;

/// Who used energy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// No one: the GPU would have used it idle as well.
    Idle,
    /// Requests of a model of a watched server.
    Model {
        /// Label `server`.
        server: Arc<str>,
        /// Label `model`.
        model: Arc<str>,
    },
    /// Processes that are not watched.
    Other,
    /// Unknown.
    Unattributed,
}

impl Part {
    /// Values of the labels `to`, `server` and `model`.
    pub(super) fn labels(&self) -> [&str; 3] {
        match self {
            Self::Idle => ["idle", "", ""],
            Self::Model { server, model } => ["model", server, model],
            Self::Other => ["other", "", ""],
            Self::Unattributed => ["unattributed", "", ""],
        }
    }
}

/// A user of the GPU in one interval, and its share of time: any unit, as long as it is the same for all users.
pub(super) type Share = (Part, f64);

/// What is known of who used a GPU in one interval.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Users {
    /// Unknown: NVML does not report it.
    Unknown,
    /// No one.
    None,
    /// These, with the percent of the time in which each ran kernels.
    Known(Vec<Share>),
}

/// Splits `energy_mj`; the parts add up to it exactly.
///
/// While idle the GPU draws `idle_mw`, the rest goes to the users. `None`: its idle power is unknown, and the share of
/// time without a user is idle.
pub(super) fn split(
    energy_mj: u64,
    interval: Duration,
    idle_mw: Option<u32>,
    users: &Users,
) -> Vec<(Part, u64)> {
    let floor_mj = idle_mw.map(|idle_mw| {
        let floor_mj = f64::from(idle_mw) * interval.as_secs_f64();
        (floor_mj as u64).min(energy_mj)
    });
    match users {
        Users::None => vec![(Part::Idle, energy_mj)],
        Users::Unknown => {
            let idle_mj = floor_mj.unwrap_or(0);
            vec![
                (Part::Idle, idle_mj),
                (Part::Unattributed, energy_mj - idle_mj),
            ]
        }
        Users::Known(shares) => {
            let busy_pct: f64 = shares.iter().map(|(_, pct)| pct).sum();
            let idle_mj = floor_mj.unwrap_or_else(|| {
                let idle_share = 1.0 - (busy_pct / 100.0).min(1.0);
                ((energy_mj as f64 * idle_share) as u64).min(energy_mj)
            });
            let mut parts = vec![(Part::Idle, idle_mj)];
            parts.extend(divide(energy_mj - idle_mj, shares));
            parts
        }
    }
}

/// Divides a whole number by shares; the parts add up to it exactly.
fn divide(total: u64, shares: &[Share]) -> Vec<(Part, u64)> {
    let whole: f64 = shares.iter().map(|(_, share)| share).sum();
    if shares.is_empty() || whole <= 0.0 {
        return vec![(Part::Unattributed, total)];
    }
    let mut parts = Vec::new();
    let (mut given, mut before) = (0, 0.0);
    for (part, share) in shares {
        before += share;
        // Rounding each end, not each part, leaves nothing over.
        let until = ((total as f64 * (before / whole)).round() as u64).clamp(given, total);
        parts.push((part.clone(), until - given));
        given = until;
    }
    if let Some((_, last)) = parts.last_mut() {
        *last += total - given;
    }
    parts
}

/// The energy of one GPU, and its parts so far, mJ.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    last: Option<(u64, Instant)>,
    total_mj: u64,
    resets: u64,
    parts: BTreeMap<Part, u64>,
}

impl Ledger {
    /// Adds a reading of the GPU's counter at `now`; `split` divides what was used since the reading before.
    ///
    /// Energy from before the first reading, from a gap longer than `max_gap`, and from before and after a counter
    /// that fell is unattributed.
    pub(super) fn add(
        &mut self,
        counter_mj: u64,
        now: Instant,
        max_gap: Duration,
        split: impl FnOnce(u64, Duration) -> Vec<(Part, u64)>,
    ) {
        let last = self.last.replace((counter_mj, now));
        let (delta_mj, parts) = match last {
            Some((last_mj, at)) if counter_mj >= last_mj => {
                let (delta_mj, interval) = (counter_mj - last_mj, now - at);
                let parts = (interval <= max_gap).then(|| split(delta_mj, interval));
                (delta_mj, parts)
            }
            Some(_) => {
                self.resets += 1;
                (counter_mj, None)
            }
            None => (counter_mj, None),
        };
        self.total_mj += delta_mj;
        for (part, mj) in parts.unwrap_or_else(|| vec![(Part::Unattributed, delta_mj)]) {
            self.credit(part, mj);
        }
    }

    fn credit(&mut self, part: Part, mj: u64) {
        let is_kept = self.parts.len() < MAX_PARTS || self.parts.contains_key(&part);
        let part = if is_kept { part } else { Part::Unattributed };
        *self.parts.entry(part).or_default() += mj;
    }

    /// Energy in all, J.
    pub(super) fn total_j(&self) -> f64 {
        self.total_mj as f64 / 1e3
    }

    /// Times that the counter fell.
    pub(super) fn resets(&self) -> u64 {
        self.resets
    }

    /// Each part, J.
    pub(super) fn parts_j(&self) -> impl Iterator<Item = (&Part, f64)> {
        self.parts.iter().map(|(part, mj)| (part, *mj as f64 / 1e3))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model(name: &str) -> Part {
        Part::Model {
            server: "vllm".into(),
            model: name.into(),
        }
    }

    fn second() -> Duration {
        Duration::from_secs(1)
    }

    #[test]
    fn what_is_above_idle_power_goes_to_users_by_time() {
        let users = Users::Known(vec![(model("a"), 30.0), (Part::Other, 10.0)]);
        assert_eq!(
            split(300_000, second(), Some(100_000), &users),
            [
                (Part::Idle, 100_000),
                (model("a"), 150_000),
                (Part::Other, 50_000)
            ]
        );
    }

    #[test]
    fn without_idle_power_the_time_without_users_is_idle() {
        let users = Users::Known(vec![(model("a"), 30.0), (Part::Other, 10.0)]);
        assert_eq!(
            split(300_000, second(), None, &users),
            [
                (Part::Idle, 180_000),
                (model("a"), 90_000),
                (Part::Other, 30_000)
            ]
        );
    }

    #[test]
    fn energy_of_unknown_users_is_unattributed_above_idle_power() {
        for (idle_mw, idle_mj) in [(Some(100_000), 100_000), (None, 0)] {
            assert_eq!(
                split(300_000, second(), idle_mw, &Users::Unknown),
                [
                    (Part::Idle, idle_mj),
                    (Part::Unattributed, 300_000 - idle_mj)
                ]
            );
        }
    }

    #[test]
    fn a_gpu_without_users_idles_whatever_it_draws() {
        let parts = split(300_000, second(), Some(100_000), &Users::None);
        assert_eq!(parts, [(Part::Idle, 300_000)]);
    }

    #[test]
    fn a_counter_that_falls_goes_on_and_is_counted() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let to_other = |mj, _| vec![(Part::Other, mj)];
        for (counter_mj, after_s) in [(1_000, 0), (1_500, 1), (200, 2), (300, 3)] {
            let now = start + Duration::from_secs(after_s);
            ledger.add(counter_mj, now, 3 * second(), to_other);
        }
        assert_eq!(ledger.resets(), 1);
        assert!((ledger.total_j() - 1.8).abs() < 1e-9);
        let parts: Vec<_> = ledger.parts_j().collect();
        assert_eq!(
            parts,
            [(&Part::Other, 0.6), (&Part::Unattributed, 1.2)],
            "the first reading and the one after the reset are unattributed"
        );
    }

    #[test]
    fn energy_of_a_long_gap_is_unattributed() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        ledger.add(0, start, 3 * second(), |_, _| Vec::new());
        ledger.add(700, start + 4 * second(), 3 * second(), |mj, _| {
            vec![(Part::Other, mj)]
        });
        let parts: Vec<_> = ledger.parts_j().collect();
        assert_eq!(parts, [(&Part::Unattributed, 0.7)]);
    }

    proptest! {
        #[test]
        fn the_parts_add_up(
            energy_mj in 0_u64..1 << 50,
            interval_ms in 0_u64..100_000,
            idle_mw in prop::option::of(0_u32..2_000_000),
            shares in prop::collection::vec(0.0_f64..120.0, 0..9),
        ) {
            let users: Vec<Share> = shares
                .iter()
                .enumerate()
                .map(|(index, share)| (model(&index.to_string()), *share))
                .collect();
            for users in [Users::None, Users::Unknown, Users::Known(users)] {
                let parts = split(energy_mj, Duration::from_millis(interval_ms), idle_mw, &users);
                let sum: u64 = parts.iter().map(|(_, mj)| mj).sum();
                prop_assert_eq!(sum, energy_mj);
            }
        }
    }
}
