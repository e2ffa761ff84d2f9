//! Records what was measured: counts it in the metrics, and writes requests to the log.
//!
//! The last step of the pipeline.
//! Does not depend on: where exchanges come from.

use std::{io, sync::Arc};

use tracing::warn;

use crate::{
    catalogue::route::Purpose,
    exchange::event::Loss,
    metrics::{Metrics, families},
    observation::{Observation, WorkerSide},
    request_log::RequestLog,
    torchserve::{
        exchange::WorkerExchange,
        join::{Answered, JoinSink, Settled},
    },
};

/// Where measurements go.
pub struct Recorder {
    /// The metrics.
    pub(super) metrics: Arc<Metrics>,
    log: Option<RequestLog>,
}

impl Recorder {
    /// Records to these; `None`: no log is kept.
    pub fn new(metrics: Arc<Metrics>, log: Option<RequestLog>) -> Self {
        Self { metrics, log }
    }

    /// Writes out what the log still buffers.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log
            && let Err(err) = log.flush()
        {
            self.end_log(&err);
        }
    }

    fn observe(
        &mut self,
        answered: Answered,
        worker_side: WorkerSide,
        worker: Option<&WorkerExchange>,
    ) {
        let Answered {
            exchange,
            server,
            route,
        } = answered;
        let observation = Observation::new(&exchange, server, route, worker_side);
        self.metrics.observe(&observation);
        if observation.purpose == Purpose::Internal {
            return;
        }
        if let Some(log) = &mut self.log
            && let Err(err) = log.write(&exchange, worker, &observation)
        {
            self.end_log(&err);
        }
    }

    fn end_log(&mut self, err: &io::Error) {
        warn!(%err, "request log ended");
        self.log = None;
    }
}

impl JoinSink for Recorder {
    fn settled(&mut self, settled: Settled) {
        match settled {
            Settled::Response(answered, worker_side, worker) => {
                self.observe(answered, worker_side, worker.as_deref());
            }
            Settled::Abandoned(observation) => self.metrics.observe_abandoned(&observation),
        }
    }

    fn lost(&mut self, loss: Loss) {
        self.metrics.add(&families::RECORDS_LOST, &[loss.name()], 1);
    }
}
