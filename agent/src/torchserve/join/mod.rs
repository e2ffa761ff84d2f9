//! Joins what a TorchServe frontend responded with what its worker did for the request.
//!
//! HTTP requests are joined by their ID, gRPC requests by model and order, requests over TLS by order. A response waits here until its worker's
//! exchange is known, or is overdue. The pipeline makes the observation from the result.
//! Does not depend on: the clock, procfs, observations.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    catalogue::route::{ModelSource, Purpose, Route},
    exchange::{Exchange, Peer},
    identity::{Hop, Identity, Server},
    protocol::grpc,
    torchserve::{
        by_id::{JoinById, Pairing},
        by_order::{JoinByOrder, WaitingRequest},
        dispatch::DispatchTimes,
        exchange::WorkerExchange,
        frames::command::{RequestKind, WorkerCommand},
        timing::{WorkerSide, WorkerTiming, torchserve_status},
    },
};

/// How long a gRPC response waits until all replies that were written before it have been reported, ns.
const GRPC_WAIT_NS: u64 = 150_000_000;
/// How long it takes at most until these are reported, ns.
const GRPC_KNOWN_NS: u64 = 60_000_000;
/// How long a response that was not read waits until all replies that were written before it are overdue by their ID, and those
/// of the responses that came soon after it, ns.
const UNREAD_WAIT_NS: u64 = 2_500_000_000;
const UNREAD_KNOWN_NS: u64 = 2_100_000_000;
/// Key of the queue of such responses, whose model is not known.
const UNREAD: &str = "";
/// How long a reply waits for the end of its gRPC request, and an abandoned request for its reply, ns.
const REPLY_WAIT_NS: u64 = 150_000_000_000;

/// A request and its response, with the server and the route that they belong to.
#[derive(Debug)]
pub struct FrontendExchange {
    /// The request and its response.
    pub exchange: Exchange,
    /// The server that responded: a frontend, or a server without workers.
    pub server: Server,
    /// Purpose and model of the request's path.
    pub route: Route,
    /// Where it stands if a gateway sent it on.
    pub hop: Hop,
}

/// A request that is ready to be counted.
#[derive(Debug)]
pub enum Joined {
    /// A response, its worker's side and, if a worker was observed, the worker's exchange.
    Response(
        Box<FrontendExchange>,
        WorkerSide,
        Option<Arc<WorkerExchange>>,
    ),
    /// A request whose client left before the response.
    Abandoned(AbandonedRequest),
}

/// A request whose client left before the response, as TorchServe counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbandonedRequest {
    /// Who served it.
    pub identity: Identity,
    /// HTTP status that TorchServe counts; for gRPC, the one that matches `grpc_status`.
    pub status: u16,
    /// `grpc-status`; `None` for HTTP.
    pub grpc_status: Option<u32>,
    /// What the worker did.
    pub worker_side: WorkerSide,
}

/// Receives what the join releases.
pub trait JoinSink {
    /// Processes a request that is ready to be counted.
    fn joined(&mut self, joined: Joined);

    /// Processes a reply, of the worker at `peer`, that has no response.
    fn unpaired(&mut self, peer: Peer);
}

/// Joins the two by_id of the requests of every frontend.
#[derive(Debug, Default)]
pub struct HopJoiner {
    by_id: JoinById<FrontendExchange>,
    /// gRPC requests: their responses carry no request ID.
    grpc_by_order: JoinByOrder<FrontendExchange>,
    /// HTTP requests over TLS: the agent does not read their IDs.
    unread: JoinByOrder<FrontendExchange>,
    /// HTTP requests whose clients left before the response, and when the frontend had read each, ns.
    abandoned: JoinByOrder<(Identity, u64)>,
    /// When the hop_joiner dispatched frames.
    pub dispatch_times: DispatchTimes,
}

impl HopJoiner {
    /// Records a response at `now_ns`. It is ready at once, unless a worker's exchange is expected.
    pub fn on_response(
        &mut self,
        frontend_exchange: FrontendExchange,
        now_ns: u64,
        out: &mut dyn JoinSink,
    ) {
        if !frontend_exchange.server.is_frontend
            || frontend_exchange.route.purpose != Purpose::Inference
        {
            out.joined(Joined::Response(
                frontend_exchange.into(),
                WorkerSide::NoWorker,
                None,
            ));
            return;
        }
        let Exchange {
            request, response, ..
        } = &frontend_exchange.exchange;
        if let Some(id) = response.request_id {
            let joined = self.by_id.on_response(id, frontend_exchange, now_ns);
            if let Some(pairing) = joined {
                out.joined(pairing.into());
            }
            return;
        }
        if response.status == 0 && !frontend_exchange.exchange.is_grpc() {
            let waiting = WaitingRequest {
                last_read_ns: request.last_read_ns,
                answered_ns: Some(response.first_write_ns),
                responded_ns: Some(response.last_write_ns.unwrap_or(u64::MAX)),
                succeeded: None,
                request: frontend_exchange,
            };
            let evicted = self.unread.add_request(&UNREAD.into(), waiting, now_ns);
            if let Some(response) = evicted {
                out.joined(joined(response, None));
            }
            return;
        }
        // INTERNAL comes from the frontend itself: no worker has the model, or the worker died.
        if frontend_exchange.exchange.is_grpc()
            && response.grpc_status != Some(grpc::INTERNAL)
            && let Some(model) = frontend_exchange.route.model.as_deref().map(Arc::from)
        {
            let waiting = WaitingRequest {
                last_read_ns: request.last_read_ns,
                answered_ns: Some(response.first_write_ns),
                responded_ns: Some(response.last_write_ns.unwrap_or(response.first_write_ns)),
                succeeded: response.grpc_status.map(|status| status == 0),
                request: frontend_exchange,
            };
            let evicted = self.grpc_by_order.add_request(&model, waiting, now_ns);
            if let Some(response) = evicted {
                out.joined(joined(response, None));
            }
            return;
        }
        out.joined(Joined::Response(
            frontend_exchange.into(),
            WorkerSide::NotObserved,
            None,
        ));
    }

    /// Records an HTTP request, read by its frontend at `last_read_ns`, whose client left. Its worker may still process it.
    pub fn on_abandoned(&mut self, identity: Identity, last_read_ns: u64, now_ns: u64) {
        let model = identity.model.clone();
        let waiting = WaitingRequest {
            last_read_ns,
            answered_ns: None,
            responded_ns: None,
            succeeded: None,
            request: (identity, last_read_ns),
        };
        // A request that is evicted here was already counted as unfinished.
        let _ = self.abandoned.add_request(&model, waiting, now_ns);
    }

    /// Records a gRPC request whose client left: TorchServe counted it on arrival.
    pub fn on_abandoned_grpc(&mut self, identity: Identity, out: &mut dyn JoinSink) {
        out.joined(Joined::Abandoned(AbandonedRequest {
            identity,
            status: grpc::http_status_of(grpc::CANCELLED),
            grpc_status: Some(grpc::CANCELLED),
            worker_side: WorkerSide::NotObserved,
        }));
    }

    /// Records the exchange of a worker of `model`, at `now_ns`.
    pub fn on_worker_exchange(
        &mut self,
        worker_exchange: WorkerExchange,
        model: Option<&Arc<str>>,
        now_ns: u64,
        out: &mut dyn JoinSink,
    ) {
        // If arrivals are not observed, the frame reached the worker at the latest when the worker read it.
        let reached_ns = worker_exchange
            .arrival_ns
            .unwrap_or(worker_exchange.last_read_ns);
        let dispatched_ns = self.dispatch_times.find(
            worker_exchange.peer.tgid,
            worker_exchange.idle_since_ns,
            reached_ns,
        );
        let worker_exchange = Arc::new(WorkerExchange {
            dispatched_ns,
            ..worker_exchange
        });
        let joined = self
            .by_id
            .on_worker_exchange(&worker_exchange, now_ns, |peer| out.unpaired(peer));
        for pairing in joined {
            out.joined(pairing.into());
        }
        for _ in 0..grpc_requests_in(&worker_exchange.command) {
            let is_lost = model.is_none_or(|model| {
                self.grpc_by_order
                    .add_reply(model, worker_exchange.clone(), now_ns)
            });
            if is_lost {
                out.unpaired(worker_exchange.peer);
            }
        }
    }

    /// Releases what has waited long enough at `now_ns`, and drops what has waited too long. `model_of` returns the model
    /// of a worker process.
    pub fn tick(
        &mut self,
        now_ns: u64,
        model_of: impl Fn(u32) -> Option<Arc<str>>,
        out: &mut dyn JoinSink,
    ) {
        let abandoned = &mut self.abandoned;
        self.by_id.offer_overdue(now_ns, |id, worker_exchange| {
            let model = model_of(worker_exchange.peer.tgid);
            let claimed = model.and_then(|model| abandoned.claim_request(&model, worker_exchange));
            let request = claimed.and_then(|(identity, last_read_ns)| {
                abandoned_request(identity, last_read_ns, id, worker_exchange)
            });
            let is_claimed = request.is_some();
            if let Some(request) = request {
                out.joined(Joined::Abandoned(request));
            }
            is_claimed
        });
        self.pair_unread(now_ns, &model_of, out);
        for expired in self.by_id.tick(now_ns, |peer| out.unpaired(peer)) {
            out.joined(expired.into());
        }
        let due = self
            .grpc_by_order
            .pair_due(now_ns, GRPC_KNOWN_NS, GRPC_WAIT_NS);
        for (response, worker) in due {
            out.joined(joined(response, worker));
        }
        let replies = self.grpc_by_order.expire(now_ns, REPLY_WAIT_NS);
        for reply in replies {
            out.unpaired(reply.peer);
        }
        self.abandoned.expire(now_ns, REPLY_WAIT_NS);
    }

    /// Pairs the responses that were not read with the replies that belong to no other one. The worker says which model it
    /// was.
    fn pair_unread(
        &mut self,
        now_ns: u64,
        model_of: impl Fn(u32) -> Option<Arc<str>>,
        out: &mut dyn JoinSink,
    ) {
        if self.unread.has_requests() {
            for reply in self.by_id.take_overdue(now_ns) {
                let peer = reply.peer;
                if self.unread.add_reply(&UNREAD.into(), reply, now_ns) {
                    out.unpaired(peer);
                }
            }
        }
        for (mut response, worker) in self
            .unread
            .pair_due(now_ns, UNREAD_KNOWN_NS, UNREAD_WAIT_NS)
        {
            let model = worker
                .as_ref()
                .and_then(|worker| model_of(worker.peer.tgid));
            if let Some(model) = model {
                response.route.model = Some(model.to_string());
                response.route.model_source = Some(ModelSource::Configuration);
            }
            out.joined(joined(response, worker));
        }
        for reply in self.unread.expire(now_ns, REPLY_WAIT_NS) {
            out.unpaired(reply.peer);
        }
    }

    /// Releases every response that still waits.
    pub fn finish(&mut self, out: &mut dyn JoinSink) {
        self.tick(u64::MAX, |_| None, out);
    }
}

/// Number of inference requests in a batch that came over gRPC.
fn grpc_requests_in(command: &WorkerCommand) -> usize {
    let WorkerCommand::Predict { requests, .. } = command else {
        return 0;
    };
    let over_grpc = requests
        .iter()
        .filter(|request| !request.has_headers && request.kind == RequestKind::Predict);
    over_grpc.count()
}

impl From<Pairing<FrontendExchange>> for Joined {
    fn from(Pairing { response, worker }: Pairing<FrontendExchange>) -> Self {
        joined(response, worker)
    }
}

fn joined(response: FrontendExchange, worker: Option<Arc<WorkerExchange>>) -> Joined {
    let worker = worker.filter(|worker_exchange| !contradicts(&response.exchange, worker_exchange));
    let worker_side = match &worker {
        Some(worker_exchange) => {
            WorkerSide::Observed(WorkerTiming::new(&response.exchange, worker_exchange))
        }
        None => WorkerSide::NotObserved,
    };
    Joined::Response(response.into(), worker_side, worker)
}

/// Whether the frontend's response has another status than the worker's reply. The frontend then timed out waiting for
/// the worker, and TorchServe counts no times.
fn contradicts(exchange: &Exchange, worker_exchange: &WorkerExchange) -> bool {
    let response = &exchange.response;
    let replied = response
        .request_id
        .and_then(|id| torchserve_status(&worker_exchange.reply, &id.to_string()));
    replied.is_some_and(|status| status != response.status)
}

/// What TorchServe counts for a request whose client had left; `None` if the reply contains no status for it.
fn abandoned_request(
    identity: Identity,
    last_read_ns: u64,
    id: Uuid,
    worker_exchange: &WorkerExchange,
) -> Option<AbandonedRequest> {
    let status = torchserve_status(&worker_exchange.reply, &id.to_string())?;
    let timing = WorkerTiming::for_abandoned(last_read_ns, worker_exchange);
    Some(AbandonedRequest {
        identity,
        status,
        grpc_status: None,
        worker_side: WorkerSide::Observed(timing),
    })
}

#[cfg(test)]
mod tests;
