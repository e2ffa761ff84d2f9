//! Finds the requests that a gateway on this host sent on, so that TorchServe's families count each client's request once.
//!
//! A server whose process answers a request and meanwhile sends one to another watched server is a gateway. TorchServe's
//! families count the server nearest to the model: the request that was sent on, and not the gateway's. A gateway's request
//! that was not sent on, because a cache or an error answered it, counts itself.
//! Does not depend on: which process is which server, metrics.

use std::{collections::VecDeque, sync::Arc};

use rustc_hash::FxHashMap;

/// Requests that are kept of one process, in each direction; beyond it, the oldest are forgotten.
const KEPT: usize = 1024;
/// Processes that are kept; beyond it, all are forgotten.
const PROCESS_CAP: usize = 1024;

/// The processes that sent requests to watched servers.
#[derive(Debug, Default)]
pub struct Gateways {
    by_pid: FxHashMap<u32, Hops>,
}

/// Requests of one process that were not paired.
#[derive(Debug, Default)]
struct Hops {
    /// Those that it sent.
    sent: VecDeque<Sent>,
    /// Those that it answered, and that count themselves.
    answered: VecDeque<Answered>,
}

#[derive(Debug)]
struct Sent {
    /// When its server had read its first byte, ns.
    at_ns: u64,
    model: Arc<str>,
}

/// A request that a process answered.
#[derive(Debug, Clone)]
pub struct Answered {
    /// First byte read, ns.
    pub from_ns: u64,
    /// Last byte written, ns.
    pub to_ns: u64,
    /// Model.
    pub model: Arc<str>,
}

impl Answered {
    fn covers(&self, at_ns: u64) -> bool {
        (self.from_ns..=self.to_ns).contains(&at_ns)
    }
}

impl Gateways {
    /// Adds a request for `model` that the process `client` sent, and whose server had read its first byte at `at_ns`. Returns
    /// whether it counts: otherwise the request that caused it was counted already.
    pub fn sent(&mut self, client: u32, at_ns: u64, model: &Arc<str>) -> bool {
        if self.by_pid.len() >= PROCESS_CAP && !self.by_pid.contains_key(&client) {
            self.by_pid.clear();
        }
        let hops = self.by_pid.entry(client).or_default();
        let cause = pick(
            &hops.answered,
            |answered| answered.covers(at_ns),
            |answered| answered.model == *model,
        );
        if let Some(cause) = cause {
            hops.answered.remove(cause);
            return false;
        }
        let sent = Sent {
            at_ns,
            model: model.clone(),
        };
        keep(&mut hops.sent, sent);
        true
    }

    /// Whether the process sent requests, so that those that it answers may be a gateway's.
    pub fn has_sent(&self, pid: u32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// Adds a request that the process `pid` answered. Returns whether it counts: otherwise it was sent on.
    pub fn answered(&mut self, pid: u32, answered: Answered) -> bool {
        let Some(hops) = self.by_pid.get_mut(&pid) else {
            return true;
        };
        let sent_on = pick(
            &hops.sent,
            |sent| answered.covers(sent.at_ns),
            |sent| sent.model == answered.model,
        );
        match sent_on {
            Some(sent_on) => drop(hops.sent.remove(sent_on)),
            None => keep(&mut hops.answered, answered),
        }
        sent_on.is_none()
    }

    /// Forgets a process that ended.
    pub fn exited(&mut self, pid: u32) {
        self.by_pid.remove(&pid);
    }
}

/// Returns the place of the first that `fits` and is `best`, or else of the first that `fits`.
fn pick<T>(
    among: &VecDeque<T>,
    fits: impl Fn(&T) -> bool,
    best: impl Fn(&T) -> bool,
) -> Option<usize> {
    let exact = among.iter().position(|one| fits(one) && best(one));
    exact.or_else(|| among.iter().position(fits))
}

fn keep<T>(kept: &mut VecDeque<T>, next: T) {
    if kept.len() >= KEPT {
        kept.pop_front();
    }
    kept.push_back(next);
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: u32 = 7;

    fn answered(from_ns: u64, to_ns: u64, model: &str) -> Answered {
        Answered {
            from_ns,
            to_ns,
            model: model.into(),
        }
    }

    #[test]
    fn request_that_was_sent_on_counts_where_it_was_sent() {
        let mut gateways = Gateways::default();
        for at in (0..5_000).step_by(100) {
            assert!(gateways.sent(GATEWAY, at + 10, &"m".into()));
            assert!(!gateways.answered(GATEWAY, answered(at, at + 90, "alias")));
        }
        assert!(gateways.has_sent(GATEWAY) && !gateways.has_sent(8));
    }

    #[test]
    fn request_that_the_gateway_answered_itself_counts() {
        let mut gateways = Gateways::default();
        assert!(gateways.answered(GATEWAY, answered(0, 10, "m")));
        assert!(gateways.sent(GATEWAY, 25, &"m".into()));
        assert!(gateways.answered(GATEWAY, answered(30, 40, "m")));
        assert!(!gateways.answered(GATEWAY, answered(20, 50, "m")));
        assert!(gateways.answered(GATEWAY, answered(20, 50, "m")));
        assert!(gateways.answered(8, answered(20, 50, "m")));
    }

    #[test]
    fn of_requests_at_once_the_same_model_is_taken_first() {
        let mut gateways = Gateways::default();
        for model in ["a", "b"] {
            assert!(gateways.sent(GATEWAY, 25, &model.into()));
        }
        assert!(!gateways.answered(GATEWAY, answered(20, 30, "b")));
        assert!(!gateways.answered(GATEWAY, answered(20, 40, "other")));
        assert!(gateways.answered(GATEWAY, answered(20, 50, "a")));
    }

    #[test]
    fn request_of_a_gateway_that_did_not_wait_counts_at_the_gateway() {
        let mut gateways = Gateways::default();
        assert!(gateways.sent(GATEWAY, 5, &"m".into()));
        assert!(!gateways.answered(GATEWAY, answered(0, 10, "m")));
        // The gateway gave up before the server's response was seen.
        assert!(gateways.answered(GATEWAY, answered(20, 90, "m")));
        assert!(!gateways.sent(GATEWAY, 30, &"m".into()));
        assert!(gateways.sent(GATEWAY, 30, &"m".into()));
    }

    #[test]
    fn memory_is_bounded_and_ends_with_the_process() {
        let mut gateways = Gateways::default();
        for at_ns in 0..10_000 {
            gateways.sent(GATEWAY, at_ns, &"m".into());
        }
        assert_eq!(gateways.by_pid[&GATEWAY].sent.len(), KEPT);
        for at_ns in 20_000..30_000 {
            gateways.answered(GATEWAY, answered(at_ns, at_ns, "m"));
        }
        assert_eq!(gateways.by_pid[&GATEWAY].answered.len(), KEPT);
        gateways.exited(GATEWAY);
        for pid in 0..5_000 {
            gateways.sent(pid, 1, &"m".into());
        }
        assert!(gateways.by_pid.len() <= PROCESS_CAP);
    }
}
