//! Sums the components of a model's requests over a window of time.
//!
//! Does not depend on: conclusions, a clock.

use crate::verdict::component::{Components, Missing, Parts};

/// Status codes that are kept apart in a window; further codes count as the last.
const CODES: usize = 4;

/// The requests of one model that ended in a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// Length, ns.
    pub span_ns: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Those of which each stage is known.
    pub complete: u64,
    /// Those complete ones whose starved time is known.
    pub starved_known: u64,
    /// Those complete ones that were the first of their connection, with an unknown moment of acceptance.
    pub accept_unknown: u64,
    /// Sums over the complete ones, ns.
    pub sums: Components,
    /// Sum over the complete ones of the time in which unsent bytes waited for the client, ns.
    pub undrained_ns: u64,
    /// Those complete ones for which that is known.
    pub undrained_known: u64,
    /// Sum over the complete ones of the receive time in which the last byte had not arrived, ns.
    pub sending_ns: u64,
    /// Those complete ones for which that is known.
    pub sending_known: u64,
    missing: [u64; Missing::ALL.len()],
    failed: Vec<(u16, u64)>,
}

impl Window {
    /// Makes an empty window.
    pub fn new(span_ns: u64) -> Self {
        Self {
            span_ns,
            ..Self::default()
        }
    }

    /// Adds a request that ended with `status`; `is_first`: it was the first of its connection.
    ///
    /// `components` are those of `parts`.
    pub fn add(
        &mut self,
        parts: &Parts,
        components: &Result<Components, Missing>,
        status: u16,
        is_first: bool,
    ) {
        self.requests += 1;
        if status >= 500 {
            self.fail(status, 1);
        }
        match components {
            Ok(components) => {
                self.complete += 1;
                self.sums.add(components);
                self.starved_known += u64::from(parts.is_starved_known());
                self.accept_unknown += u64::from(is_first && parts.accept_ns.is_none());
                self.undrained_known += u64::from(parts.undrained_ns.is_some());
                self.undrained_ns += parts.undrained_ns.unwrap_or(0);
                self.sending_known += u64::from(parts.sending_ns.is_some());
                self.sending_ns += parts.sending_ns.unwrap_or(0);
            }
            Err(missing) => self.missing[*missing as usize] += 1,
        }
    }

    /// Adds another window of the same model, which followed or preceded it.
    pub fn merge(&mut self, other: &Self) {
        self.span_ns += other.span_ns;
        self.requests += other.requests;
        self.complete += other.complete;
        self.starved_known += other.starved_known;
        self.accept_unknown += other.accept_unknown;
        self.sums.add(&other.sums);
        self.undrained_ns += other.undrained_ns;
        self.undrained_known += other.undrained_known;
        self.sending_ns += other.sending_ns;
        self.sending_known += other.sending_known;
        for (sum, part) in self.missing.iter_mut().zip(other.missing) {
            *sum += part;
        }
        for (status, requests) in &other.failed {
            self.fail(*status, *requests);
        }
    }

    /// Returns the mean duration of a complete request, ns; 0 if there is none.
    pub fn mean_ns(&self) -> u64 {
        self.sums
            .total_ns()
            .checked_div(self.complete)
            .unwrap_or_default()
    }

    /// Returns what is unknown for most requests, and for how many.
    pub fn most_missing(&self) -> Option<(Missing, u64)> {
        let counts = Missing::ALL.map(|missing| (missing, self.missing[missing as usize]));
        let most = counts.into_iter().max_by_key(|(_, requests)| *requests)?;
        (most.1 > 0).then_some(most)
    }

    /// Returns the number of requests per status code of 500 and above, most frequent first.
    pub fn failed(&self) -> Vec<(u16, u64)> {
        let mut failed = self.failed.clone();
        failed.sort_by_key(|(status, requests)| (std::cmp::Reverse(*requests), *status));
        failed
    }

    fn fail(&mut self, status: u16, requests: u64) {
        let known = self.failed.iter().position(|(code, _)| *code == status);
        match known {
            Some(at) => self.failed[at].1 += requests,
            None if self.failed.len() < CODES => self.failed.push((status, requests)),
            None => self.failed[CODES - 1].1 += requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::verdict::component::Component;

    use super::*;

    fn known(queue_ns: u64) -> Parts {
        Parts {
            queue_ns: Some(queue_ns),
            accept_ns: None,
            receive_ns: Some(0),
            handler_ns: Some(10),
            stream_ns: Some(0),
            ..Parts::default()
        }
    }

    #[test]
    fn only_complete_requests_are_in_the_sums() {
        let mut window = Window::default();
        let parts = known(30);
        window.add(&parts, &parts.components(), 200, true);
        let parts = known(50);
        window.add(&parts, &parts.components(), 503, false);
        let parts = Parts::default();
        window.add(&parts, &parts.components(), 200, true);
        assert_eq!((window.requests, window.complete), (3, 2));
        assert_eq!(window.sums[Component::Queue], 80);
        assert_eq!(window.mean_ns(), 50);
        assert_eq!(window.accept_unknown, 1);
        assert_eq!(window.most_missing(), Some((Missing::Queue, 1)));
        assert_eq!(window.failed(), [(503, 1)]);
    }

    #[test]
    fn merged_windows_equal_one_window() {
        let samples = [(30, 200), (40, 500), (50, 503), (60, 503)];
        let mut whole = Window::default();
        let mut halves = [Window::default(), Window::default()];
        for (at, (queue_ns, status)) in samples.into_iter().enumerate() {
            let parts = known(queue_ns);
            whole.add(&parts, &parts.components(), status, false);
            let parts = known(queue_ns);
            halves[at / 2].add(&parts, &parts.components(), status, false);
        }
        let [mut merged, second] = halves;
        merged.merge(&second);
        assert_eq!(merged, whole);
        assert_eq!(merged.failed(), [(503, 2), (500, 1)]);
    }

    #[test]
    fn status_codes_are_bounded() {
        let mut window = Window::default();
        for status in 500..600 {
            let parts = known(0);
            window.add(&parts, &parts.components(), status, false);
        }
        let failed = window.failed();
        assert_eq!(failed.len(), CODES);
        let sum: u64 = failed.iter().map(|(_, requests)| requests).sum();
        assert_eq!(sum, 100);
    }
}
