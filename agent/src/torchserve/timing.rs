//! Computes the worker's times of a request from the exchanges of frontend and worker.
//!
//! The join calls it; `Observation` carries the result to the metrics.
//! Does not depend on: how the two exchanges were found, metrics.

use crate::{
    exchange::Exchange,
    torchserve::{exchange::WorkerExchange, frames::reply::Reply},
};

/// What is known about the worker behind the server that responded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerSide {
    /// The server is not a frontend of workers.
    NoWorker,
    /// The server is a frontend, and no worker was observed: in most cases the frontend itself refused a bad request.
    NotObserved,
    /// The times of the worker.
    Observed(WorkerTiming),
}

/// Times of a worker's side of a request, by TorchServe's definitions. Durations in ns of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerTiming {
    /// Time in TorchServe's internal queue, `QueueTime`: last request byte read by the frontend to the dispatch of the
    /// batch or, if that was not observed, to the first byte sent to the worker. `None` if neither was observed.
    pub internal_queue_ns: Option<u64>,
    /// Last byte read by the worker to first reply byte written: `PredictionTime`. `None` if a long send leaves only
    /// an upper bound.
    pub worker_ns: Option<u64>,
    /// How much of it the worker's thread waited for a CPU; `None` if not one thread read and replied.
    pub starved_ns: Option<u64>,
    /// Last request byte read by the frontend to last reply byte read by it or, if that was not observed, written by the
    /// worker: `ts_inference_latency`.
    pub latency_ns: u64,
    /// From there to the first response byte written by the frontend: its share of `WorkerThreadTime`. `None` if only an
    /// upper bound is known.
    pub relay_ns: Option<u64>,
    /// Result of the worker's batch.
    pub end: WorkEnd,
}

/// Result of a worker's batch: it decides which times TorchServe counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkEnd {
    /// The handler returned responses, of any status.
    Predicted,
    /// The handler returned something that TorchServe refuses as responses; the handler's own time still counts.
    Refused,
    /// The handler raised an exception.
    Failed,
}

/// Messages of a worker whose handler returned an unusable result (ts/service.py of 0.12.0, `predict`).
const REFUSALS: [&str; 2] = [
    "Invalid model predict output",
    "number of batch response mismatched",
];

impl WorkerTiming {
    /// Computes the times from the exchanges of frontend and worker.
    pub fn new(exchange: &Exchange, worker_exchange: &WorkerExchange) -> Self {
        let response = &exchange.response;
        let relay_ns = || {
            response
                .first_write_ns
                .saturating_sub(worker_exchange.replied_ns())
        };
        Self {
            relay_ns: (!response.first_write_bounded).then(relay_ns),
            ..Self::for_abandoned(exchange.request.last_read_ns, worker_exchange)
        }
    }

    /// Computes the times of a request that the frontend had read at `last_read_ns`, and whose client had left.
    pub fn for_abandoned(last_read_ns: u64, worker_exchange: &WorkerExchange) -> Self {
        let since = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns);
        let refused = || {
            let message = worker_exchange.reply.message.as_deref();
            message.is_some_and(|message| REFUSALS.contains(&message))
        };
        Self {
            internal_queue_ns: worker_exchange
                .dispatched_ns
                .filter(|dispatched_ns| *dispatched_ns >= last_read_ns)
                .or(worker_exchange.arrival_ns)
                .map(|queue_end_ns| since(last_read_ns, queue_end_ns)),
            worker_ns: worker_exchange
                .first_write_ns
                .map(|first_ns| since(worker_exchange.last_read_ns, first_ns)),
            starved_ns: worker_exchange.thread_wait.map(|wait| wait.starved_ns),
            latency_ns: since(last_read_ns, worker_exchange.replied_ns()),
            relay_ns: None,
            end: match worker_exchange.reply.code {
                200 => WorkEnd::Predicted,
                _ if refused() => WorkEnd::Refused,
                _ => WorkEnd::Failed,
            },
        }
    }
}

/// Returns the HTTP status of TorchServe's response to request `id` of a batch with this `reply`; `None` if the reply has
/// none (frontend/server RestJob.java of 0.12.0).
pub fn torchserve_status(reply: &Reply, id: &str) -> Option<u16> {
    match reply.code {
        200 => {
            let mut responses = reply.responses.iter();
            let own = responses.find(|response| response.id.as_deref() == Some(id))?;
            own.http_status
        }
        // TorchServe reports its own upload limit as a server error.
        413 => Some(507),
        code => u16::try_from(code).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::fixtures::exchange;
    use crate::torchserve::frames::{command::WorkerCommand, reply::BatchedResponse};

    fn worker_exchange(code: i32, message: &str) -> WorkerExchange {
        let Exchange { peer, .. } = exchange();
        WorkerExchange {
            peer,
            command: WorkerCommand::Predict {
                requests: Vec::new(),
                whole: true,
            },
            idle_since_ns: None,
            dispatched_ns: None,
            arrival_ns: Some(1_031),
            last_read_ns: 1_041,
            reply: Reply {
                code,
                message: Some(message.into()),
                responses: Vec::new(),
                whole: true,
            },
            first_write_ns: Some(1_301),
            thread_wait: None,
            last_write_ns: 1_309,
            reply_read_ns: Some(1_311),
        }
    }

    #[test]
    fn worker_times_split_the_handler_stage() {
        let timing = WorkerTiming::new(&exchange(), &worker_exchange(200, "Prediction success"));
        let expected = WorkerTiming {
            internal_queue_ns: Some(10),
            worker_ns: Some(260),
            starved_ns: None,
            latency_ns: 290,
            relay_ns: Some(10),
            end: WorkEnd::Predicted,
        };
        assert_eq!(timing, expected);
    }

    #[test]
    fn internal_queue_ends_at_the_dispatch() {
        let mut worker_exchange = worker_exchange(200, "Prediction success");
        for (dispatched_ns, expected_ns) in [(Some(1_025), 4), (Some(1_020), 10), (None, 10)] {
            worker_exchange.dispatched_ns = dispatched_ns;
            let timing = WorkerTiming::new(&exchange(), &worker_exchange);
            assert_eq!(
                timing.internal_queue_ns,
                Some(expected_ns),
                "{dispatched_ns:?}"
            );
        }
    }

    #[test]
    fn worker_times_not_observed_are_unknown() {
        let mut exchange = exchange();
        exchange.response.first_write_bounded = true;
        let mut worker_exchange = worker_exchange(200, "Prediction success");
        (worker_exchange.arrival_ns, worker_exchange.first_write_ns) = (None, None);
        let timing = WorkerTiming::new(&exchange, &worker_exchange);
        let known = (timing.internal_queue_ns, timing.worker_ns, timing.relay_ns);
        assert_eq!(known, (None, None, None));
        assert_eq!(timing.latency_ns, 290);
    }

    #[test]
    fn end_follows_code_and_message() {
        for (code, message, expected) in [
            (200, "Prediction success", WorkEnd::Predicted),
            (503, "Invalid model predict output", WorkEnd::Refused),
            (503, "Prediction failed", WorkEnd::Failed),
            (507, "Out of resources", WorkEnd::Failed),
        ] {
            let timing = WorkerTiming::new(&exchange(), &worker_exchange(code, message));
            assert_eq!(timing.end, expected, "{code} {message}");
        }
    }

    #[test]
    fn status_of_each_request_is_in_the_reply() {
        let response = BatchedResponse {
            id: Some("a".into()),
            http_status: Some(400),
            stream_next: None,
        };
        for (code, id, expected) in [
            (200, "a", Some(400)),
            (200, "b", None),
            (413, "b", Some(507)),
            (503, "b", Some(503)),
            (-1, "b", None),
        ] {
            let reply = Reply {
                code,
                message: None,
                responses: vec![response.clone()],
                whole: true,
            };
            assert_eq!(torchserve_status(&reply, id), expected, "{code} {id}");
        }
    }
}
