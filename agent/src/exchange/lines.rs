//! Joins a frontend's requests with what its workers did where no number names both: by model, first in, first out.
//!
//! TorchServe's queue of a model is one, and first in, first out; the times tell which reply can be whose. Knows nothing
//! of protocols.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::exchange::WorkerExchange;

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
    /// First answer byte written by the frontend, ns; `None` when it had nobody to answer.
    pub first_write_ns: Option<u64>,
}

impl<A> Waiting<A> {
    /// Whether the worker can have worked on this: after it was read, and before it was answered.
    fn fits(&self, worked: &WorkerExchange) -> bool {
        let begun_ns = worked.arrival_ns.unwrap_or(worked.last_read_ns);
        self.last_read_ns <= begun_ns
            && self
                .first_write_ns
                .is_none_or(|first_write_ns| worked.last_write_ns <= first_write_ns)
    }
}

/// What waits, by model.
#[derive(Debug)]
pub struct Lines<A> {
    by_model: HashMap<Arc<str>, Line<A>>,
}

#[derive(Debug)]
struct Line<A> {
    requests: VecDeque<(u64, Waiting<A>)>,
    replies: VecDeque<(u64, Arc<WorkerExchange>)>,
}

impl<A> Default for Lines<A> {
    fn default() -> Self {
        Self {
            by_model: HashMap::new(),
        }
    }
}

impl<A> Lines<A> {
    /// Takes in a request at `now_ns`: returns it with its reply if that is here, and keeps it else. A request that
    /// cannot wait comes back without one, be it this or the oldest.
    pub fn ask(
        &mut self,
        model: &Arc<str>,
        request: Waiting<A>,
        now_ns: u64,
    ) -> Option<(A, Option<Arc<WorkerExchange>>)> {
        if self.by_model.len() >= MODEL_CAP && !self.by_model.contains_key(model) {
            return Some((request.request, None));
        }
        let line = self.by_model.entry(model.clone()).or_default();
        let fitting = line
            .replies
            .iter()
            .position(|(_, worked)| request.fits(worked));
        if let Some((_, worked)) = fitting.and_then(|index| line.replies.remove(index)) {
            return Some((request.request, Some(worked)));
        }
        line.requests.push_back((now_ns, request));
        if line.requests.len() <= LINE_CAP {
            return None;
        }
        let (_, oldest) = line.requests.pop_front()?;
        Some((oldest.request, None))
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

    /// Gives up what has waited too long: returns the requests, and how many replies went.
    pub fn expire(
        &mut self,
        now_ns: u64,
        request_wait_ns: u64,
        reply_wait_ns: u64,
    ) -> (Vec<A>, usize) {
        let mut requests = Vec::new();
        let mut replies = 0;
        self.by_model.retain(|_, line| {
            let late = |since_ns: u64, wait_ns: u64| now_ns.saturating_sub(since_ns) >= wait_ns;
            while let Some((_, request)) = line
                .requests
                .pop_front_if(|(since_ns, _)| late(*since_ns, request_wait_ns))
            {
                requests.push(request.request);
            }
            while line
                .replies
                .pop_front_if(|(since_ns, _)| late(*since_ns, reply_wait_ns))
                .is_some()
            {
                replies += 1;
            }
            !line.requests.is_empty() || !line.replies.is_empty()
        });
        (requests, replies)
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
        protocol::torchserve::{command::Command, reply::Reply},
    };

    use super::*;

    fn request(request: char, last_read_ns: u64, first_write_ns: Option<u64>) -> Waiting<char> {
        Waiting {
            request,
            last_read_ns,
            first_write_ns,
        }
    }

    fn worked(arrival_ns: u64, last_write_ns: u64) -> Arc<WorkerExchange> {
        Arc::new(WorkerExchange {
            peer: Peer {
                cookie: 1,
                tgid: 2,
                local_port: None,
                peer_port: None,
            },
            command: Command::Predict {
                requests: Vec::new(),
                whole: true,
            },
            idle_since_ns: None,
            handed_ns: None,
            arrival_ns: Some(arrival_ns),
            last_read_ns: arrival_ns,
            reply: Reply {
                code: 200,
                message: None,
                answers: Vec::new(),
                whole: true,
            },
            first_write_ns: None,
            last_write_ns,
            taken_ns: None,
        })
    }

    #[test]
    fn requests_of_a_model_take_its_replies_in_order() {
        let mut lines = Lines::default();
        let tiny: Arc<str> = "tiny".into();
        assert!(lines.ask(&tiny, request('a', 10, Some(100)), 0).is_none());
        assert!(lines.ask(&tiny, request('b', 11, Some(200)), 0).is_none());
        assert_eq!(lines.claim("tiny", &worked(20, 90)), Some('a'));
        assert_eq!(lines.claim("tiny", &worked(91, 190)), Some('b'));
        assert_eq!(lines.claim("tiny", &worked(191, 290)), None);
        assert_eq!(lines.claim("twin", &worked(20, 90)), None);
    }

    #[test]
    fn a_reply_before_the_question_or_after_the_answer_is_anothers() {
        let mut lines = Lines::default();
        let tiny: Arc<str> = "tiny".into();
        for (arrival_ns, last_write_ns) in [(5, 50), (20, 120)] {
            assert!(!lines.keep(&tiny, worked(arrival_ns, last_write_ns), 0));
        }
        assert!(lines.ask(&tiny, request('a', 10, Some(100)), 0).is_none());
        let (_, worked) = lines.ask(&tiny, request('b', 10, None), 0).unwrap();
        assert_eq!(worked.unwrap().arrival_ns, Some(20));
    }

    #[test]
    fn what_waits_too_long_is_given_up() {
        let mut lines = Lines::default();
        let tiny: Arc<str> = "tiny".into();
        assert!(lines.ask(&tiny, request('a', 10, None), 0).is_none());
        assert!(!lines.keep(&tiny, worked(5, 50), 5));
        assert_eq!(lines.expire(99, 100, 100), (vec![], 0));
        assert_eq!(lines.expire(100, 100, 100), (vec!['a'], 0));
        assert_eq!(lines.expire(105, 100, 100), (vec![], 1));
        assert!(lines.by_model.is_empty());
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut lines = Lines::default();
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
