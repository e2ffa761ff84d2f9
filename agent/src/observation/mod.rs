//! Describes one finished request: who served it, and how long each stage took.
//!
//! The pipeline makes an `Observation` from an exchange, its labels and the worker's side; metrics and request log read it.
//! Does not depend on: records, metrics.

mod stream;
pub mod tokens;

use crate::{
    catalogue::route::{ModelSource, Purpose, Route},
    exchange::{Exchange, SessionMessages},
    identity::{Hop, Identity, Server},
    protocol::{genai::Operation, grpc},
    torchserve::{join::AbandonedRequest, timing::WorkerSide},
    verdict::slow::Because,
};

pub use stream::Stream;

use tokens::Tokens;

/// Durations of the stages of one request, in nanoseconds of CLOCK_MONOTONIC.
///
/// `queue`, `receive`, `handler` and `stream` follow each other without a gap, so their sum is the total. If a response
/// begins before its request was read to the end, handler and stream are unknown, and `unsplit` follows `receive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// First byte readable to first byte read; `None` if the socket was not watched when the byte arrived.
    pub queue_ns: Option<u64>,
    /// First byte read to last byte read, at most to the last response byte written.
    pub receive_ns: u64,
    /// Last request byte read to first response byte written; `None` if only an upper bound is known, or the response began
    /// before the request's end.
    pub handler_ns: Option<u64>,
    /// First response byte written to last; `None` if one of the two was not observed or has only an upper bound, or the
    /// response began before the request's end.
    pub stream_ns: Option<u64>,
    /// Last request byte read to last response byte written: handler and stream together, if the write between them does
    /// not divide them. `None` if it does, or the last write is not known.
    pub unsplit_ns: Option<u64>,
}

impl Stages {
    /// Stages of a request without an observed response.
    pub const UNOBSERVED: Self = Self {
        queue_ns: None,
        receive_ns: 0,
        handler_ns: None,
        stream_ns: None,
        unsplit_ns: None,
    };

    /// Returns the time from first byte readable to last byte written, ns; `None` if a stage is unknown.
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
        let split = !response.first_write_bounded && !exchange.overlaps();
        let read_ns = exchange.read_before_end_ns();
        let since_read = |ns: u64| ns.checked_sub(read_ns);
        let stream_ns = response
            .last_write_ns
            .and_then(|last_ns| last_ns.checked_sub(response.first_write_ns));
        Self {
            queue_ns: request
                .arrival_ns
                .and_then(|arrival_ns| request.first_read_ns.checked_sub(arrival_ns)),
            receive_ns: read_ns.saturating_sub(request.first_read_ns),
            handler_ns: since_read(response.first_write_ns).filter(|_| split),
            stream_ns: stream_ns.filter(|_| split),
            unsplit_ns: response
                .last_write_ns
                .and_then(since_read)
                .filter(|_| !split),
        }
    }
}

/// What a WebSocket session carried, with the request that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Bytes from the client.
    pub received_bytes: u64,
    /// Bytes from the server.
    pub sent_bytes: u64,
    /// Messages.
    pub messages: SessionMessages,
}

impl Session {
    fn of(exchange: &Exchange) -> Option<Self> {
        Some(Self {
            received_bytes: exchange.request.bytes,
            sent_bytes: exchange.response.bytes,
            messages: exchange.response.session?,
        })
    }
}

/// Protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP of any version.
    Http,
    /// gRPC, with its `grpc-status`; `None` if that was not observed.
    Grpc(Option<u32>),
    /// Unknown, like the status, because the payload is not read.
    Unread,
}

/// One finished request, ready to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Who served it.
    pub identity: Identity,
    /// Where the model of `identity` comes from.
    pub model_source: ModelSource,
    /// What it is for.
    pub purpose: Purpose,
    /// Its protocol.
    pub protocol: Protocol,
    /// HTTP status code of the final response, 100 to 999; for gRPC, the HTTP status that matches its own; 0 if unknown.
    pub status: u16,
    /// How long each stage took.
    pub stages: Stages,
    /// How long the thread that did the work waited for a CPU during the handler stage, ns: a TorchServe worker's, else the
    /// server's. `None` if not one thread read the request and wrote the response.
    pub starved_ns: Option<u64>,
    /// Why it was slow; `None` if it was not slow for its model, or if that is unknown.
    pub because: Option<Because>,
    /// What a TorchServe worker did during the handler stage.
    pub worker_side: WorkerSide,
    /// Times of a streamed response; `None` if the response is not streamed.
    pub stream: Option<Box<Stream>>,
    /// Where it stands if a gateway sent it on.
    pub hop: Hop,
    /// What its WebSocket session carried; `None` if it began none.
    pub session: Option<Session>,
    /// Operation of a language model; `None` if the path is not known for one.
    pub operation: Option<Operation>,
    /// Tokens of the response; `None` if it shows none, and the operation is unknown too.
    pub tokens: Option<Tokens>,
}

impl Observation {
    /// Describes an exchange of `server`, whose path has the purpose and model of `route`.
    pub fn new(
        exchange: &Exchange,
        server: Server,
        route: Route,
        hop: Hop,
        worker_side: WorkerSide,
    ) -> Self {
        let response = &exchange.response;
        let operation = route.operation;
        let is_read = operation.is_some() || response.generation.is_some();
        let tokens = is_read.then(|| Tokens::of(exchange));
        let stages = Stages::from(exchange);
        Self {
            model_source: route.model_source.unwrap_or(server.model_source),
            purpose: route.purpose,
            identity: Identity::new(server, route),
            protocol: match exchange.is_grpc() {
                true => Protocol::Grpc(response.grpc_status),
                false if response.status == 0 => Protocol::Unread,
                false => Protocol::Http,
            },
            status: response
                .grpc_status
                .map_or(response.status, grpc::http_status_of),
            starved_ns: starved_ns(exchange, &stages, &worker_side),
            stages,
            because: None,
            worker_side,
            stream: Stream::of(exchange).map(Box::new),
            hop,
            session: Session::of(exchange),
            operation,
            tokens: tokens.filter(|tokens| operation.is_some() || tokens.usage.is_stated()),
        }
    }

    /// Describes a request of a TorchServe frontend whose client left before the response.
    pub fn of_abandoned(request: AbandonedRequest) -> Self {
        Self {
            identity: request.identity,
            model_source: ModelSource::Path,
            purpose: Purpose::Inference,
            protocol: match request.grpc_status {
                Some(grpc_status) => Protocol::Grpc(Some(grpc_status)),
                None => Protocol::Http,
            },
            status: request.status,
            stages: Stages::UNOBSERVED,
            starved_ns: None,
            because: None,
            worker_side: request.worker_side,
            stream: None,
            hop: Hop::ONLY,
            session: None,
            operation: None,
            tokens: None,
        }
    }
}

/// Returns how long the thread that did the work waited for a CPU, at most as long as the stage that it worked in.
fn starved_ns(exchange: &Exchange, stages: &Stages, worker_side: &WorkerSide) -> Option<u64> {
    match worker_side {
        WorkerSide::NoWorker => {
            let wait = exchange.response.thread_wait?;
            Some(wait.starved_ns.min(stages.handler_ns?))
        }
        WorkerSide::NotObserved => None,
        WorkerSide::Observed(timing) => Some(timing.starved_ns?.min(timing.worker_ns?)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        exchange::{fixtures::exchange, threads::ThreadWait},
        identity::fixtures::server,
    };

    use super::*;

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
    fn starved_time_is_part_of_the_handler_stage() {
        let mut exchange = exchange();
        let route = || Route::of(Purpose::Inference);
        let starved = |exchange: &Exchange, worker_side| {
            Observation::new(exchange, server(), route(), Hop::ONLY, worker_side).starved_ns
        };
        assert_eq!(starved(&exchange, WorkerSide::NoWorker), None);
        for (waited_ns, expected_ns) in [(40, 40), (400, 300)] {
            exchange.response.thread_wait = Some(ThreadWait {
                starved_ns: waited_ns,
                slept: false,
            });
            assert_eq!(starved(&exchange, WorkerSide::NoWorker), Some(expected_ns));
            // The worker's thread did the work, and that one is unknown.
            assert_eq!(starved(&exchange, WorkerSide::NotObserved), None);
        }
        exchange.response.first_write_bounded = true;
        assert_eq!(starved(&exchange, WorkerSide::NoWorker), None);
    }

    #[test]
    fn times_not_observed_are_unknown() {
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
    fn response_before_the_end_of_its_request_has_no_handler_time() {
        let duplex = |last_read_ns, early| {
            let mut exchange = exchange();
            exchange.request.last_read_ns = last_read_ns;
            exchange.response.early = early;
            Stages::from(&exchange)
        };
        for (stages, receive_ns) in [
            (duplex(5_000, true), 3_999),
            // The read that the agent takes for the last was none, or ran at the same time.
            (duplex(5_000, false), 3_999),
            // Refused before the body was read.
            (duplex(1_021, true), 20),
            // Read on after the response had ended.
            (duplex(9_000, true), 4_320),
        ] {
            assert_eq!((stages.handler_ns, stages.stream_ns), (None, None));
            assert_eq!(stages.receive_ns, receive_ns);
            assert_eq!(stages.total_ns(), Some(5_321 - 1_000));
        }
    }

    #[test]
    fn moments_out_of_order_make_unknown_stages() {
        let mut exchange = exchange();
        exchange.request.arrival_ns = Some(1_002);
        let stages = Stages::from(&exchange);
        assert_eq!((stages.queue_ns, stages.total_ns()), (None, None));
    }

    #[test]
    fn total_with_bounded_first_write_is_known() {
        let mut exchange = exchange();
        exchange.response.first_write_bounded = true;
        let stages = Stages::from(&exchange);
        assert_eq!((stages.handler_ns, stages.stream_ns), (None, None));
        assert_eq!(stages.total_ns(), Some(5_321 - 1_000));
    }

    #[test]
    fn model_of_path_precedes_model_of_server() {
        let named = Route {
            model: Some("m".into()),
            model_source: Some(ModelSource::Path),
            ..Route::of(Purpose::Inference)
        };
        let observation = Observation::new(
            &exchange(),
            server(),
            named,
            Hop::ONLY,
            WorkerSide::NoWorker,
        );
        assert_eq!(
            (&*observation.identity.model, &*observation.identity.version),
            ("m", "default")
        );
        assert_eq!(observation.model_source, ModelSource::Path);
        let unnamed = Route {
            version: Some("2".into()),
            ..Route::of(Purpose::Inference)
        };
        let observation = Observation::new(
            &exchange(),
            server(),
            unnamed,
            Hop::ONLY,
            WorkerSide::NoWorker,
        );
        assert_eq!(
            (&*observation.identity.model, &*observation.identity.version),
            ("d", "2")
        );
        assert_eq!(observation.model_source, ModelSource::ProcessName);
    }

    #[test]
    fn grpc_call_has_the_matching_http_status() {
        let mut exchange = exchange();
        for (grpc_status, expected) in [(0, 200), (5, 404), (13, 500), (14, 503), (99, 500)] {
            exchange.response.grpc_status = Some(grpc_status);
            let route = Route::of(Purpose::Inference);
            let observation =
                Observation::new(&exchange, server(), route, Hop::ONLY, WorkerSide::NoWorker);
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
