//! Joins requests that carry no ID with workers' replies: by model, first in, first out.
//!
//! TorchServe has one first-in, first-out queue per model. The times decide which reply can belong to which request.
//! Does not depend on: protocols, the clock.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::torchserve::exchange::WorkerExchange;

/// Requests, and replies, of one model that may wait; the oldest is evicted for one more.
const QUEUE_CAP: usize = 4096;
/// Models whose requests may wait; a request for one more model does not wait.
const MODEL_CAP: usize = 1024;

/// A request of a frontend; `A` is the caller's type of it.
#[derive(Debug)]
pub struct WaitingRequest<A> {
    /// The request, as the caller passed it.
    pub request: A,
    /// Last byte read by the frontend, ns.
    pub last_read_ns: u64,
    /// First response byte written by the frontend, ns; `None` if the client had left.
    pub answered_ns: Option<u64>,
    /// Last response byte written by the frontend, ns: the first byte of a stream is written before the worker's last.
    /// `None` if the client had left.
    pub responded_ns: Option<u64>,
    /// Whether the response was a success; `None` if there was none.
    pub succeeded: Option<bool>,
}

impl<A> WaitingRequest<A> {
    /// Returns whether this can be the worker's request: read before the frame arrived, responded to after the reply was read,
    /// and with the same success. The worker's own write may return later, if its thread loses the CPU.
    fn fits(&self, worker_exchange: &WorkerExchange) -> bool {
        let replied_ns = worker_exchange
            .reply_read_ns
            .or(worker_exchange.first_write_ns)
            .unwrap_or(worker_exchange.last_read_ns);
        let succeeded = worker_exchange.reply.code == 200;
        self.last_read_ns <= begun_ns(worker_exchange)
            && self.succeeded.is_none_or(|success| success == succeeded)
            && self
                .responded_ns
                .is_none_or(|responded_ns| replied_ns <= responded_ns)
    }

    /// Returns the time between the beginnings of the reply and of the response, ns: the frontend passes a reply on at once.
    fn distance_ns(&self, worker_exchange: &WorkerExchange) -> u64 {
        let replied_ns = worker_exchange
            .first_write_ns
            .unwrap_or_else(|| worker_exchange.replied_ns());
        self.answered_ns
            .map_or(0, |answered_ns| answered_ns.abs_diff(replied_ns))
    }
}

/// Returns when the frame arrived at the worker, at the latest when it read it, ns.
fn begun_ns(worker_exchange: &WorkerExchange) -> u64 {
    worker_exchange
        .arrival_ns
        .unwrap_or(worker_exchange.last_read_ns)
}

/// Requests and replies that wait for each other, by model.
#[derive(Debug)]
pub struct JoinByOrder<A> {
    by_model: HashMap<Arc<str>, ModelQueue<A>>,
}

#[derive(Debug)]
struct ModelQueue<A> {
    requests: VecDeque<(u64, WaitingRequest<A>)>,
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
    /// Adds a request at `now_ns`; returns one that cannot wait: this one, or the oldest.
    pub fn add_request(
        &mut self,
        model: &Arc<str>,
        request: WaitingRequest<A>,
        now_ns: u64,
    ) -> Option<A> {
        if self.by_model.len() >= MODEL_CAP && !self.by_model.contains_key(model) {
            return Some(request.request);
        }
        let queue = self.by_model.entry(model.clone()).or_default();
        queue.requests.push_back((now_ns, request));
        if queue.requests.len() <= QUEUE_CAP {
            return None;
        }
        let (_, oldest) = queue.requests.pop_front()?;
        Some(oldest.request)
    }

    /// Removes the requests that have waited for `wait_ns` at `now_ns`, each with its reply. The replies to all that have waited
    /// for `known_ns` are known: these share them among each other, so that no request gets the reply of one that is due
    /// later.
    pub fn pair_due(
        &mut self,
        now_ns: u64,
        known_ns: u64,
        wait_ns: u64,
    ) -> Vec<(A, Option<Arc<WorkerExchange>>)> {
        let mut paired = Vec::new();
        for queue in self.by_model.values_mut() {
            let waited = |least_ns: u64| {
                queue
                    .requests
                    .partition_point(|(since_ns, _)| now_ns.saturating_sub(*since_ns) >= least_ns)
            };
            let (due, known) = (waited(wait_ns), waited(known_ns));
            if due == 0 {
                continue;
            }
            let owners = queue.assign(known);
            let mut given: Vec<Option<Arc<WorkerExchange>>> = vec![None; due];
            let mut owners = owners.into_iter();
            queue.replies.retain(|(_, worker_exchange)| {
                let owner = owners.next().flatten();
                let Some(given) = owner.and_then(|request| given.get_mut(request)) else {
                    return true;
                };
                *given = Some(worker_exchange.clone());
                false
            });
            let requests = queue.requests.drain(..due);
            paired.extend(requests.map(|(_, waiting)| waiting.request).zip(given));
        }
        paired
    }

    /// Whether any request waits.
    pub fn has_requests(&self) -> bool {
        self.by_model
            .values()
            .any(|queue| !queue.requests.is_empty())
    }

    /// Removes and returns the oldest request that fits a reply.
    pub fn claim_request(&mut self, model: &str, worker_exchange: &WorkerExchange) -> Option<A> {
        let queue = self.by_model.get_mut(model)?;
        let fitting = queue
            .requests
            .iter()
            .position(|(_, request)| request.fits(worker_exchange))?;
        let (_, request) = queue.requests.remove(fitting)?;
        Some(request.request)
    }

    /// Adds a reply; returns whether another one was evicted for it.
    pub fn add_reply(
        &mut self,
        model: &Arc<str>,
        worker_exchange: Arc<WorkerExchange>,
        now_ns: u64,
    ) -> bool {
        let queue = self.by_model.entry(model.clone()).or_default();
        queue.replies.push_back((now_ns, worker_exchange));
        queue.replies.len() > QUEUE_CAP && queue.replies.pop_front().is_some()
    }

    /// Drops what has waited for `wait_ns` at `now_ns`; returns the replies among it.
    pub fn expire(&mut self, now_ns: u64, wait_ns: u64) -> Vec<Arc<WorkerExchange>> {
        let late = |since_ns: u64| now_ns.saturating_sub(since_ns) >= wait_ns;
        let mut replies = Vec::new();
        self.by_model.retain(|_, queue| {
            queue.requests.retain(|(since_ns, _)| !late(*since_ns));
            while let Some((_, reply)) = queue.replies.pop_front_if(|(since_ns, _)| late(*since_ns))
            {
                replies.push(reply);
            }
            !queue.requests.is_empty() || !queue.replies.is_empty()
        });
        replies
    }
}

impl<A> ModelQueue<A> {
    /// Returns, for each reply, the index of its request among the first `requests`: those that come nearest to each other
    /// belong together, and as many as possible (augmenting paths, Kuhn's algorithm).
    fn assign(&self, requests: usize) -> Vec<Option<usize>> {
        let replies = self.replies.iter().enumerate();
        let mut by_begin: Vec<(u64, usize)> = replies
            .map(|(index, (_, worker_exchange))| (begun_ns(worker_exchange), index))
            .collect();
        by_begin.sort_unstable();
        let mut fits: Vec<Vec<(u64, usize)>> = Vec::new();
        for (_, request) in self.requests.iter().take(requests) {
            let from = by_begin.partition_point(|(begun_ns, _)| *begun_ns < request.last_read_ns);
            let mut fitting = Vec::new();
            for &(begun_ns, reply) in &by_begin[from..] {
                if request
                    .responded_ns
                    .is_some_and(|responded_ns| responded_ns < begun_ns)
                {
                    break;
                }
                let (_, worker_exchange) = &self.replies[reply];
                if request.fits(worker_exchange) {
                    fitting.push((request.distance_ns(worker_exchange), reply));
                }
            }
            fitting.sort_unstable();
            fits.push(fitting);
        }
        let mut pairs: Vec<(u64, usize, usize)> = Vec::new();
        for (request, fitting) in fits.iter().enumerate() {
            pairs.extend(
                fitting
                    .iter()
                    .map(|&(distance_ns, reply)| (distance_ns, request, reply)),
            );
        }
        pairs.sort_unstable();
        let mut owners = vec![None; self.replies.len()];
        let mut has_reply = vec![false; fits.len()];
        for (_, request, reply) in pairs {
            if !has_reply[request] && owners[reply].is_none() {
                (owners[reply], has_reply[request]) = (Some(request), true);
            }
        }
        for request in (0..fits.len()).filter(|&request| !has_reply[request]) {
            let mut tried = vec![false; owners.len()];
            find(request, &fits, &mut owners, &mut tried);
        }
        owners
    }
}

/// Finds a reply for `request` among those that fit each one, and moves other requests to other replies if necessary; returns
/// whether there is one.
fn find(
    request: usize,
    fits: &[Vec<(u64, usize)>],
    owners: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for &(_, reply) in &fits[request] {
        if std::mem::replace(&mut tried[reply], true) {
            continue;
        }
        let is_free = owners[reply].is_none_or(|other| find(other, fits, owners, tried));
        if is_free {
            owners[reply] = Some(request);
            return true;
        }
    }
    false
}

impl<A> Default for ModelQueue<A> {
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
        torchserve::frames::{command::WorkerCommand, reply::Reply},
    };

    use super::*;

    fn request(
        request: char,
        last_read_ns: u64,
        responded_ns: Option<u64>,
    ) -> WaitingRequest<char> {
        WaitingRequest {
            request,
            last_read_ns,
            answered_ns: responded_ns,
            responded_ns,
            succeeded: responded_ns.map(|_| true),
        }
    }

    fn worker_exchange(arrival_ns: u64, last_write_ns: u64) -> Arc<WorkerExchange> {
        Arc::new(WorkerExchange {
            peer: Peer {
                cookie: 1,
                tgid: 2,
                local_port: None,
                peer_port: None,
                accepted_ns: None,
                client: None,
            },
            command: WorkerCommand::Predict {
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
            thread_wait: None,
            last_write_ns,
            reply_read_ns: None,
        })
    }

    #[test]
    fn requests_of_a_model_get_its_replies_in_order() {
        let mut join = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        assert!(
            join.add_request(&tiny, request('a', 10, Some(100)), 0)
                .is_none()
        );
        assert!(
            join.add_request(&tiny, request('b', 11, Some(200)), 0)
                .is_none()
        );
        assert_eq!(
            join.claim_request("tiny", &worker_exchange(20, 90)),
            Some('a')
        );
        assert_eq!(
            join.claim_request("tiny", &worker_exchange(91, 190)),
            Some('b')
        );
        assert_eq!(join.claim_request("tiny", &worker_exchange(191, 290)), None);
        assert_eq!(join.claim_request("twin", &worker_exchange(20, 90)), None);
    }

    fn paired(join: &mut JoinByOrder<char>, now_ns: u64) -> Vec<(char, Option<u64>)> {
        let paired = join.pair_due(now_ns, 60, 100).into_iter();
        let arrivals = paired.map(|(request, worker_exchange)| {
            let arrival_ns = worker_exchange.and_then(|worker_exchange| worker_exchange.arrival_ns);
            (request, arrival_ns)
        });
        arrivals.collect()
    }

    #[test]
    fn requests_get_the_nearest_replies_that_leave_one_for_each() {
        let mut join = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        // The second was read later, dispatched first, and responded to long before.
        assert!(
            join.add_request(&tiny, request('a', 10, Some(250)), 0)
                .is_none()
        );
        assert!(
            join.add_request(&tiny, request('b', 11, Some(35)), 1)
                .is_none()
        );
        assert!(
            join.add_request(&tiny, request('c', 45, Some(400)), 101)
                .is_none()
        );
        for (arrival_ns, last_write_ns) in [(5, 9), (20, 30), (40, 240), (241, 390)] {
            assert!(!join.add_reply(&tiny, worker_exchange(arrival_ns, last_write_ns), 0));
        }
        assert_eq!(paired(&mut join, 99), []);
        assert_eq!(paired(&mut join, 101), [('a', Some(40)), ('b', Some(20))]);
        assert_eq!(paired(&mut join, 201), [('c', Some(241))]);
        assert_eq!(join.expire(1_000, 500).len(), 1);
    }

    #[test]
    fn request_leaves_a_reply_to_one_that_is_due_later() {
        let mut join = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        // `a` fits both replies, and comes nearer to that of `b`, which fits no other.
        for (name, read_ns, responded_ns, since_ns) in [('a', 10, 60, 0), ('b', 35, 70, 30)] {
            let waiting = request(name, read_ns, Some(responded_ns));
            assert!(join.add_request(&tiny, waiting, since_ns).is_none());
        }
        for (arrival_ns, last_write_ns) in [(20, 30), (40, 58)] {
            assert!(!join.add_reply(&tiny, worker_exchange(arrival_ns, last_write_ns), 0));
        }
        assert_eq!(paired(&mut join, 100), [('a', Some(20))]);
        assert_eq!(paired(&mut join, 130), [('b', Some(40))]);
    }

    #[test]
    fn failed_request_does_not_get_a_successful_reply() {
        let mut join = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        assert!(!join.add_reply(&tiny, worker_exchange(20, 90), 0));
        let failed = WaitingRequest {
            succeeded: Some(false),
            ..request('a', 10, Some(100))
        };
        assert!(join.add_request(&tiny, failed, 0).is_none());
        assert!(
            join.add_request(&tiny, request('b', 10, Some(100)), 0)
                .is_none()
        );
        assert_eq!(paired(&mut join, 100), [('a', None), ('b', Some(20))]);
    }

    #[test]
    fn entries_that_wait_too_long_are_dropped() {
        let mut join = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        assert!(join.add_request(&tiny, request('a', 10, None), 0).is_none());
        assert!(!join.add_reply(&tiny, worker_exchange(5, 50), 5));
        assert_eq!(join.expire(99, 100).len(), 0);
        assert_eq!(join.expire(104, 100).len(), 0);
        assert_eq!(join.claim_request("tiny", &worker_exchange(20, 50)), None);
        assert_eq!(join.expire(105, 100).len(), 1);
        assert!(join.by_model.is_empty());
    }

    #[test]
    fn requests_and_models_are_bounded() {
        let mut join = JoinByOrder::default();
        let tiny: Arc<str> = "tiny".into();
        let mut back = 0;
        for _ in 0..QUEUE_CAP + 5 {
            back += usize::from(join.add_request(&tiny, request('a', 10, None), 0).is_some());
        }
        assert_eq!(back, 5);
        for index in 0..MODEL_CAP + 5 {
            let model: Arc<str> = format!("m{index}").into();
            back += usize::from(
                join.add_request(&model, request('a', 10, None), 0)
                    .is_some(),
            );
        }
        assert_eq!(back, 5 + 6);
    }
}
