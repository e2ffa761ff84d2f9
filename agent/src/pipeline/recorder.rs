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
    observation::Observation,
    request_log::RequestLog,
    torchserve::{
        exchange::WorkerExchange,
        join::{FrontendExchange, JoinSink, Joined},
        timing::WorkerSide,
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
        frontend_exchange: FrontendExchange,
        worker_side: WorkerSide,
        worker: Option<&WorkerExchange>,
    ) {
        let FrontendExchange {
            exchange,
            server,
            route,
        } = frontend_exchange;
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
    fn joined(&mut self, joined: Joined) {
        match joined {
            Joined::Response(exchange, worker_side, worker) => {
                self.observe(*exchange, worker_side, worker.as_deref());
            }
            Joined::Abandoned(request) => {
                self.metrics
                    .observe_abandoned(&Observation::of_abandoned(request));
            }
        }
    }

    fn lost(&mut self, loss: Loss) {
        self.metrics.add(&families::RECORDS_LOST, &[loss.name()], 1);
    }
}
