//! Makes the sample of one finished request: the parts of its duration, and who was busy with it.
//!
//! Does not depend on: windows, verdicts.

use serde::{Deserialize, Serialize};

use crate::{
    exchange::Exchange,
    history::occupancy::Occupied,
    observation::Observation,
    torchserve::{exchange::WorkerExchange, timing::WorkerSide},
    verdict::component::Parts,
};

/// One finished request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it ended, ns.
    pub at_ns: u64,
    /// The parts of its duration.
    pub parts: Parts,
    /// Status code; 0 if unknown.
    pub status: u16,
    /// Whether it was the first of its connection.
    pub is_first: bool,
    /// The thread that read it; `None` if unknown.
    pub reader: Option<Occupied>,
    /// The worker process that handled it; `None` if there is none.
    pub worker: Option<Occupied>,
}

impl Sample {
    /// Makes the sample of an exchange.
    pub fn new(
        exchange: &Exchange,
        worker: Option<&WorkerExchange>,
        observation: &Observation,
    ) -> Self {
        let Exchange {
            peer,
            request,
            response,
        } = exchange;
        let at_ns = response.last_write_ns.unwrap_or(response.first_write_ns);
        let is_first = request.index == 0;
        let accept_ns = match (is_first, peer.accepted_ns, request.arrival_ns) {
            (false, _, _) => Some(0),
            (true, Some(accepted_ns), Some(arrival_ns)) => {
                Some(accepted_ns.saturating_sub(arrival_ns))
            }
            (true, _, _) => None,
        };
        let last_arrival_ns = request.last_arrival_ns;
        let sending_ns = last_arrival_ns.map(|ns| ns.saturating_sub(request.first_read_ns));
        let (inner_queue_ns, worker_ns, worker_starved_ns) = match &observation.worker_side {
            WorkerSide::Observed(timing) => (
                timing.internal_queue_ns,
                timing.worker_ns,
                timing.starved_ns,
            ),
            WorkerSide::NoWorker | WorkerSide::NotObserved => (None, None, None),
        };
        let stages = &observation.stages;
        Self {
            at_ns,
            parts: Parts {
                queue_ns: stages.queue_ns,
                accept_ns,
                receive_ns: Some(stages.receive_ns),
                sending_ns: match stages.receive_ns {
                    0 => Some(0),
                    receive_ns => sending_ns.map(|ns| ns.min(receive_ns)),
                },
                handler_ns: stages.handler_ns,
                starved_ns: response.thread_wait.map(|wait| wait.starved_ns),
                inner_queue_ns,
                worker_ns,
                worker_starved_ns,
                stream_ns: stages.stream_ns,
                undrained_ns: response.undrained_ns,
            },
            status: observation.status,
            is_first,
            reader: request.reader_tid.map(|id| Occupied {
                id,
                from_ns: request.first_read_ns,
                to_ns: at_ns,
                handed_over: response.thread_wait.is_none(),
            }),
            worker: worker.map(|worker| Occupied {
                id: worker.peer.tgid,
                from_ns: worker.last_read_ns,
                to_ns: worker.last_write_ns,
                handed_over: false,
            }),
        }
    }
}
