//! Between what a frontend answered and what is counted of it: the wait for its worker's half.
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
        by_id::{JoinById, Joined},
        by_order::{JoinByOrder, Waiting},
        dispatch::DispatchTimes,
        exchange::WorkerExchange,
        frames::command::{Command, Purpose as Asked},
        timing::{WorkerTiming, torchserve_status},
    },
};

/// How long a call's answer waits until every reply that was written before it was told, ns.
const CALL_WAIT_NS: u64 = 150_000_000;
/// How long a reply waits for the end of the call that it belongs to, and an abandoned request for its reply, ns.
const REPLY_WAIT_NS: u64 = 150_000_000_000;

/// An exchange of a frontend, and what its process and its path say of it.
#[derive(Debug)]
pub struct Answered {
    /// What was asked and answered.
    pub exchange: Exchange,
    /// Who answered.
    pub server: Server,
    /// What the path says.
    pub route: Route,
}

/// What is to be counted.
#[derive(Debug)]
pub enum Settled {
    /// An answer, and what lay behind it.
    Response(Answered, WorkerSide, Option<Arc<WorkerExchange>>),
    /// What a worker did for a client that had left.
    Abandoned(Observation),
}

/// What waits for its other half, of every frontend.
#[derive(Debug, Default)]
pub struct HopJoiner {
    hops: JoinById<Answered>,
    /// Calls of gRPC, whose answers do not tell their number.
    calls: JoinByOrder<Answered>,
    /// Requests whose clients left before the answer.
    abandoned: JoinByOrder<(Identity, u64)>,
    /// When frames were handed on.
    pub handovers: DispatchTimes,
}

impl HopJoiner {
    /// Takes in an answer at `now_ns`: it goes on at once unless its worker's half is to come.
    pub fn answered(&mut self, answered: Answered, now_ns: u64, out: &mut Vec<Settled>) {
        if !answered.server.is_frontend || answered.route.purpose != Purpose::Inference {
            out.push(Settled::Response(answered, WorkerSide::NoWorker, None));
            return;
        }
        let Exchange {
            request, response, ..
        } = &answered.exchange;
        if let Some(id) = response.request_id {
            let joined = self.hops.answered(id, answered, now_ns);
            out.extend(joined.map(Settled::from));
            return;
        }
        // An INTERNAL is the frontend's own: no worker has such a model, or its worker died.
        if answered.exchange.is_grpc()
            && response.grpc_status != Some(GRPC_INTERNAL)
            && let Some(model) = answered.route.model.as_deref().map(Arc::from)
        {
            let waiting = Waiting {
                last_read_ns: request.last_read_ns,
                answered_ns: Some(response.last_write_ns.unwrap_or(response.first_write_ns)),
                succeeded: response.grpc_status.map(|status| status == 0),
                request: answered,
            };
            let evicted = self.calls.ask(&model, waiting, now_ns);
            out.extend(evicted.map(|response| settled(response, None)));
            return;
        }
        out.push(Settled::Response(answered, WorkerSide::NotObserved, None));
    }

    /// Takes in a request of a frontend, read at `last_read_ns`, whose client left: its worker may not know.
    pub fn abandoned(&mut self, identity: Identity, last_read_ns: u64, now_ns: u64) {
        let model = identity.model.clone();
        let waiting = Waiting {
            last_read_ns,
            answered_ns: None,
            succeeded: None,
            request: (identity, last_read_ns),
        };
        // One that gives way was counted as unfinished already.
        let _ = self.abandoned.ask(&model, waiting, now_ns);
    }

    /// Takes in a call of gRPC whose client left: TorchServe counted it when it came.
    pub fn abandoned_call(&mut self, identity: Identity, out: &mut Vec<Settled>) {
        out.push(Settled::Abandoned(Observation {
            identity,
            purpose: Purpose::Inference,
            protocol: Protocol::Grpc(Some(GRPC_CANCELLED)),
            status: http_status_of(GRPC_CANCELLED),
            stages: Stages::UNSEEN,
            inner: WorkerSide::NotObserved,
            stream: None,
            operation: None,
        }));
    }

    /// Takes in what a worker of `model` did, at `now_ns`; pushes what is lost to `lost`.
    pub fn worked(
        &mut self,
        worked: WorkerExchange,
        model: Option<&Arc<str>>,
        now_ns: u64,
        out: &mut Vec<Settled>,
        lost: &mut Vec<Event>,
    ) {
        // Where nobody tells of arrivals, the worker has the frame when it has read it.
        let reached_ns = worked.arrival_ns.unwrap_or(worked.last_read_ns);
        let dispatched_ns =
            self.handovers
                .before(worked.peer.tgid, worked.idle_since_ns, reached_ns);
        let worked = Arc::new(WorkerExchange {
            dispatched_ns,
            ..worked
        });
        let joined = self.hops.worked(&worked, now_ns, lost);
        out.extend(joined.into_iter().map(Settled::from));
        for _ in 0..calls_in(&worked.command) {
            let is_lost = model.is_none_or(|model| self.calls.keep(model, worked.clone(), now_ns));
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
        out: &mut Vec<Settled>,
        lost: &mut Vec<Event>,
    ) {
        let abandoned = &mut self.abandoned;
        self.hops.offer_overdue(now_ns, |id, worked| {
            let model = model_of(worked.peer.tgid);
            let claimed = model.and_then(|model| abandoned.claim(&model, worked));
            let observation = claimed.and_then(|(identity, last_read_ns)| {
                of_abandoned(identity, last_read_ns, id, worked)
            });
            let adopted = observation.is_some();
            out.extend(observation.map(Settled::Abandoned));
            adopted
        });
        let expired = self.hops.tick(now_ns, lost);
        out.extend(expired.into_iter().map(Settled::from));
        let calls = self.calls.pair(now_ns, CALL_WAIT_NS);
        out.extend(
            calls
                .into_iter()
                .map(|(response, worker)| settled(response, worker)),
        );
        let replies = self.calls.expire(now_ns, REPLY_WAIT_NS);
        lost.extend((0..replies).map(|_| Event::Lost(Loss::ReplyUnpaired)));
        self.abandoned.expire(now_ns, REPLY_WAIT_NS);
    }

    /// Lets every answer go that still waits.
    pub fn finish(&mut self, out: &mut Vec<Settled>) {
        self.tick(u64::MAX, |_| None, out, &mut Vec::new());
    }
}

/// Requests of a batch that came over gRPC.
fn calls_in(command: &Command) -> usize {
    let Command::Predict { requests, .. } = command else {
        return 0;
    };
    let calls = requests
        .iter()
        .filter(|asked| !asked.has_headers && asked.purpose == Asked::Predict);
    calls.count()
}

impl From<Joined<Answered>> for Settled {
    fn from(Joined { response, worker }: Joined<Answered>) -> Self {
        settled(response, worker)
    }
}

fn settled(response: Answered, worker: Option<Arc<WorkerExchange>>) -> Settled {
    let worker = worker.filter(|worked| !contradicts(&response.exchange, worked));
    let inner = match &worker {
        Some(worked) => WorkerSide::Observed(WorkerTiming::new(&response.exchange, worked)),
        None => WorkerSide::NotObserved,
    };
    Settled::Response(response, inner, worker)
}

/// Whether the frontend answered otherwise than the worker had replied: it gave up waiting for that, and counts no times.
fn contradicts(exchange: &Exchange, worked: &WorkerExchange) -> bool {
    let response = &exchange.response;
    let replied = response
        .request_id
        .and_then(|id| torchserve_status(&worked.reply, &id.to_string()));
    replied.is_some_and(|status| status != response.status)
}

/// What TorchServe counts of a request whose client had left; `None` where the reply does not tell its status.
fn of_abandoned(
    identity: Identity,
    last_read_ns: u64,
    id: Uuid,
    worked: &WorkerExchange,
) -> Option<Observation> {
    let status = torchserve_status(&worked.reply, &id.to_string())?;
    Some(Observation {
        identity,
        purpose: Purpose::Inference,
        protocol: Protocol::Http,
        status,
        stages: Stages::UNSEEN,
        inner: WorkerSide::Observed(WorkerTiming::of_abandoned(last_read_ns, worked)),
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

    fn answered(purpose: Purpose, id: Option<Uuid>, grpc_status: Option<u32>) -> Answered {
        Answered {
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

    fn worked(has_headers: bool) -> WorkerExchange {
        let id = Some(ID.to_string());
        WorkerExchange {
            peer: PEER,
            command: Command::Predict {
                requests: vec![command::Asked {
                    id: id.clone(),
                    has_headers,
                    purpose: Asked::Predict,
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
                responses: vec![reply::Response {
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

    fn inner_of(settled: &[Settled]) -> Vec<WorkerSide> {
        let inner = settled.iter().map(|settled| match settled {
            Settled::Response(_, inner, _) => *inner,
            Settled::Abandoned(observation) => observation.inner,
        });
        inner.collect()
    }

    #[test]
    fn questions_about_the_server_do_not_wait() {
        let mut frontends = HopJoiner::default();
        let mut out = Vec::new();
        frontends.answered(answered(Purpose::Admin, Some(ID), None), 0, &mut out);
        assert_eq!(inner_of(&out), [WorkerSide::NoWorker]);
    }

    #[test]
    fn a_request_is_joined_by_its_number_and_a_call_by_its_order() {
        for grpc_status in [None, Some(0)] {
            let mut frontends = HopJoiner::default();
            let (mut out, mut lost) = (Vec::new(), Vec::new());
            let id = grpc_status.is_none().then_some(ID);
            frontends.answered(answered(Purpose::Inference, id, grpc_status), 0, &mut out);
            assert!(out.is_empty());
            let worked = worked(grpc_status.is_none());
            frontends.worked(worked, Some(&tiny()), 1, &mut out, &mut lost);
            frontends.tick(CALL_WAIT_NS, |_| None, &mut out, &mut lost);
            let [WorkerSide::Observed(hop)] = inner_of(&out)[..] else {
                panic!("{out:?}")
            };
            assert_eq!((hop.inner_queue_ns, hop.latency_ns), (Some(100), 310));
            assert!(lost.is_empty());
        }
    }

    #[test]
    fn where_arrivals_are_unknown_a_handover_tells_the_queue_time() {
        let slot = WorkerId {
            frontend: 1,
            number: 9000,
        };
        for (dispatched_ns, expected_ns) in [(Some(150), Some(50)), (None, None)] {
            let mut frontends = HopJoiner::default();
            let (mut out, mut lost) = (Vec::new(), Vec::new());
            frontends.handovers.introduce(PEER.tgid, slot);
            if let Some(at_ns) = dispatched_ns {
                frontends.handovers.note(slot, at_ns);
            }
            frontends.answered(answered(Purpose::Inference, Some(ID), None), 0, &mut out);
            let worked = WorkerExchange {
                idle_since_ns: Some(90),
                arrival_ns: None,
                ..worked(true)
            };
            frontends.worked(worked, Some(&tiny()), 1, &mut out, &mut lost);
            let [WorkerSide::Observed(hop)] = inner_of(&out)[..] else {
                panic!("{out:?}")
            };
            assert_eq!(hop.inner_queue_ns, expected_ns);
        }
    }

    #[test]
    fn a_worker_that_was_not_seen_is_not_waited_for_long() {
        let mut frontends = HopJoiner::default();
        let (mut out, mut lost) = (Vec::new(), Vec::new());
        frontends.answered(answered(Purpose::Inference, Some(ID), None), 0, &mut out);
        frontends.answered(answered(Purpose::Inference, None, Some(14)), 0, &mut out);
        frontends.tick(1_000_000_000, |_| None, &mut out, &mut lost);
        assert_eq!(
            inner_of(&out),
            [WorkerSide::NotObserved, WorkerSide::NotObserved]
        );
        assert!(lost.is_empty());
    }

    #[test]
    fn an_response_other_than_the_workers_is_the_frontends_own() {
        let mut frontends = HopJoiner::default();
        let (mut out, mut lost) = (Vec::new(), Vec::new());
        let mut timed_out = answered(Purpose::Inference, Some(ID), None);
        timed_out.exchange.response.status = 503;
        frontends.answered(timed_out, 0, &mut out);
        frontends.worked(worked(true), Some(&tiny()), 1, &mut out, &mut lost);
        assert_eq!(inner_of(&out), [WorkerSide::NotObserved]);
    }

    #[test]
    fn a_call_whose_client_left_counts_at_once() {
        let identity = Identity {
            model: tiny(),
            version: "default".into(),
            server: "torchserve".into(),
        };
        let mut out = Vec::new();
        HopJoiner::default().abandoned_call(identity, &mut out);
        let [Settled::Abandoned(observation)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(
            (observation.status, observation.inner),
            (499, WorkerSide::NotObserved)
        );
    }

    #[test]
    fn what_was_done_for_a_client_that_left_is_told_with_its_status() {
        let mut frontends = HopJoiner::default();
        let (mut out, mut lost) = (Vec::new(), Vec::new());
        let identity = Identity {
            model: tiny(),
            version: "1.0".into(),
            server: "torchserve".into(),
        };
        frontends.abandoned(identity.clone(), 100, 0);
        frontends.worked(worked(true), Some(&tiny()), 1, &mut out, &mut lost);
        frontends.tick(1_000_000_000, |_| Some(tiny()), &mut out, &mut lost);
        assert!(out.is_empty());
        frontends.tick(3_000_000_000, |_| Some(tiny()), &mut out, &mut lost);
        let [Settled::Abandoned(observation)] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(observation.identity, identity);
        assert_eq!(observation.status, 400);
        let WorkerSide::Observed(hop) = observation.inner else {
            panic!("{observation:?}")
        };
        assert_eq!((hop.latency_ns, hop.end), (310, WorkEnd::Predicted));
        frontends.finish(&mut out);
        assert!(lost.is_empty() && out.len() == 1);
    }
}
