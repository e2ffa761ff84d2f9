//! Joins the two hops of an HTTP request by its ID: the frontend's response and the worker's exchange.
//!
//! Both carry the same UUID. Either may be reported first, because each has its own socket.
//! Does not depend on: the clock, what the caller knows of a response.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use uuid::Uuid;

use crate::{
    exchange::Peer,
    torchserve::{
        exchange::WorkerExchange,
        frames::command::{RequestKind, WorkerCommand},
    },
};

/// How long a response waits for its worker's reply, which was written before it, ns.
const RESPONSE_WAIT_NS: u64 = 300_000_000;
/// Longest time from a reply to its response, ns; after it, the client is assumed to have left.
const OVERDUE_NS: u64 = 2_000_000_000;
/// How long a reply waits for the end of its response, ns: a slow client may take long to read it.
const REPLY_WAIT_NS: u64 = 120_000_000_000;
/// Responses, and replies, that may wait; the oldest is evicted for one more.
const WAIT_CAP: usize = 65_536;

/// A response, and its worker's exchange.
#[derive(Debug)]
pub struct Pairing<A> {
    /// The frontend's response, as the caller passed it.
    pub response: A,
    /// The worker's exchange, shared by all requests of a batch; `None` if none was observed in time.
    pub worker: Option<Arc<WorkerExchange>>,
}

/// Responses and replies that wait for each other; `A` is the caller's type of a response.
#[derive(Debug)]
pub struct JoinById<A> {
    responses: WaitingById<A>,
    replies: WaitingById<Arc<WorkerExchange>>,
    /// Replies that are not overdue yet, with the time of each, ns.
    timely: VecDeque<(u64, Uuid)>,
}

impl<A> Default for JoinById<A> {
    fn default() -> Self {
        Self {
            responses: WaitingById::default(),
            replies: WaitingById::default(),
            timely: VecDeque::new(),
        }
    }
}

impl<A> JoinById<A> {
    /// Records a worker's exchange at `now_ns`; returns the responses that waited for it.
    pub fn on_worker_exchange(
        &mut self,
        worker_exchange: &Arc<WorkerExchange>,
        now_ns: u64,
        mut on_loss: impl FnMut(Peer),
    ) -> Vec<Pairing<A>> {
        let WorkerCommand::Predict { requests, .. } = &worker_exchange.command else {
            return Vec::new();
        };
        let mut joined = Vec::new();
        let over_http = requests
            .iter()
            .filter(|request| request.has_headers && request.kind != RequestKind::Describe);
        for request in over_http {
            let id = request.id.as_ref().and_then(|id| Uuid::try_parse(id).ok());
            let Some(id) = id else {
                on_loss(worker_exchange.peer);
                continue;
            };
            match self.responses.take(&id) {
                Some(response) => joined.push(Pairing {
                    response,
                    worker: Some(worker_exchange.clone()),
                }),
                None => {
                    self.timely.push_back((now_ns, id));
                    let evicted = self.replies.insert(id, worker_exchange.clone(), now_ns);
                    if let Some(evicted) = evicted {
                        on_loss(evicted.peer);
                    }
                }
            }
        }
        joined
    }

    /// Records the response to request `id` at `now_ns`; returns it if its worker is known, or one that was evicted for it.
    pub fn on_response(&mut self, id: Uuid, response: A, now_ns: u64) -> Option<Pairing<A>> {
        if let Some(worker_exchange) = self.replies.take(&id) {
            return Some(Pairing {
                response,
                worker: Some(worker_exchange),
            });
        }
        let response = self.responses.insert(id, response, now_ns)?;
        Some(Pairing {
            response,
            worker: None,
        })
    }

    /// Offers each reply whose response is overdue to `claim`, once, and removes it if `claim` returns true.
    pub fn offer_overdue(
        &mut self,
        now_ns: u64,
        mut claim: impl FnMut(Uuid, &Arc<WorkerExchange>) -> bool,
    ) {
        while let Some((_, id)) = self
            .timely
            .pop_front_if(|(since_ns, _)| now_ns.saturating_sub(*since_ns) >= OVERDUE_NS)
        {
            if let Some(worker_exchange) = self.replies.by_id.get(&id)
                && claim(id, worker_exchange)
            {
                self.replies.take(&id);
            }
        }
    }

    /// Removes and returns the replies whose response is overdue.
    pub fn take_overdue(&mut self, now_ns: u64) -> Vec<Arc<WorkerExchange>> {
        self.replies.expired(now_ns, OVERDUE_NS).collect()
    }

    /// Ends what has waited too long: responses are returned without a worker, replies are lost.
    pub fn tick(&mut self, now_ns: u64, mut on_loss: impl FnMut(Peer)) -> Vec<Pairing<A>> {
        for reply in self.replies.expired(now_ns, REPLY_WAIT_NS) {
            on_loss(reply.peer);
        }
        let responses = self.responses.expired(now_ns, RESPONSE_WAIT_NS);
        let joined = responses.map(|response| Pairing {
            response,
            worker: None,
        });
        joined.collect()
    }

    /// Returns every response that still waits.
    pub fn finish(&mut self) -> Vec<Pairing<A>> {
        self.tick(u64::MAX, drop)
    }
}

/// Values by request ID, oldest first.
#[derive(Debug)]
struct WaitingById<T> {
    by_id: HashMap<Uuid, T>,
    /// Time of each, ns; the entry of a removed value stays until it expires.
    since: VecDeque<(u64, Uuid)>,
}

impl<T> Default for WaitingById<T> {
    fn default() -> Self {
        Self {
            by_id: HashMap::new(),
            since: VecDeque::new(),
        }
    }
}

impl<T> WaitingById<T> {
    /// Adds a value; returns one that was evicted for it.
    fn insert(&mut self, id: Uuid, value: T, now_ns: u64) -> Option<T> {
        self.since.push_back((now_ns, id));
        let replaced = self.by_id.insert(id, value);
        while self.since.len() > WAIT_CAP {
            let (_, oldest) = self.since.pop_front()?;
            if let Some(evicted) = self.by_id.remove(&oldest) {
                return Some(evicted);
            }
        }
        replaced
    }

    fn take(&mut self, id: &Uuid) -> Option<T> {
        self.by_id.remove(id)
    }

    /// Removes and returns what has waited for `wait_ns` at `now_ns`.
    fn expired(&mut self, now_ns: u64, wait_ns: u64) -> impl Iterator<Item = T> + use<'_, T> {
        std::iter::from_fn(move || {
            loop {
                let (since_ns, id) = *self.since.front()?;
                if now_ns.saturating_sub(since_ns) < wait_ns {
                    return None;
                }
                self.since.pop_front();
                if let Some(value) = self.by_id.remove(&id) {
                    return Some(value);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::torchserve::frames::{command::BatchedRequest, reply::Reply};

    use super::*;

    const PEER: Peer = Peer {
        cookie: 1,
        tgid: 2,
        local_port: Some(8080),
        peer_port: Some(9),
        accepted_ns: None,
        client: None,
    };

    fn worker_exchange(ids: &[u128]) -> Arc<WorkerExchange> {
        let requests = ids.iter().map(|id| BatchedRequest {
            id: Some(Uuid::from_u128(*id).to_string()),
            has_headers: true,
            kind: RequestKind::Predict,
        });
        Arc::new(WorkerExchange {
            peer: PEER,
            command: WorkerCommand::Predict {
                requests: requests.collect(),
                whole: true,
            },
            idle_since_ns: None,
            dispatched_ns: None,
            arrival_ns: None,
            last_read_ns: 1,
            reply: Reply {
                code: 200,
                message: None,
                responses: Vec::new(),
                whole: true,
            },
            first_write_ns: None,
            thread_wait: None,
            last_write_ns: 2,
            reply_read_ns: None,
        })
    }

    #[test]
    fn either_half_may_come_first() {
        let mut join = JoinById::<char>::default();
        let mut lost = Vec::new();
        assert!(
            join.on_worker_exchange(&worker_exchange(&[7]), 0, |peer| lost.push(peer))
                .is_empty()
        );
        let joined = join.on_response(Uuid::from_u128(7), 'a', 1).unwrap();
        assert!(joined.worker.is_some());
        assert!(join.on_response(Uuid::from_u128(8), 'b', 2).is_none());
        let joined = join.on_worker_exchange(&worker_exchange(&[8]), 3, |peer| lost.push(peer));
        assert!(joined[0].response == 'b' && joined[0].worker.is_some());
        assert!(join.finish().is_empty() && lost.is_empty());
    }

    #[test]
    fn every_request_of_a_batch_gets_the_workers_half() {
        let mut join = JoinById::<char>::default();
        assert!(join.on_response(Uuid::from_u128(2), 'a', 0).is_none());
        let joined = join.on_worker_exchange(&worker_exchange(&[1, 2, 3]), 1, drop);
        assert_eq!(joined.len(), 1);
        for id in [1, 3] {
            let joined = join.on_response(Uuid::from_u128(id), 'b', 2).unwrap();
            assert!(joined.worker.is_some());
        }
    }

    #[test]
    fn an_response_that_no_worker_gave_goes_on_alone() {
        let mut join = JoinById::<char>::default();
        let mut lost = Vec::new();
        assert!(join.on_response(Uuid::from_u128(1), 'a', 10).is_none());
        assert!(
            join.tick(RESPONSE_WAIT_NS, |peer| lost.push(peer))
                .is_empty()
        );
        let joined = join.tick(RESPONSE_WAIT_NS + 10, |peer| lost.push(peer));
        assert!(joined[0].worker.is_none());
        assert!(lost.is_empty());
    }

    #[test]
    fn a_reply_whose_client_left_is_counted() {
        let mut join = JoinById::<char>::default();
        let mut lost = Vec::new();
        join.on_worker_exchange(&worker_exchange(&[1]), 0, |peer| lost.push(peer));
        join.tick(REPLY_WAIT_NS, |peer| lost.push(peer));
        assert_eq!(lost, [PEER]);
    }

    #[test]
    fn an_overdue_reply_is_offered_once() {
        let mut join = JoinById::<char>::default();
        let mut lost = Vec::new();
        join.on_worker_exchange(&worker_exchange(&[1, 2, 3]), 0, |peer| lost.push(peer));
        join.on_response(Uuid::from_u128(2), 'a', 1).unwrap();
        let mut offered = Vec::new();
        for now_ns in [OVERDUE_NS - 1, OVERDUE_NS, OVERDUE_NS + 1] {
            join.offer_overdue(now_ns, |id, _| {
                offered.push((now_ns, id.as_u128()));
                id.as_u128() == 1
            });
        }
        assert_eq!(offered, [(OVERDUE_NS, 1), (OVERDUE_NS, 3)]);
        // A slow client's answer may still end.
        let joined = join.on_response(Uuid::from_u128(3), 'b', OVERDUE_NS + 2);
        assert!(joined.unwrap().worker.is_some());
        join.tick(u64::MAX, |peer| lost.push(peer));
        assert!(lost.is_empty());
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut join = JoinById::<char>::default();
        let mut lost = Vec::new();
        for id in 0..WAIT_CAP as u128 + 5 {
            join.on_worker_exchange(&worker_exchange(&[id]), 0, |peer| lost.push(peer));
        }
        assert_eq!(lost.len(), 5);
    }

    #[test]
    fn a_description_is_no_inference() {
        let mut join = JoinById::<char>::default();
        let mut described = Arc::unwrap_or_clone(worker_exchange(&[1]));
        if let WorkerCommand::Predict { requests, .. } = &mut described.command {
            requests[0].kind = RequestKind::Describe;
        }
        let mut lost = Vec::new();
        join.on_worker_exchange(&Arc::new(described), 0, |peer| lost.push(peer));
        join.tick(u64::MAX, |peer| lost.push(peer));
        assert!(lost.is_empty());
    }
}
