//! What is known of one finished request: who served it, and how long each stage took.
//!
//! Plain values, and the one step from an exchange to them. Nothing here knows of records or metrics.

mod stream;

use crate::{
    catalogue::route::{Purpose, Route},
    exchange::Exchange,
    identity::{Identity, Server},
    protocol::genai::{self, Operation},
    torchserve::timing::WorkerTiming,
};

pub use stream::Stream;

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
    /// Those of a request of which no answer was seen.
    pub const UNSEEN: Self = Self {
        queue_ns: None,
        receive_ns: 0,
        handler_ns: None,
        stream_ns: None,
        unsplit_ns: None,
    };

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
            request, response, ..
        } = exchange;
        let since = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns);
        let split = !response.first_write_bounded;
        let stream_ns = response
            .last_write_ns
            .map(|last_ns| since(response.first_write_ns, last_ns));
        let unsplit_ns = response
            .last_write_ns
            .map(|last_ns| since(request.last_read_ns, last_ns));
        Self {
            queue_ns: request
                .arrival_ns
                .map(|arrival_ns| since(arrival_ns, request.first_read_ns)),
            receive_ns: since(request.first_read_ns, request.last_read_ns),
            handler_ns: split.then(|| since(request.last_read_ns, response.first_write_ns)),
            stream_ns: stream_ns.filter(|_| split),
            unsplit_ns: unsplit_ns.filter(|_| !split),
        }
    }
}

/// What is known of the hop behind the one that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerSide {
    /// The server is not known to hand requests on.
    NoWorker,
    /// It hands requests on, and no worker was seen with this one: most answers to bad requests are of its own making.
    NotObserved,
    /// What a worker did for it.
    Observed(WorkerTiming),
}

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, of whatever version.
    Http,
    /// gRPC. Its `grpc-status`; `None` when that was not seen.
    Grpc(Option<u32>),
    /// Not known, since no byte was looked at: neither is the status.
    Unread,
}

/// `CANCELLED` of gRPC (https://grpc.io/docs/guides/status-codes).
pub const GRPC_CANCELLED: u32 = 1;
/// `INTERNAL` of gRPC (https://grpc.io/docs/guides/status-codes).
pub const GRPC_INTERNAL: u32 = 13;

/// Status code of HTTP that stands for one of gRPC, as google/rpc/code.proto maps them; what is unknown is a 500.
pub const fn http_status_of(grpc_status: u32) -> u16 {
    match grpc_status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// One finished request, ready to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Who answered.
    pub identity: Identity,
    /// What it was for.
    pub purpose: Purpose,
    /// How it came.
    pub protocol: Protocol,
    /// HTTP status code of the final answer, 100 to 999; of gRPC, what stands for its own status; 0 where it is not known.
    pub status: u16,
    /// How long each stage took.
    pub stages: Stages,
    /// What lies behind the handler stage.
    pub worker_side: WorkerSide,
    /// The answer as a stream; `None` where it is none.
    pub stream: Option<Box<Stream>>,
    /// What it asks of a language model; `None` where its path is not known to ask one.
    pub operation: Option<Operation>,
}

impl Observation {
    /// What there is to count of an exchange that `server` answered, whose path says `route`, and what lay behind it.
    pub fn new(exchange: &Exchange, server: Server, route: Route, worker_side: WorkerSide) -> Self {
        let response = &exchange.response;
        Self {
            purpose: route.purpose,
            identity: Identity::new(server, route),
            protocol: match exchange.is_grpc() {
                true => Protocol::Grpc(response.grpc_status),
                false if response.status == 0 => Protocol::Unread,
                false => Protocol::Http,
            },
            status: response.grpc_status.map_or(response.status, http_status_of),
            stages: Stages::from(exchange),
            worker_side,
            stream: Stream::of(exchange).map(Box::new),
            operation: genai::operation(&exchange.request.method, &exchange.request.target),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::exchange::fixtures::exchange;

    use super::*;

    fn server() -> Server {
        Server {
            name: "s".into(),
            model: "d".into(),
            version: "default".into(),
            model_is_set: false,
            is_frontend: false,
            is_internal: false,
            entry: None,
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
        exchange.response.first_write_bounded = true;
        exchange.response.last_write_ns = None;
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
        exchange.response.first_write_bounded = true;
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
        let observation = Observation::new(&exchange(), server(), named, WorkerSide::NoWorker);
        assert_eq!(
            (&*observation.identity.model, &*observation.identity.version),
            ("m", "default")
        );
        let unnamed = Route {
            purpose: Purpose::Inference,
            model: None,
            version: Some("2".into()),
        };
        let observation = Observation::new(&exchange(), server(), unnamed, WorkerSide::NoWorker);
        assert_eq!(
            (&*observation.identity.model, &*observation.identity.version),
            ("d", "2")
        );
    }

    #[test]
    fn a_call_of_grpc_has_the_status_that_stands_for_its_own() {
        let mut exchange = exchange();
        for (grpc_status, expected) in [(0, 200), (5, 404), (13, 500), (14, 503), (99, 500)] {
            exchange.response.grpc_status = Some(grpc_status);
            let route = Route {
                purpose: Purpose::Inference,
                model: None,
                version: None,
            };
            let observation = Observation::new(&exchange, server(), route, WorkerSide::NoWorker);
            assert_eq!(observation.status, expected);
            assert_eq!(observation.protocol, Protocol::Grpc(Some(grpc_status)));
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
