//! What is known of one finished request: who served it, and how long each stage took.
//!
//! Plain values, and the one step from an exchange to them. Nothing here knows of records or metrics.

use std::sync::Arc;

use crate::{
    exchange::{Exchange, WorkerExchange},
    protocol::route::Route,
    workers::registry::Server,
};

/// Who answered a request, as the metrics label it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Model name: from the path, else from configuration, else the process's name.
    pub model: Arc<str>,
    /// Version the client asked for in the path, else from configuration, else `default`, as TorchServe labels it.
    pub version: Arc<str>,
    /// The server's kind or name: `torchserve`, a configured name, or the process's name.
    pub server: Arc<str>,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A prediction: counts in the request families.
    Inference,
    /// Health, metrics, management: counts in `Requests2XX` and its like, and apart from inference.
    Admin,
}

/// Durations of the stages of one request, in nanoseconds of CLOCK_MONOTONIC.
///
/// `queue`, `receive`, `handler` and `stream` follow each other without a gap, so they add up to the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// First byte readable to first byte read. `None`: the socket was not watched when the byte came.
    pub queue_ns: Option<u64>,
    /// First byte read to last byte read.
    pub receive_ns: u64,
    /// Last request byte read to first response byte written. `None`: the kernel could only bound it.
    pub handler_ns: Option<u64>,
    /// First response byte written to last. `None`: one of the two could not be seen, or only be bounded.
    pub stream_ns: Option<u64>,
    /// Last request byte read to last response byte written: handler and stream together, where the write between them
    /// could only be bounded. `None` where it is known, or the last is not.
    pub unsplit_ns: Option<u64>,
}

impl Stages {
    /// First byte readable to last byte written, in nanoseconds; `None` if a stage is unknown.
    pub fn total_ns(&self) -> Option<u64> {
        let answered_ns = match (self.handler_ns, self.stream_ns) {
            (Some(handler_ns), Some(stream_ns)) => handler_ns + stream_ns,
            _ => self.unsplit_ns?,
        };
        Some(self.queue_ns? + self.receive_ns + answered_ns)
    }
}

impl From<&Exchange> for Stages {
    fn from(exchange: &Exchange) -> Self {
        let Exchange {
            request, answer, ..
        } = exchange;
        let since = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns);
        let split = !answer.first_write_bounded;
        let stream_ns = answer
            .last_write_ns
            .map(|last_ns| since(answer.first_write_ns, last_ns));
        let unsplit_ns = answer
            .last_write_ns
            .map(|last_ns| since(request.last_read_ns, last_ns));
        Self {
            queue_ns: request
                .arrival_ns
                .map(|arrival_ns| since(arrival_ns, request.first_read_ns)),
            receive_ns: since(request.first_read_ns, request.last_read_ns),
            handler_ns: split.then(|| since(request.last_read_ns, answer.first_write_ns)),
            stream_ns: stream_ns.filter(|_| split),
            unsplit_ns: unsplit_ns.filter(|_| !split),
        }
    }
}

/// What a frontend's worker did for a request, in the terms of TorchServe. Durations in ns of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerHop {
    /// Last request byte read by the frontend to when its thread for the worker handed the request on, or, where that
    /// cannot be seen, to the first byte sent to the worker: `QueueTime`. `None`: neither was seen.
    pub inner_queue_ns: Option<u64>,
    /// Last byte read by the worker to first reply byte written: `PredictionTime`. `None`: only bounded, by a long send.
    pub worker_ns: Option<u64>,
    /// Last request byte read by the frontend to last reply byte read by it, or, where that cannot be seen, written by
    /// the worker: `ts_inference_latency`.
    pub latency_ns: u64,
    /// From there to the first answer byte written by the frontend: its share of `WorkerThreadTime`. `None`: only
    /// bounded.
    pub relay_ns: Option<u64>,
    /// How the worker's work ended.
    pub end: WorkEnd,
}

/// How a worker's work on a batch ended: TorchServe counts times by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkEnd {
    /// With answers, of whatever status.
    Predicted,
    /// With something that TorchServe refused to take for answers: the handler's own time counts all the same.
    Refused,
    /// With an exception.
    Failed,
}

/// Replies of a worker whose handler came to its end, with nothing that could be used (ts/service.py of 0.12.0, `predict`).
const REFUSALS: [&str; 2] = [
    "Invalid model predict output",
    "number of batch response mismatched",
];

impl WorkerHop {
    /// What `worked` adds to what the frontend's own exchange tells.
    pub fn new(exchange: &Exchange, worked: &WorkerExchange) -> Self {
        let Exchange {
            request, answer, ..
        } = exchange;
        let since = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns);
        let refused = || {
            let message = worked.reply.message.as_deref();
            message.is_some_and(|message| REFUSALS.contains(&message))
        };
        Self {
            inner_queue_ns: worked
                .handed_ns
                .filter(|handed_ns| *handed_ns >= request.last_read_ns)
                .or(worked.arrival_ns)
                .map(|taken_ns| since(request.last_read_ns, taken_ns)),
            worker_ns: worked
                .first_write_ns
                .map(|first_ns| since(worked.last_read_ns, first_ns)),
            latency_ns: since(request.last_read_ns, worked.replied_ns()),
            relay_ns: (!answer.first_write_bounded)
                .then(|| since(worked.replied_ns(), answer.first_write_ns)),
            end: match worked.reply.code {
                200 => WorkEnd::Predicted,
                _ if refused() => WorkEnd::Refused,
                _ => WorkEnd::Failed,
            },
        }
    }
}

/// What is known of the hop behind the one that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// The server is not known to hand requests on.
    None,
    /// It hands requests on, and no worker was seen with this one: most answers to bad requests are of its own making.
    Unseen,
    /// What a worker did for it.
    Worker(WorkerHop),
}

/// One finished request, ready to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Who answered.
    pub identity: Identity,
    /// What it was for.
    pub purpose: Purpose,
    /// HTTP status code of the final answer, 100 to 999.
    pub status: u16,
    /// How long each stage took.
    pub stages: Stages,
    /// What lies behind the handler stage.
    pub inner: Inner,
}

impl Observation {
    /// What there is to count of an exchange that `server` answered, whose path says `route`, and what lay behind it.
    pub fn new(exchange: &Exchange, server: Server, route: Route, inner: Inner) -> Self {
        let named = |name: Option<String>| name.map(Arc::from);
        Self {
            identity: Identity {
                model: named(route.model).unwrap_or(server.model),
                version: named(route.version).unwrap_or(server.version),
                server: server.name,
            },
            purpose: route.purpose,
            status: exchange.answer.status,
            stages: Stages::from(exchange),
            inner,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        exchange::{Answer, Peer, Request},
        protocol::torchserve::{command::Command, reply::Reply},
    };

    use super::*;

    fn exchange() -> Exchange {
        Exchange {
            peer: Peer {
                cookie: 1,
                tgid: 2,
                local_port: Some(80),
                peer_port: Some(81),
            },
            request: Request {
                index: 0,
                method: "POST".into(),
                target: "/predictions/m".into(),
                arrival_ns: Some(1_000),
                first_read_ns: 1_001,
                last_read_ns: 1_021,
                bytes: 10,
                complete: true,
                named: None,
            },
            answer: Answer {
                status: 200,
                first_write_ns: 1_321,
                first_write_bounded: false,
                last_write_ns: Some(5_321),
                bytes: 10,
                request_id: None,
                grpc_status: None,
            },
        }
    }

    fn server() -> Server {
        Server {
            name: "s".into(),
            model: "d".into(),
            version: "default".into(),
            hands_on: false,
            predicts_only_by_path: false,
        }
    }

    #[test]
    fn stages_follow_each_other_without_a_gap() {
        let stages = Stages::from(&exchange());
        assert_eq!(
            stages,
            Stages {
                queue_ns: Some(1),
                receive_ns: 20,
                handler_ns: Some(300),
                stream_ns: Some(4000),
                unsplit_ns: None,
            }
        );
        assert_eq!(stages.total_ns(), Some(5_321 - 1_000));
    }

    #[test]
    fn what_was_not_seen_is_unknown() {
        let mut exchange = exchange();
        exchange.request.arrival_ns = None;
        exchange.answer.first_write_bounded = true;
        exchange.answer.last_write_ns = None;
        assert_eq!(
            Stages::from(&exchange),
            Stages {
                queue_ns: None,
                receive_ns: 20,
                handler_ns: None,
                stream_ns: None,
                unsplit_ns: None,
            }
        );
    }

    #[test]
    fn the_total_is_known_where_the_first_write_is_only_bounded() {
        let mut exchange = exchange();
        exchange.answer.first_write_bounded = true;
        let stages = Stages::from(&exchange);
        assert_eq!((stages.handler_ns, stages.stream_ns), (None, None));
        assert_eq!(stages.total_ns(), Some(5_321 - 1_000));
    }

    #[test]
    fn the_path_names_the_model_before_the_server_does() {
        let named = Route {
            purpose: Purpose::Inference,
            model: Some("m".into()),
            version: None,
        };
        let observation = Observation::new(&exchange(), server(), named, Inner::None);
        assert_eq!(
            (&*observation.identity.model, &*observation.identity.version),
            ("m", "default")
        );
        let unnamed = Route {
            purpose: Purpose::Inference,
            model: None,
            version: Some("2".into()),
        };
        let observation = Observation::new(&exchange(), server(), unnamed, Inner::None);
        assert_eq!(
            (&*observation.identity.model, &*observation.identity.version),
            ("d", "2")
        );
    }

    fn worked(code: i32, message: &str) -> WorkerExchange {
        let Exchange { peer, .. } = exchange();
        WorkerExchange {
            peer,
            command: Command::Predict {
                requests: Vec::new(),
                whole: true,
            },
            idle_since_ns: None,
            handed_ns: None,
            arrival_ns: Some(1_031),
            last_read_ns: 1_041,
            reply: Reply {
                code,
                message: Some(message.into()),
                answers: Vec::new(),
                whole: true,
            },
            first_write_ns: Some(1_301),
            last_write_ns: 1_309,
            taken_ns: Some(1_311),
        }
    }

    #[test]
    fn the_worker_splits_the_time_between_question_and_answer() {
        let hop = WorkerHop::new(&exchange(), &worked(200, "Prediction success"));
        let expected = WorkerHop {
            inner_queue_ns: Some(10),
            worker_ns: Some(260),
            latency_ns: 290,
            relay_ns: Some(10),
            end: WorkEnd::Predicted,
        };
        assert_eq!(hop, expected);
    }

    #[test]
    fn the_queue_ends_when_the_request_is_handed_on() {
        let mut worked = worked(200, "Prediction success");
        for (handed_ns, expected_ns) in [(Some(1_025), 4), (Some(1_020), 10), (None, 10)] {
            worked.handed_ns = handed_ns;
            let hop = WorkerHop::new(&exchange(), &worked);
            assert_eq!(hop.inner_queue_ns, Some(expected_ns), "{handed_ns:?}");
        }
    }

    #[test]
    fn times_of_the_worker_that_were_not_seen_are_unknown() {
        let mut exchange = exchange();
        exchange.answer.first_write_bounded = true;
        let mut worked = worked(200, "Prediction success");
        (worked.arrival_ns, worked.first_write_ns) = (None, None);
        let hop = WorkerHop::new(&exchange, &worked);
        let known = (hop.inner_queue_ns, hop.worker_ns, hop.relay_ns);
        assert_eq!(known, (None, None, None));
        assert_eq!(hop.latency_ns, 290);
    }

    #[test]
    fn a_worker_ends_as_torchserve_says() {
        for (code, message, expected) in [
            (200, "Prediction success", WorkEnd::Predicted),
            (503, "Invalid model predict output", WorkEnd::Refused),
            (503, "Prediction failed", WorkEnd::Failed),
            (507, "Out of resources", WorkEnd::Failed),
        ] {
            let hop = WorkerHop::new(&exchange(), &worked(code, message));
            assert_eq!(hop.end, expected, "{code} {message}");
        }
    }

    #[test]
    fn total_is_the_sum_of_the_stages() {
        let stages = Stages {
            queue_ns: Some(1),
            receive_ns: 20,
            handler_ns: Some(300),
            stream_ns: Some(4000),
            unsplit_ns: None,
        };
        assert_eq!(stages.total_ns(), Some(4321));
    }

    #[test]
    fn total_is_unknown_when_a_stage_is() {
        let stages = Stages {
            queue_ns: None,
            receive_ns: 1,
            handler_ns: Some(1),
            stream_ns: Some(1),
            unsplit_ns: None,
        };
        assert_eq!(stages.total_ns(), None);
    }
}
