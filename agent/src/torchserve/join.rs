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
mod tests {
    use crate::{
        exchange::{Peer, Request, Response},
        torchserve::{
            frames::{
                command,
                reply::{self, Reply},
            },
            timing::WorkEnd,
            worker::WorkerId,
        },
    };

    use super::*;

    const ID: Uuid = Uuid::from_u128(7);
    const PEER: Peer = Peer {
        cookie: 1,
        tgid: 2,
        local_port: None,
        peer_port: None,
        accepted_ns: None,
    };

    fn frontend_exchange(
        purpose: Purpose,
        id: Option<Uuid>,
        grpc_status: Option<u32>,
    ) -> FrontendExchange {
        FrontendExchange {
            exchange: Exchange {
                peer: PEER,
                request: Request {
                    index: 0,
                    method: "POST".into(),
                    target: "/predictions/tiny".into(),
                    arrival_ns: None,
                    first_read_ns: 1,
                    last_read_ns: 100,
                    bytes: 3,
                    complete: true,
                    named: None,
                },
                response: Response {
                    status: 400,
                    first_write_ns: 500,
                    first_write_bounded: false,
                    last_write_ns: Some(501),
                    bytes: 6,
                    request_id: id,
                    grpc_status,
                    chunks: None,
                },
            },
            server: Server {
                name: "torchserve".into(),
                model: "java".into(),
                version: "default".into(),
                model_is_set: false,
                is_frontend: true,
                is_internal: false,
                entry: None,
            },
            route: Route {
                purpose,
                model: Some("tiny".into()),
                version: None,
            },
        }
    }

    fn worker_exchange(has_headers: bool) -> WorkerExchange {
        let id = Some(ID.to_string());
        WorkerExchange {
            peer: PEER,
            command: WorkerCommand::Predict {
                requests: vec![command::BatchedRequest {
                    id: id.clone(),
                    has_headers,
                    kind: RequestKind::Predict,
                }],
                whole: true,
            },
            idle_since_ns: None,
            dispatched_ns: None,
            arrival_ns: Some(200),
            last_read_ns: 210,
            reply: Reply {
                code: 200,
                message: None,
                responses: vec![reply::BatchedResponse {
                    id,
                    http_status: Some(400),
                    stream_next: None,
                }],
                whole: true,
            },
            first_write_ns: Some(400),
            last_write_ns: 410,
            reply_read_ns: None,
        }
    }

    fn tiny() -> Arc<str> {
        "tiny".into()
    }

    fn worker_sides(joined: &[Joined]) -> Vec<WorkerSide> {
        let worker_side = joined.iter().map(|joined| match joined {
            Joined::Response(_, worker_side, _) => *worker_side,
            Joined::Abandoned(observation) => observation.worker_side,
        });
        worker_side.collect()
    }

    #[test]
    fn questions_about_the_server_do_not_wait() {
        let mut hop_joiner = HopJoiner::default();
        let mut out = Vec::new();
        hop_joiner.on_response(
            frontend_exchange(Purpose::Admin, Some(ID), None),
            0,
            &mut out,
        );
        assert_eq!(worker_sides(&out), [WorkerSide::NoWorker]);
    }

    #[test]
    fn a_request_is_joined_by_its_number_and_a_call_by_its_order() {
        for grpc_status in [None, Some(0)] {
            let mut hop_joiner = HopJoiner::default();
            let (mut out, mut lost) = (Vec::new(), Vec::new());
            let id = grpc_status.is_none().then_some(ID);
            hop_joiner.on_response(
                frontend_exchange(Purpose::Inference, id, grpc_status),
                0,
                &mut out,
            );
            assert!(out.is_empty());
            let worker_exchange = worker_exchange(grpc_status.is_none());
            hop_joiner.on_worker_exchange(worker_exchange, Some(&tiny()), 1, &mut out, &mut lost);
            hop_joiner.tick(CALL_WAIT_NS, |_| None, &mut out, &mut lost);
            let [WorkerSide::Observed(timing)] = worker_sides(&out)[..] else {
                panic!("{out:?}")
            };
            assert_eq!(
                (timing.internal_queue_ns, timing.latency_ns),
                (Some(100), 310)
            );
            assert!(lost.is_empty());
        }
    }

    #[test]
    fn where_arrivals_are_unknown_a_handover_tells_the_queue_time() {
        let worker = WorkerId {
            frontend: 1,
            number: 9000,
        };
        for (dispatched_ns, expected_ns) in [(Some(150), Some(50)), (None, None)] {
            let mut hop_joiner = HopJoiner::default();
            let (mut out, mut lost) = (Vec::new(), Vec::new());
            hop_joiner.dispatch_times.add_worker(PEER.tgid, worker);
            if let Some(at_ns) = dispatched_ns {
                hop_joiner.dispatch_times.on_dispatch(worker, at_ns);
            }
            hop_joiner.on_response(
                frontend_exchange(Purpose::Inference, Some(ID), None),
                0,
                &mut out,
            );
            let worker_exchange = WorkerExchange {
                idle_since_ns: Some(90),
                arrival_ns: None,
                ..worker_exchange(true)
            };
            hop_joiner.on_worker_exchange(worker_exchange, Some(&tiny()), 1, &mut out, &mut lost);
            let [WorkerSide::Observed(timing)] = worker_sides(&out)[..] else {
                panic!("{out:?}")
            };
            assert_eq!(timing.internal_queue_ns, expected_ns);
        }
    }

    #[test]
    fn a_worker_that_was_not_seen_is_not_waited_for_long() {
        let mut hop_joiner = HopJoiner::default();
        let (mut out, mut lost) = (Vec::new(), Vec::new());
        hop_joiner.on_response(
            frontend_exchange(Purpose::Inference, Some(ID), None),
            0,
            &mut out,
        );
        hop_joiner.on_response(
            frontend_exchange(Purpose::Inference, None, Some(14)),
            0,
            &mut out,
        );
        hop_joiner.tick(1_000_000_000, |_| None, &mut out, &mut lost);
        assert_eq!(
            worker_sides(&out),
            [WorkerSide::NotObserved, WorkerSide::NotObserved]
        );
        assert!(lost.is_empty());
    }

    #[test]
    fn an_response_other_than_the_workers_is_the_frontends_own() {
        let mut hop_joiner = HopJoiner::default();
        let (mut out, mut lost) = (Vec::new(), Vec::new());
        let mut timed_out = frontend_exchange(Purpose::Inference, Some(ID), None);
        timed_out.exchange.response.status = 503;
        hop_joiner.on_response(timed_out, 0, &mut out);
        hop_joiner.on_worker_exchange(worker_exchange(true), Some(&tiny()), 1, &mut out, &mut lost);
        assert_eq!(worker_sides(&out), [WorkerSide::NotObserved]);
    }

    #[test]
    fn a_call_whose_client_left_counts_at_once() {
        let identity = Identity {
            model: tiny(),
            version: "default".into(),
            server: "torchserve".into(),
        };
        let mut out = Vec::new();
        HopJoiner::default().on_abandoned_grpc(identity, &mut out);
        let [Joined::Abandoned(observation)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(
            (observation.status, observation.worker_side),
            (499, WorkerSide::NotObserved)
        );
    }

    #[test]
    fn what_was_done_for_a_client_that_left_is_told_with_its_status() {
        let mut hop_joiner = HopJoiner::default();
        let (mut out, mut lost) = (Vec::new(), Vec::new());
        let identity = Identity {
            model: tiny(),
            version: "1.0".into(),
            server: "torchserve".into(),
        };
        hop_joiner.on_abandoned(identity.clone(), 100, 0);
        hop_joiner.on_worker_exchange(worker_exchange(true), Some(&tiny()), 1, &mut out, &mut lost);
        hop_joiner.tick(1_000_000_000, |_| Some(tiny()), &mut out, &mut lost);
        assert!(out.is_empty());
        hop_joiner.tick(3_000_000_000, |_| Some(tiny()), &mut out, &mut lost);
        let [Joined::Abandoned(observation)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(observation.identity, identity);
        assert_eq!(observation.status, 400);
        let WorkerSide::Observed(timing) = observation.worker_side else {
            panic!("{observation:?}")
        };
        assert_eq!((timing.latency_ns, timing.end), (310, WorkEnd::Predicted));
        hop_joiner.finish(&mut out);
        assert!(lost.is_empty() && out.len() == 1);
    }
}
