//! Between what a frontend frontend_exchange and what is counted of it: the wait for its worker's half.
//!
//! Decides which worker's exchange belongs to which request; what is made of both is `latency`'s. Reads no clock and no
//! procfs.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    catalogue::route::{Purpose, Route},
    exchange::{
        Exchange,
        event::{Event, Loss},
    },
    identity::{Identity, Server},
    observation::{
        GRPC_CANCELLED, GRPC_INTERNAL, Observation, Protocol, Stages, WorkerSide, http_status_of,
    },
    torchserve::{
        by_id::{JoinById, Pairing},
        by_order::{JoinByOrder, WaitingRequest},
        dispatch::DispatchTimes,
        exchange::WorkerExchange,
        frames::command::{RequestKind, WorkerCommand},
        timing::{WorkerTiming, torchserve_status},
    },
};

/// How long a call's answer waits until every reply that was written before it was told, ns.
const CALL_WAIT_NS: u64 = 150_000_000;
/// How long a reply waits for the end of the call that it belongs to, and an abandoned request for its reply, ns.
const REPLY_WAIT_NS: u64 = 150_000_000_000;

/// An exchange of a frontend, and what its process and its path say of it.
#[derive(Debug)]
pub struct FrontendExchange {
    /// What was request and frontend_exchange.
    pub exchange: Exchange,
    /// Who frontend_exchange.
    pub server: Server,
    /// What the path says.
    pub route: Route,
}

/// What is to be counted.
#[derive(Debug)]
pub enum Joined {
    /// An answer, and what lay behind it.
    Response(FrontendExchange, WorkerSide, Option<Arc<WorkerExchange>>),
    /// What a worker did for a client that had left.
    Abandoned(Observation),
}

/// What waits for its other half, of every frontend.
#[derive(Debug, Default)]
pub struct HopJoiner {
    by_id: JoinById<FrontendExchange>,
    /// Calls of gRPC, whose answers do not tell their number.
    grpc_by_order: JoinByOrder<FrontendExchange>,
    /// Requests whose clients left before the answer.
    abandoned: JoinByOrder<(Identity, u64)>,
    /// When frames were handed on.
    pub dispatch_times: DispatchTimes,
}

impl HopJoiner {
    /// Takes in an answer at `now_ns`: it goes on at once unless its worker's half is to come.
    pub fn on_response(
        &mut self,
        frontend_exchange: FrontendExchange,
        now_ns: u64,
        out: &mut Vec<Joined>,
    ) {
        if !frontend_exchange.server.is_frontend
            || frontend_exchange.route.purpose != Purpose::Inference
        {
            out.push(Joined::Response(
                frontend_exchange,
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
            out.extend(joined.map(Joined::from));
            return;
        }
        // An INTERNAL is the frontend's own: no worker has such a model, or its worker died.
        if frontend_exchange.exchange.is_grpc()
            && response.grpc_status != Some(GRPC_INTERNAL)
            && let Some(model) = frontend_exchange.route.model.as_deref().map(Arc::from)
        {
            let waiting = WaitingRequest {
                last_read_ns: request.last_read_ns,
                responded_ns: Some(response.last_write_ns.unwrap_or(response.first_write_ns)),
                succeeded: response.grpc_status.map(|status| status == 0),
                request: frontend_exchange,
            };
            let evicted = self.grpc_by_order.add_request(&model, waiting, now_ns);
            out.extend(evicted.map(|response| joined(response, None)));
            return;
        }
        out.push(Joined::Response(
            frontend_exchange,
            WorkerSide::NotObserved,
            None,
        ));
    }

    /// Takes in a request of a frontend, read at `last_read_ns`, whose client left: its worker may not know.
    pub fn on_abandoned(&mut self, identity: Identity, last_read_ns: u64, now_ns: u64) {
        let model = identity.model.clone();
        let waiting = WaitingRequest {
            last_read_ns,
            responded_ns: None,
            succeeded: None,
            request: (identity, last_read_ns),
        };
        // One that gives way was counted as unfinished already.
        let _ = self.abandoned.add_request(&model, waiting, now_ns);
    }

    /// Takes in a call of gRPC whose client left: TorchServe counted it when it came.
    pub fn on_abandoned_grpc(&mut self, identity: Identity, out: &mut Vec<Joined>) {
        out.push(Joined::Abandoned(Observation {
            identity,
            purpose: Purpose::Inference,
            protocol: Protocol::Grpc(Some(GRPC_CANCELLED)),
            status: http_status_of(GRPC_CANCELLED),
            stages: Stages::UNSEEN,
            worker_side: WorkerSide::NotObserved,
            stream: None,
            operation: None,
        }));
    }

    /// Takes in what a worker of `model` did, at `now_ns`; pushes what is lost to `lost`.
    pub fn on_worker_exchange(
        &mut self,
        worker_exchange: WorkerExchange,
        model: Option<&Arc<str>>,
        now_ns: u64,
        out: &mut Vec<Joined>,
        lost: &mut Vec<Event>,
    ) {
        // Where nobody tells of arrivals, the worker has the frame when it has read it.
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
            .on_worker_exchange(&worker_exchange, now_ns, lost);
        out.extend(joined.into_iter().map(Joined::from));
        for _ in 0..grpc_requests_in(&worker_exchange.command) {
            let is_lost = model.is_none_or(|model| {
                self.grpc_by_order
                    .add_reply(model, worker_exchange.clone(), now_ns)
            });
            if is_lost {
                lost.push(Event::Lost(Loss::ReplyUnpaired));
            }
        }
    }

    /// Lets go, or gives up, what has waited too long at `now_ns`. `model_of` tells the model of a worker's process.
    pub fn tick(
        &mut self,
        now_ns: u64,
        model_of: impl Fn(u32) -> Option<Arc<str>>,
        out: &mut Vec<Joined>,
        lost: &mut Vec<Event>,
    ) {
        let abandoned = &mut self.abandoned;
        self.by_id.offer_overdue(now_ns, |id, worker_exchange| {
            let model = model_of(worker_exchange.peer.tgid);
            let claimed = model.and_then(|model| abandoned.claim_request(&model, worker_exchange));
            let observation = claimed.and_then(|(identity, last_read_ns)| {
                of_abandoned(identity, last_read_ns, id, worker_exchange)
            });
            let adopted = observation.is_some();
            out.extend(observation.map(Joined::Abandoned));
            adopted
        });
        let expired = self.by_id.tick(now_ns, lost);
        out.extend(expired.into_iter().map(Joined::from));
        let grpc_by_order = self.grpc_by_order.pair_due(now_ns, CALL_WAIT_NS);
        out.extend(
            grpc_by_order
                .into_iter()
                .map(|(response, worker)| joined(response, worker)),
        );
        let replies = self.grpc_by_order.expire(now_ns, REPLY_WAIT_NS);
        lost.extend((0..replies).map(|_| Event::Lost(Loss::ReplyUnpaired)));
        self.abandoned.expire(now_ns, REPLY_WAIT_NS);
    }

    /// Lets every answer go that still waits.
    pub fn finish(&mut self, out: &mut Vec<Joined>) {
        self.tick(u64::MAX, |_| None, out, &mut Vec::new());
    }
}

/// Requests of a batch that came over gRPC.
fn grpc_requests_in(command: &WorkerCommand) -> usize {
    let WorkerCommand::Predict { requests, .. } = command else {
        return 0;
    };
    let grpc_by_order = requests
        .iter()
        .filter(|request| !request.has_headers && request.kind == RequestKind::Predict);
    grpc_by_order.count()
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
    Joined::Response(response, worker_side, worker)
}

/// Whether the frontend frontend_exchange otherwise than the worker had replied: it gave up waiting for that, and counts no times.
fn contradicts(exchange: &Exchange, worker_exchange: &WorkerExchange) -> bool {
    let response = &exchange.response;
    let replied = response
        .request_id
        .and_then(|id| torchserve_status(&worker_exchange.reply, &id.to_string()));
    replied.is_some_and(|status| status != response.status)
}

/// What TorchServe counts of a request whose client had left; `None` where the reply does not tell its status.
fn of_abandoned(
    identity: Identity,
    last_read_ns: u64,
    id: Uuid,
    worker_exchange: &WorkerExchange,
) -> Option<Observation> {
    let status = torchserve_status(&worker_exchange.reply, &id.to_string())?;
    Some(Observation {
        identity,
        purpose: Purpose::Inference,
        protocol: Protocol::Http,
        status,
        stages: Stages::UNSEEN,
        worker_side: WorkerSide::Observed(WorkerTiming::for_abandoned(
            last_read_ns,
            worker_exchange,
        )),
        stream: None,
        operation: None,
    })
}

#[cfg(test)]
mod tests;
