//! Spreads what the requests of a model took over the seconds in which it passed.
//!
//! What a collector read explains a request only if it was read of the same time.
//! Does not depend on: what is read, windows.

use std::collections::VecDeque;

use crate::verdict::component::{Component, Components};

/// Length, ns.
pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// Seconds that are kept.
pub(super) const SECONDS: u64 = 90;

/// Seconds, oldest first; those without a request are left out.
#[derive(Debug, Default)]
pub(super) struct Seconds(VecDeque<Second>);

/// What requests of a model took in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Second {
    /// Seconds since the start of the clock.
    pub(super) index: u64,
    /// Requests that ended in it.
    pub(super) ended: u64,
    /// How long they waited for a CPU in it, ns.
    pub(super) starved_ns: u64,
    /// How long they were worked on and answered in it, ns.
    pub(super) worked_ns: u64,
}

impl Seconds {
    /// Adds a request that ended at `at_ns`.
    pub(super) fn add(&mut self, at_ns: u64, components: &Components) {
        if let Some(second) = self.second(at_ns / SECOND_NS) {
            second.ended += 1;
        }
        let answered_ns = components[Component::Stream];
        let starved_ns = components[Component::Starved];
        let worked_ns = components[Component::Worker] + components[Component::Rest];
        let handled_ns = starved_ns + worked_ns + components[Component::InnerQueue];
        let written_ns = at_ns.saturating_sub(answered_ns);
        let handled = (written_ns.saturating_sub(handled_ns), written_ns);
        self.spread((written_ns, at_ns), answered_ns, |second| {
            &mut second.worked_ns
        });
        self.spread(handled, worked_ns, |second| &mut second.worked_ns);
        self.spread(handled, starved_ns, |second| &mut second.starved_ns);
    }

    /// Returns those of the time `from_ns..to_ns`.
    pub(super) fn within(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = &Second> + Clone {
        let indexes = from_ns / SECOND_NS..to_ns.div_ceil(SECOND_NS);
        self.0
            .iter()
            .filter(move |second| indexes.contains(&second.index))
    }

    /// Adds `ns` evenly to the seconds from `from_ns` to `to_ns`.
    fn spread(&mut self, (from_ns, to_ns): (u64, u64), ns: u64, of: fn(&mut Second) -> &mut u64) {
        let span_ns = to_ns - from_ns;
        if ns == 0 || span_ns == 0 {
            return;
        }
        let last = (to_ns - 1) / SECOND_NS;
        let first = (from_ns / SECOND_NS).max((last + 1).saturating_sub(SECONDS));
        for index in first..=last {
            let start_ns = (index * SECOND_NS).max(from_ns);
            let end_ns = ((index + 1) * SECOND_NS).min(to_ns);
            let part_ns = u128::from(ns) * u128::from(end_ns - start_ns) / u128::from(span_ns);
            if let Some(second) = self.second(index) {
                *of(second) += part_ns as u64;
            }
        }
    }

    /// The second with this index; `None` if it is too old to be kept.
    fn second(&mut self, index: u64) -> Option<&mut Second> {
        let newest = self
            .0
            .back()
            .map_or(index, |second| second.index.max(index));
        let oldest = (newest + 1).saturating_sub(SECONDS);
        if index < oldest {
            return None;
        }
        while self
            .0
            .pop_front_if(|second| second.index < oldest)
            .is_some()
        {}
        let at = self.0.partition_point(|second| second.index < index);
        if self.0.get(at).is_none_or(|second| second.index != index) {
            let second = Second {
                index,
                ..Second::default()
            };
            self.0.insert(at, second);
        }
        self.0.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn components(parts: &[(Component, u64)]) -> Components {
        let mut components = Components::default();
        for (component, ms) in parts {
            components[*component] = ms * MS;
        }
        components
    }

    fn told(seconds: &Seconds) -> Vec<(u64, u64, u64, u64)> {
        let all = seconds.0.iter();
        all.map(|one| {
            (
                one.index,
                one.ended,
                one.starved_ns / MS,
                one.worked_ns / MS,
            )
        })
        .collect()
    }

    #[test]
    fn time_is_in_the_seconds_in_which_it_passed() {
        // Answered from 11.5 s to 12 s, handled from 9.5 s, and read late.
        let long = components(&[
            (Component::Queue, 5_000),
            (Component::Starved, 400),
            (Component::Rest, 1_600),
            (Component::Stream, 500),
        ]);
        let mut seconds = Seconds::default();
        seconds.add(12 * SECOND_NS, &long);
        let expected = [
            (9, 0, 100, 400),
            (10, 0, 200, 800),
            (11, 0, 100, 900),
            (12, 1, 0, 0),
        ];
        assert_eq!(told(&seconds), expected);
        let short = components(&[(Component::Starved, 3), (Component::Worker, 5)]);
        seconds.add(10 * SECOND_NS + 500 * MS, &short);
        assert_eq!(told(&seconds)[1], (10, 1, 203, 805));
        let within = seconds.within(10 * SECOND_NS, 11 * SECOND_NS + 1);
        assert_eq!(within.count(), 2);
    }

    #[test]
    fn seconds_are_bounded() {
        let endless = components(&[(Component::Rest, 1_000_000_000)]);
        let mut seconds = Seconds::default();
        seconds.add(1_000 * SECOND_NS, &endless);
        assert_eq!(seconds.0.len() as u64, SECONDS);
        for index in 1_001..10_000 {
            seconds.add(index * SECOND_NS, &components(&[(Component::Rest, 10)]));
            assert!(seconds.0.len() as u64 <= SECONDS);
        }
    }
}
