//! What a frontend's worker adds to what is known of a request.

use crate::{
    exchange::Exchange,
    torchserve::{exchange::WorkerExchange, frames::reply::Reply},
};

/// What a frontend's worker did for a request, in the terms of TorchServe. Durations in ns of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerTiming {
    /// Last request byte read by the frontend to when its thread for the worker handed the request on, or, where that
    /// cannot be seen, to the first byte sent to the worker: `QueueTime`. `None`: neither was seen.
    pub internal_queue_ns: Option<u64>,
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

impl WorkerTiming {
    /// What `worker_exchange` adds to what the frontend's own exchange tells.
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

    /// What `worker_exchange` tells of a request that the frontend had read at `last_read_ns`, and had nobody to answer.
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

/// HTTP status that TorchServe answers request `id` of a batch with, that its worker replied to with `reply`; `None` where
/// the reply does not tell (frontend/server RestJob.java of 0.12.0).
pub fn torchserve_status(reply: &Reply, id: &str) -> Option<u16> {
    match reply.code {
        200 => {
            let mut responses = reply.responses.iter();
            let own = responses.find(|response| response.id.as_deref() == Some(id))?;
            own.http_status
        }
        // Its own limit on what is uploaded, told as the server's fault.
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
            last_write_ns: 1_309,
            reply_read_ns: Some(1_311),
        }
    }

    #[test]
    fn the_worker_splits_the_time_between_question_and_response() {
        let timing = WorkerTiming::new(&exchange(), &worker_exchange(200, "Prediction success"));
        let expected = WorkerTiming {
            internal_queue_ns: Some(10),
            worker_ns: Some(260),
            latency_ns: 290,
            relay_ns: Some(10),
            end: WorkEnd::Predicted,
        };
        assert_eq!(timing, expected);
    }

    #[test]
    fn the_queue_ends_when_the_request_is_handed_on() {
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
    fn times_of_the_worker_that_were_not_seen_are_unknown() {
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
    fn a_worker_ends_as_torchserve_says() {
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
    fn a_reply_tells_the_status_of_each_request() {
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
