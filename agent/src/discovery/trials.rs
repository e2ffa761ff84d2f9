//! Decides by its first requests whether a listener that nothing tells is an inference server.
//!
//! A listener is silent until its first connection. Then its requests are looked at for a short window. What was looked
//! at is not measured, except for the request that decides. The event loop has the kernel do what [`Action`] says, and
//! attaches the hooks of sockets while [`Trials::reads_sockets`] holds.
//! Does not depend on: the kernel, procfs, paths.

use std::collections::{BTreeMap, BTreeSet};

/// Requests that decide, if none of them is for inference.
const REQUESTS: u32 = 8;
/// Probes that decide. They show nothing, because every server has them.
const PROBES: u32 = 1_000;
/// How long connections are looked at after one begins, ns.
const WINDOW_NS: u64 = 10_000_000_000;
/// How long the first connection of a listener is expected from its beginning on, ns.
const FRESH_NS: u64 = 10_000_000_000;
/// Windows without any request that decide: the protocol is another one, or encrypted.
const EMPTY_WINDOWS: u32 = 5;
/// Factor by which the rest after an empty window is longer than the one before.
const REST_GROWS: u64 = 4;
/// Largest number of listeners that are undecided at once.
const CAP: usize = 4_096;

/// What a request shows about its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// It is an inference server, which responded to an inference request.
    Inference,
    /// Nothing: a probe or a tool asks every server so.
    Nothing,
    /// It is another server, if others show the same.
    Other,
}

/// What the kernel is to do about the connections of a TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Report the next connection, and the requests of every connection.
    Look(u16),
    /// Report nothing more.
    Leave(u16),
    /// Watch the process, which serves on the port.
    Watch(u16, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection yet since it was last looked at.
    Silent,
    /// Connections are looked at, until this time in ns.
    Open { until_ns: u64 },
    /// Nothing is looked at, until this time in ns.
    Resting { until_ns: u64 },
}

#[derive(Debug)]
struct Trial {
    began_ns: u64,
    state: State,
    requests: u32,
    probes: u32,
    /// What was counted when the window began.
    before: u32,
    empty_windows: u32,
}

/// The undecided listeners, by their TCP port.
#[derive(Debug, Default)]
pub struct Trials {
    trials: BTreeMap<u16, Trial>,
    /// Ports whose listeners are no inference servers: requests that were read before that was decided are not
    /// measured.
    left: BTreeSet<u16>,
    actions: Vec<Action>,
}

impl Trials {
    /// Begins to decide about the listener of a port.
    pub fn begin(&mut self, port: u16, now_ns: u64) {
        if self.trials.contains_key(&port) || self.trials.len() >= CAP {
            return;
        }
        let trial = Trial {
            began_ns: now_ns,
            state: State::Silent,
            requests: 0,
            probes: 0,
            before: 0,
            empty_windows: 0,
        };
        self.trials.insert(port, trial);
        self.left.remove(&port);
        self.actions.push(Action::Look(port));
    }

    /// Ends what is kept of a port, because a watched process listens on it.
    pub fn cancel(&mut self, port: u16) {
        self.left.remove(&port);
        if self.trials.remove(&port).is_some() {
            self.actions.push(Action::Leave(port));
        }
    }

    /// Whether requests on this port are only looked at, unless their process is watched.
    pub fn covers(&self, port: u16) -> bool {
        self.trials.contains_key(&port) || self.left.contains(&port)
    }

    /// Whether reads and writes of sockets have to be reported: connections are looked at, or the first one of a new
    /// listener is expected.
    ///
    /// A listener that was silent for long is not worth it. The hooks of sockets are then attached when its first
    /// connection begins, and may miss the first request of that.
    pub fn reads_sockets(&self, now_ns: u64) -> bool {
        self.trials.values().any(|trial| match trial.state {
            State::Silent => now_ns < trial.began_ns + FRESH_NS,
            State::Open { .. } => true,
            State::Resting { .. } => false,
        })
    }

    /// Records that a connection to the port began.
    pub fn connected(&mut self, port: u16, now_ns: u64) {
        if let Some(trial) = self.trials.get_mut(&port)
            && trial.state == State::Silent
        {
            trial.before = trial.requests + trial.probes;
            trial.state = State::Open {
                until_ns: now_ns + WINDOW_NS,
            };
        }
    }

    /// Records what a request to the process `pid` on the port shows; returns whether it decides that it is an inference
    /// server.
    pub fn on_request(&mut self, port: u16, pid: u32, shows: Shows) -> bool {
        let Some(trial) = self.trials.get_mut(&port) else {
            return false;
        };
        match shows {
            Shows::Inference => {
                self.trials.remove(&port);
                self.actions.push(Action::Watch(port, pid));
                return true;
            }
            Shows::Nothing => trial.probes += 1,
            Shows::Other => trial.requests += 1,
        }
        if trial.requests >= REQUESTS || trial.probes >= PROBES {
            self.leave(port);
        }
        false
    }

    /// Ends windows and rests that are over.
    pub fn tick(&mut self, now_ns: u64) {
        let mut left = Vec::new();
        for (&port, trial) in &mut self.trials {
            match trial.state {
                State::Open { until_ns } if until_ns <= now_ns => {
                    let seen = trial.requests + trial.probes;
                    if trial.requests > 0 {
                        left.push(port);
                    } else if seen > trial.before {
                        trial.state = State::Silent;
                        self.actions.push(Action::Look(port));
                    } else if trial.empty_windows + 1 == EMPTY_WINDOWS {
                        left.push(port);
                    } else {
                        let rest_ns = WINDOW_NS * REST_GROWS.pow(trial.empty_windows);
                        trial.empty_windows += 1;
                        trial.state = State::Resting {
                            until_ns: now_ns + rest_ns,
                        };
                        self.actions.push(Action::Leave(port));
                    }
                }
                State::Resting { until_ns } if until_ns <= now_ns => {
                    trial.state = State::Silent;
                    self.actions.push(Action::Look(port));
                }
                _ => {}
            }
        }
        left.into_iter().for_each(|port| self.leave(port));
    }

    /// Returns what the kernel is to do, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn leave(&mut self, port: u16) {
        self.trials.remove(&port);
        self.left.insert(port);
        self.actions.push(Action::Leave(port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 80;
    const PID: u32 = 7;

    fn begun() -> Trials {
        let mut trials = Trials::default();
        trials.begin(PORT, 0);
        assert_eq!(trials.take_actions(), [Action::Look(PORT)]);
        trials.connected(PORT, 0);
        trials
    }

    #[test]
    fn an_inference_request_decides_at_once() {
        let mut trials = begun();
        assert!(!trials.on_request(PORT, PID, Shows::Nothing));
        assert!(!trials.on_request(PORT, PID, Shows::Other));
        assert!(trials.on_request(PORT, PID, Shows::Inference));
        assert_eq!(trials.take_actions(), [Action::Watch(PORT, PID)]);
        assert!(!trials.covers(PORT));
        assert!(!trials.on_request(PORT, PID, Shows::Inference));
        assert_eq!(trials.take_actions(), []);
    }

    #[test]
    fn other_requests_decide_after_a_few_or_at_the_end_of_the_window() {
        let mut trials = begun();
        for _ in 0..REQUESTS {
            assert!(trials.take_actions().is_empty());
            trials.on_request(PORT, PID, Shows::Other);
        }
        assert_eq!(trials.take_actions(), [Action::Leave(PORT)]);
        // Those that were read before are not measured either.
        assert!(trials.covers(PORT));
        assert!(!trials.on_request(PORT, PID, Shows::Inference));

        let mut trials = begun();
        trials.on_request(PORT, PID, Shows::Other);
        trials.tick(WINDOW_NS - 1);
        assert!(trials.take_actions().is_empty());
        trials.tick(WINDOW_NS);
        assert_eq!(trials.take_actions(), [Action::Leave(PORT)]);
        trials.tick(u64::MAX);
        assert!(trials.take_actions().is_empty());
    }

    #[test]
    fn probes_leave_it_open_until_there_are_too_many() {
        let mut trials = begun();
        let mut now_ns = 0;
        for _ in 0..3 {
            trials.on_request(PORT, PID, Shows::Nothing);
            now_ns += WINDOW_NS;
            trials.tick(now_ns);
            assert_eq!(trials.take_actions(), [Action::Look(PORT)]);
            trials.connected(PORT, now_ns);
        }
        for _ in 3..PROBES {
            assert!(trials.take_actions().is_empty());
            trials.on_request(PORT, PID, Shows::Nothing);
        }
        assert_eq!(trials.take_actions(), [Action::Leave(PORT)]);
    }

    #[test]
    fn connections_without_requests_are_looked_at_ever_more_rarely_and_then_left() {
        let mut trials = begun();
        let mut now_ns = 0;
        for window in 1..EMPTY_WINDOWS {
            now_ns += WINDOW_NS;
            trials.tick(now_ns);
            assert_eq!(trials.take_actions(), [Action::Leave(PORT)], "{window}");
            // A connection during the rest changes nothing.
            trials.connected(PORT, now_ns);
            let rest_ns = WINDOW_NS * REST_GROWS.pow(window - 1);
            trials.tick(now_ns + rest_ns - 1);
            assert!(trials.take_actions().is_empty(), "{window}");
            now_ns += rest_ns;
            trials.tick(now_ns);
            assert_eq!(trials.take_actions(), [Action::Look(PORT)], "{window}");
            trials.connected(PORT, now_ns);
        }
        trials.tick(now_ns + WINDOW_NS);
        assert_eq!(trials.take_actions(), [Action::Leave(PORT)]);
        assert!(trials.covers(PORT));
    }

    #[test]
    fn a_silent_listener_stays_undecided() {
        let mut trials = Trials::default();
        trials.begin(PORT, 0);
        trials.begin(PORT, 0);
        assert_eq!(trials.take_actions(), [Action::Look(PORT)]);
        trials.tick(u64::MAX / 2);
        assert!(trials.take_actions().is_empty());
        trials.cancel(PORT);
        trials.cancel(PORT);
        assert_eq!(trials.take_actions(), [Action::Leave(PORT)]);
        assert!(!trials.covers(PORT));
    }

    #[test]
    fn sockets_are_read_for_new_listeners_and_open_windows() {
        let mut trials = Trials::default();
        assert!(!trials.reads_sockets(0));
        trials.begin(PORT, 5);
        assert!(trials.reads_sockets(FRESH_NS + 4));
        assert!(!trials.reads_sockets(FRESH_NS + 5));
        let connected_ns = 10 * FRESH_NS;
        trials.connected(PORT, connected_ns);
        assert!(trials.reads_sockets(connected_ns));
        let end_ns = connected_ns + WINDOW_NS;
        trials.tick(end_ns);
        assert!(!trials.reads_sockets(end_ns), "it rests");
        for _ in 0..REQUESTS {
            trials.on_request(PORT, PID, Shows::Other);
        }
        assert!(!trials.reads_sockets(0), "it is decided");
    }

    #[test]
    fn a_new_listener_on_a_port_that_was_left_is_decided_anew() {
        let mut trials = begun();
        for _ in 0..REQUESTS {
            trials.on_request(PORT, PID, Shows::Other);
        }
        trials.take_actions();
        trials.begin(PORT, 0);
        assert_eq!(trials.take_actions(), [Action::Look(PORT)]);
        assert!(trials.on_request(PORT, PID + 1, Shows::Inference));
    }

    #[test]
    fn undecided_listeners_are_bounded() {
        let mut trials = Trials::default();
        (1..=u16::MAX).for_each(|port| trials.begin(port, 0));
        assert_eq!(trials.take_actions().len(), CAP);
    }
}
