//! Records what was measured: counts it in the metrics, and writes requests to the log.
//!
//! The last step of the pipeline.
//! Does not depend on: where exchanges come from.

use std::{io, sync::Arc};

use tracing::{info, warn};

use crate::{
    catalogue::route::Purpose,
    discovery::roster::{self, ServedTimes},
    exchange::{Exchange, Peer},
    history::History,
    identity::Identity,
    metrics::{self, Metrics},
    observation::Observation,
    request_log::RequestLog,
    torchserve::{
        exchange::WorkerExchange,
        join::{FrontendExchange, JoinSink, Joined},
        timing::WorkerSide,
    },
};

/// Most models of one process between two publications.
const MAX_IDENTITIES: usize = 64;

/// Where measurements go.
pub struct Recorder {
    /// The metrics.
    pub(super) metrics: Arc<Metrics>,
    log: Option<RequestLog>,
    /// Whether the log was rotated and cannot be opened again.
    log_is_stuck: bool,
    /// Workers whose replies have no response, until they are counted.
    pub(super) unpaired: Vec<Peer>,
    /// What the requests of each model spent in the last minutes; `None`: not kept.
    pub(super) history: Option<Arc<History>>,
    /// Time that each process spent on requests since it was published; `None`: not kept.
    pub(super) served: Option<ServedTimes>,
}

impl Recorder {
    /// Records to these; `None`: no log is kept.
    pub fn new(metrics: Arc<Metrics>, log: Option<RequestLog>) -> Self {
        Self {
            metrics,
            log,
            log_is_stuck: false,
            unpaired: Vec::new(),
            history: None,
            served: None,
        }
    }

    /// Writes out what the log still buffers, and continues in a new file if the log was rotated.
    pub fn flush_log(&mut self, now_ns: u64) {
        let Some(log) = &mut self.log else {
            return;
        };
        match log.rotate(now_ns) {
            Ok(true) => {
                self.log_is_stuck = false;
                info!("request log reopened");
            }
            Ok(false) => {}
            Err(err) => {
                if !std::mem::replace(&mut self.log_is_stuck, true) {
                    warn!(%err, "request log not reopened: it continues in the old file");
                }
            }
        }
        if let Err(err) = log.flush() {
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
            hop,
        } = frontend_exchange;
        let mut observation = Observation::new(&exchange, server, route, hop, worker_side);
        if let Some(history) = &self.history
            && observation.purpose == Purpose::Inference
        {
            let times = metrics::torchserve_times(&observation);
            history.add(&exchange, worker, &mut observation, &times);
        }
        self.metrics.observe(&observation);
        if let Some(served) = &mut self.served
            && observation.purpose == Purpose::Inference
            // Clients may name any model in a request that the server refuses.
            && !(400..=499).contains(&observation.status)
        {
            let (pid, ns) = time_served(&exchange, worker);
            add_served(served, pid, &observation.identity, ns);
        }
        if observation.purpose == Purpose::Internal {
            return;
        }
        if let Some(log) = &mut self.log
            && let Err(err) = log.write(&exchange, worker, &observation)
        {
            self.end_log(&err);
        }
    }

    /// Continues in another log; `None`: in none.
    pub(super) fn replace_log(&mut self, log: Option<RequestLog>) {
        if let Some(Err(err)) = self.log.as_mut().map(RequestLog::flush) {
            warn!(%err, "the last lines of the request log are lost");
        }
        self.log = log;
        self.log_is_stuck = false;
    }

    fn end_log(&mut self, err: &io::Error) {
        warn!(%err, "request log ended");
        self.log = None;
    }
}

/// Returns the process that worked on a request, a worker if there is one, and how long: from the last byte that it read
/// to the last byte that it wrote, as far as that was observed.
fn time_served(exchange: &Exchange, worker: Option<&WorkerExchange>) -> (u32, u64) {
    if let Some(worker) = worker {
        let ns = worker.last_write_ns.saturating_sub(worker.last_read_ns);
        return (worker.peer.tgid, ns);
    }
    let Exchange {
        peer,
        request,
        response,
    } = exchange;
    let end_ns = response.last_write_ns.unwrap_or(response.first_write_ns);
    (peer.tgid, end_ns.saturating_sub(request.last_read_ns))
}

/// Adds time of a process. If clients name too many models between two publications, the rest is one model.
fn add_served(served: &mut ServedTimes, pid: u32, identity: &Identity, ns: u64) {
    let times = served.entry(pid).or_default();
    if let Some(sum) = times.get_mut(identity) {
        *sum += ns;
        return;
    }
    let identity = match times.len() < MAX_IDENTITIES {
        true => identity.clone(),
        false => roster::other(identity),
    };
    *times.entry(identity).or_default() += ns;
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

    fn unpaired(&mut self, peer: Peer) {
        self.unpaired.push(peer);
    }
}
