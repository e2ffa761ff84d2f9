//! Tests of the join of frontend and worker.

use crate::{
    exchange::{Request, Response},
    identity::fixtures::server,
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

/// What came out of the join.
#[derive(Debug, Default)]
struct Pushed {
    joined: Vec<Joined>,
    unpaired: Vec<Peer>,
}

impl JoinSink for Pushed {
    fn joined(&mut self, joined: Joined) {
        self.joined.push(joined);
    }

    fn unpaired(&mut self, peer: Peer) {
        self.unpaired.push(peer);
    }
}

const ID: Uuid = Uuid::from_u128(7);
const PEER: Peer = Peer {
    cookie: 1,
    tgid: 2,
    local_port: None,
    peer_port: None,
    accepted_ns: None,
    client: None,
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
                last_arrival_ns: None,
                reader_tid: None,
                bytes: 3,
                complete: true,
                named: None,
                user_agent: None,
                content_cut: false,
            },
            response: Response {
                status: 400,
                first_write_ns: 500,
                first_write_bounded: false,
                early: false,
                thread_wait: None,
                undrained_ns: None,
                last_write_ns: Some(501),
                bytes: 6,
                request_id: id,
                grpc_status,
                chunks: None,
                generation: None,
                session: None,
            },
        },
        server: Server {
            name: "torchserve".into(),
            model: "java".into(),
            is_frontend: true,
            ..server()
        },
        route: Route {
            model: Some("tiny".into()),
            ..Route::of(purpose)
        },
        hop: Hop::ONLY,
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
        thread_wait: None,
        last_write_ns: 410,
        reply_read_ns: None,
    }
}

/// A response that was not read: its ID and its status are not known.
fn unread(last_read_ns: u64, last_write_ns: u64) -> FrontendExchange {
    let mut unread = frontend_exchange(Purpose::Inference, None, None);
    unread.exchange.request.last_read_ns = last_read_ns;
    unread.exchange.response.status = 0;
    unread.exchange.response.last_write_ns = Some(last_write_ns);
    unread.route.model = None;
    unread
}

#[test]
fn unread_responses_get_the_replies_that_no_other_one_has() {
    let mut hop_joiner = HopJoiner::default();
    let mut out = Pushed::default();
    hop_joiner.on_worker_exchange(worker_exchange(true), Some(&tiny()), 0, &mut out);
    // This one was read after the worker had its frame.
    hop_joiner.on_response(unread(300, 900), 0, &mut out);
    hop_joiner.on_response(unread(100, 501), 0, &mut out);
    hop_joiner.tick(2_400_000_000, |_| Some(tiny()), &mut out);
    assert!(out.joined.is_empty());
    hop_joiner.tick(2_600_000_000, |_| Some(tiny()), &mut out);
    let models = out.joined.iter().map(|joined| match joined {
        Joined::Response(response, worker_side, _) => {
            let is_observed = matches!(worker_side, WorkerSide::Observed(_));
            (response.route.model.as_deref(), is_observed)
        }
        Joined::Abandoned(_) => (None, false),
    });
    let models: Vec<_> = models.collect();
    assert_eq!(models, [(None, false), (Some("tiny"), true)]);
    assert!(out.unpaired.is_empty());
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
    let mut out = Pushed::default();
    hop_joiner.on_response(
        frontend_exchange(Purpose::Admin, Some(ID), None),
        0,
        &mut out,
    );
    assert_eq!(worker_sides(&out.joined), [WorkerSide::NoWorker]);
}

#[test]
fn a_request_is_joined_by_its_number_and_a_call_by_its_order() {
    for grpc_status in [None, Some(0)] {
        let mut hop_joiner = HopJoiner::default();
        let mut out = Pushed::default();
        let id = grpc_status.is_none().then_some(ID);
        hop_joiner.on_response(
            frontend_exchange(Purpose::Inference, id, grpc_status),
            0,
            &mut out,
        );
        assert!(out.joined.is_empty());
        let worker_exchange = worker_exchange(grpc_status.is_none());
        hop_joiner.on_worker_exchange(worker_exchange, Some(&tiny()), 1, &mut out);
        hop_joiner.tick(GRPC_WAIT_NS, |_| None, &mut out);
        let [WorkerSide::Observed(timing)] = worker_sides(&out.joined)[..] else {
            panic!("{out:?}")
        };
        assert_eq!(
            (timing.internal_queue_ns, timing.latency_ns),
            (Some(100), 310)
        );
        assert!(out.unpaired.is_empty());
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
        let mut out = Pushed::default();
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
        hop_joiner.on_worker_exchange(worker_exchange, Some(&tiny()), 1, &mut out);
        let [WorkerSide::Observed(timing)] = worker_sides(&out.joined)[..] else {
            panic!("{out:?}")
        };
        assert_eq!(timing.internal_queue_ns, expected_ns);
    }
}

#[test]
fn a_worker_that_was_not_seen_is_not_waited_for_long() {
    let mut hop_joiner = HopJoiner::default();
    let mut out = Pushed::default();
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
    hop_joiner.tick(1_000_000_000, |_| None, &mut out);
    assert_eq!(
        worker_sides(&out.joined),
        [WorkerSide::NotObserved, WorkerSide::NotObserved]
    );
    assert!(out.unpaired.is_empty());
}

#[test]
fn an_response_other_than_the_workers_is_the_frontends_own() {
    let mut hop_joiner = HopJoiner::default();
    let mut out = Pushed::default();
    let mut timed_out = frontend_exchange(Purpose::Inference, Some(ID), None);
    timed_out.exchange.response.status = 503;
    hop_joiner.on_response(timed_out, 0, &mut out);
    hop_joiner.on_worker_exchange(worker_exchange(true), Some(&tiny()), 1, &mut out);
    assert_eq!(worker_sides(&out.joined), [WorkerSide::NotObserved]);
}

#[test]
fn a_call_whose_client_left_counts_at_once() {
    let identity = Identity {
        model: tiny(),
        version: "default".into(),
        server: "torchserve".into(),
        replica: crate::identity::Replica::default(),
    };
    let mut out = Pushed::default();
    HopJoiner::default().on_abandoned_grpc(identity, &mut out);
    let [Joined::Abandoned(observation)] = &out.joined[..] else {
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
    let mut out = Pushed::default();
    let identity = Identity {
        model: tiny(),
        version: "1.0".into(),
        server: "torchserve".into(),
        replica: crate::identity::Replica::default(),
    };
    hop_joiner.on_abandoned(identity.clone(), 100, 0);
    hop_joiner.on_worker_exchange(worker_exchange(true), Some(&tiny()), 1, &mut out);
    hop_joiner.tick(1_000_000_000, |_| Some(tiny()), &mut out);
    assert!(out.joined.is_empty());
    hop_joiner.tick(3_000_000_000, |_| Some(tiny()), &mut out);
    let [Joined::Abandoned(observation)] = &out.joined[..] else {
        panic!("{out:?}")
    };
    assert_eq!(observation.identity, identity);
    assert_eq!(observation.status, 400);
    let WorkerSide::Observed(timing) = observation.worker_side else {
        panic!("{observation:?}")
    };
    assert_eq!((timing.latency_ns, timing.end), (310, WorkEnd::Predicted));
    hop_joiner.finish(&mut out);
    assert!(out.unpaired.is_empty() && out.joined.len() == 1);
}
