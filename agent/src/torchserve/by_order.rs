//! Joins a frontend's requests with what its workers did where no number names both: by model, first in, first out.
//!
//! TorchServe's queue of a model is one, and first in, first out; the times tell which reply can be whose. Knows nothing
//! of protocols.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::torchserve::exchange::WorkerExchange;

/// Requests, and replies, of one model that may wait; past it, the oldest give up.
const LINE_CAP: usize = 4096;
/// Models whose requests may wait; a request for one more does not.
const MODEL_CAP: usize = 1024;

/// A request that a worker was given; `A` is what the caller knows of it.
#[derive(Debug)]
pub struct Waiting<A> {
    /// What the caller knows.
    pub request: A,
    /// Last byte read by the frontend, ns.
    pub last_read_ns: u64,
    /// Last answer byte written by the frontend, ns: a stream's first is written before its worker's last. `None` when
    /// it had nobody to answer.
    pub answered_ns: Option<u64>,
    /// Whether the answer was a success; `None` when there was none.
    pub succeeded: Option<bool>,
}

impl<A> Waiting<A> {
    /// Whether the worker can have worked on this: after it was read, before it was answered, and with that success.
    fn fits(&self, worked: &WorkerExchange) -> bool {
        let begun_ns = worked.arrival_ns.unwrap_or(worked.last_read_ns);
        let succeeded = worked.reply.code == 200;
        self.last_read_ns <= begun_ns
            && self.succeeded.is_none_or(|success| success == succeeded)
            && self
                .answered_ns
                .is_none_or(|answered_ns| worked.last_write_ns <= answered_ns)
    }
}

/// What waits, by model.
#[derive(Debug)]
pub struct JoinByOrder<A> {
    by_model: HashMap<Arc<str>, Line<A>>,
}

#[derive(Debug)]
struct Line<A> {
    requests: VecDeque<(u64, Waiting<A>)>,
    replies: VecDeque<(u64, Arc<WorkerExchange>)>,
}

impl<A> Default for JoinByOrder<A> {
    fn default() -> Self {
        Self {
            by_model: HashMap::new(),
        }
    }
}

impl<A> JoinByOrder<A> {
    /// Takes in a request at `now_ns`; returns one that cannot wait, be it this or the oldest.
    pub fn ask(&mut self, model: &Arc<str>, request: Waiting<A>, now_ns: u64) -> Option<A> {
        if self.by_model.len() >= MODEL_CAP && !self.by_model.contains_key(model) {
            return Some(request.request);
        }
        let line = self.by_model.entry(model.clone()).or_default();
        line.requests.push_back((now_ns, request));
        if line.requests.len() <= LINE_CAP {
            return None;
        }
        let (_, oldest) = line.requests.pop_front()?;
        Some(oldest.request)
    }

    /// Takes out the requests that have waited for `settled_ns` at `now_ns`, so that all their replies are here, and
    /// gives each a reply that fits: the oldest, but so that as few as can be go without.
    pub fn pair(&mut self, now_ns: u64, settled_ns: u64) -> Vec<(A, Option<Arc<WorkerExchange>>)> {
        let mut paired = Vec::new();
        for line in self.by_model.values_mut() {
            let mut due = Vec::new();
            while let Some((_, request)) = line
                .requests
                .pop_front_if(|(since_ns, _)| now_ns.saturating_sub(*since_ns) >= settled_ns)
            {
                due.push(request);
            }
            let mut taken = line.assign(&due);
            let replies = std::mem::take(&mut line.replies);
            let mut given: Vec<Option<Arc<WorkerExchange>>> = vec![None; due.len()];
            for (index, (since_ns, worked)) in replies.into_iter().enumerate() {
                match taken.get_mut(index).and_then(Option::take) {
                    Some(request) => given[request] = Some(worked),
                    None => line.replies.push_back((since_ns, worked)),
                }
            }
            let requests = due.into_iter().map(|waiting| waiting.request);
            paired.extend(requests.zip(given));
        }
        paired
    }

    /// The oldest request that a reply fits, if there is one.
    pub fn claim(&mut self, model: &str, worked: &WorkerExchange) -> Option<A> {
        let line = self.by_model.get_mut(model)?;
        let fitting = line
            .requests
            .iter()
            .position(|(_, request)| request.fits(worked))?;
        let (_, request) = line.requests.remove(fitting)?;
        Some(request.request)
    }

    /// Keeps a reply that no request has claimed yet; returns whether another one gave way.
    pub fn keep(&mut self, model: &Arc<str>, worked: Arc<WorkerExchange>, now_ns: u64) -> bool {
        let line = self.by_model.entry(model.clone()).or_default();
        line.replies.push_back((now_ns, worked));
        line.replies.len() > LINE_CAP && line.replies.pop_front().is_some()
    }

    /// Gives up what has waited for `wait_ns` at `now_ns`; returns how many replies went.
    pub fn expire(&mut self, now_ns: u64, wait_ns: u64) -> usize {
        let late = |since_ns: u64| now_ns.saturating_sub(since_ns) >= wait_ns;
        let mut replies = 0;
        self.by_model.retain(|_, line| {
            line.requests.retain(|(since_ns, _)| !late(*since_ns));
            let before = line.replies.len();
            line.replies.retain(|(since_ns, _)| !late(*since_ns));
            replies += before - line.replies.len();
            !line.requests.is_empty() || !line.replies.is_empty()
        });
        replies
    }
}

impl<A> Line<A> {
    /// For each reply, the index of the request in `due` that it goes to: a matching of the greatest size, found by
    /// augmenting paths (Kuhn's algorithm).
    fn assign(&self, due: &[Waiting<A>]) -> Vec<Option<usize>> {
        let mut owner = vec![None; self.replies.len()];
        for request in 0..due.len() {
            let mut tried = vec![false; self.replies.len()];
            self.find(request, due, &mut owner, &mut tried);
        }
        owner
    }

    /// Finds `request` a reply, moving others to another of theirs if need be; returns whether there is one.
    fn find(
        &self,
        request: usize,
        due: &[Waiting<A>],
        owner: &mut [Option<usize>],
        tried: &mut [bool],
    ) -> bool {
        for (index, (_, worked)) in self.replies.iter().enumerate() {
            if tried[index] || !due[request].fits(worked) {
                continue;
            }
            tried[index] = true;
            let is_free = owner[index].is_none_or(|other| self.find(other, due, owner, tried));
            if is_free {
                owner[index] = Some(request);
                return true;
            }
        }
        false
    }
}

impl<A> Default for Line<A> {
    fn default() -> Self {
        Self {
            requests: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        exchange::Peer,
        torchserve::frames::{command::Command, reply::Reply},
    };

    use super::*;

    fn request(request: char, last_read_ns: u64, answered_ns: Option<u64>) -> Waiting<char> {
        Waiting {
            request,
            last_read_ns,
            answered_ns,
            succeeded: answered_ns.map(|_| true),
        }
    }

    fn worked(arrival_ns: u64, last_write_ns: u64) -> Arc<WorkerExchange> {
        Arc::new(WorkerExchange {
            peer: Peer {
                cookie: 1,
                tgid: 2,
                local_port: None,
                peer_port: None,
                accepted_ns: None,
            },
            command: Command::Predict {
                requests: Vec::new(),
                whole: true,
            },
            idle_since_ns: None,
            dispatched_ns: None,
            arrival_ns: Some(arrival_ns),
            last_read_ns: arrival_ns,
            reply: Reply {
                code: 200,
                message: None,
                responses: Vec::new(),
                whole: true,
            },
            first_write_ns: None,
            last_write_ns,
            reply_read_ns: None,
        })
    }

    #[test]
    fn requests_of_a_model_take_its_replies_in_order() {
        let mut lines = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        assert!(lines.ask(&tiny, request('a', 10, Some(100)), 0).is_none());
        assert!(lines.ask(&tiny, request('b', 11, Some(200)), 0).is_none());
        assert_eq!(lines.claim("tiny", &worked(20, 90)), Some('a'));
        assert_eq!(lines.claim("tiny", &worked(91, 190)), Some('b'));
        assert_eq!(lines.claim("tiny", &worked(191, 290)), None);
        assert_eq!(lines.claim("twin", &worked(20, 90)), None);
    }

    fn paired(lines: &mut JoinByOrder<char>, now_ns: u64) -> Vec<(char, Option<u64>)> {
        let paired = lines.pair(now_ns, 100).into_iter();
        let arrivals = paired.map(|(request, worked)| {
            let arrival_ns = worked.and_then(|worked| worked.arrival_ns);
            (request, arrival_ns)
        });
        arrivals.collect()
    }

    #[test]
    fn requests_take_the_oldest_replies_that_leave_the_others_theirs() {
        let mut lines = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        // The second was read later, handed on first, and answered long before.
        assert!(lines.ask(&tiny, request('a', 10, Some(250)), 0).is_none());
        assert!(lines.ask(&tiny, request('b', 11, Some(35)), 1).is_none());
        assert!(lines.ask(&tiny, request('c', 45, Some(400)), 101).is_none());
        for (arrival_ns, last_write_ns) in [(5, 9), (20, 30), (40, 240), (241, 390)] {
            assert!(!lines.keep(&tiny, worked(arrival_ns, last_write_ns), 0));
        }
        assert_eq!(paired(&mut lines, 99), []);
        assert_eq!(paired(&mut lines, 101), [('a', Some(40)), ('b', Some(20))]);
        assert_eq!(paired(&mut lines, 201), [('c', Some(241))]);
        assert_eq!(lines.expire(1_000, 500), 1);
    }

    #[test]
    fn a_failure_is_not_the_reply_of_a_success() {
        let mut lines = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        assert!(!lines.keep(&tiny, worked(20, 90), 0));
        let failed = Waiting {
            succeeded: Some(false),
            ..request('a', 10, Some(100))
        };
        assert!(lines.ask(&tiny, failed, 0).is_none());
        assert!(lines.ask(&tiny, request('b', 10, Some(100)), 0).is_none());
        assert_eq!(paired(&mut lines, 100), [('a', None), ('b', Some(20))]);
    }

    #[test]
    fn what_waits_too_long_is_given_up() {
        let mut lines = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        assert!(lines.ask(&tiny, request('a', 10, None), 0).is_none());
        assert!(!lines.keep(&tiny, worked(5, 50), 5));
        assert_eq!(lines.expire(99, 100), 0);
        assert_eq!(lines.expire(104, 100), 0);
        assert_eq!(lines.claim("tiny", &worked(20, 50)), None);
        assert_eq!(lines.expire(105, 100), 1);
        assert!(lines.by_model.is_empty());
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut lines = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        let mut back = 0;
        for _ in 0..LINE_CAP + 5 {
            back += usize::from(lines.ask(&tiny, request('a', 10, None), 0).is_some());
        }
        assert_eq!(back, 5);
        for index in 0..MODEL_CAP + 5 {
            let model: Arc<str> = format!("m{index}").into();
            back += usize::from(lines.ask(&model, request('a', 10, None), 0).is_some());
        }
        assert_eq!(back, 5 + 6);
    }
}
