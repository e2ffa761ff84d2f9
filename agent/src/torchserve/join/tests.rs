//! Tests of the join of frontend and worker.

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
        Joined::Abandoned(request) => request.worker_side,
    });
    worker_side.collect()
}

#[test]
fn admin_response_does_not_wait() {
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
fn http_request_is_joined_by_id_and_grpc_request_by_order() {
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
        hop_joiner.tick(GRPC_WAIT_NS, |_| None, &mut out, &mut lost);
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
fn internal_queue_without_arrivals_ends_at_the_dispatch() {
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
fn response_without_worker_is_released_after_the_wait() {
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
fn response_with_other_status_is_not_the_workers() {
    let mut hop_joiner = HopJoiner::default();
    let (mut out, mut lost) = (Vec::new(), Vec::new());
    let mut timed_out = frontend_exchange(Purpose::Inference, Some(ID), None);
    timed_out.exchange.response.status = 503;
    hop_joiner.on_response(timed_out, 0, &mut out);
    hop_joiner.on_worker_exchange(worker_exchange(true), Some(&tiny()), 1, &mut out, &mut lost);
    assert_eq!(worker_sides(&out), [WorkerSide::NotObserved]);
}

#[test]
fn abandoned_grpc_request_is_ready_at_once() {
    let identity = Identity {
        model: tiny(),
        version: "default".into(),
        server: "torchserve".into(),
    };
    let mut out = Vec::new();
    HopJoiner::default().on_abandoned_grpc(identity, &mut out);
    let [Joined::Abandoned(request)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(
        (request.status, request.worker_side),
        (499, WorkerSide::NotObserved)
    );
}

#[test]
fn abandoned_http_request_has_the_status_of_its_reply() {
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
    let [Joined::Abandoned(request)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(request.identity, identity);
    assert_eq!(request.status, 400);
    let WorkerSide::Observed(timing) = request.worker_side else {
        panic!("{request:?}")
    };
    assert_eq!((timing.latency_ns, timing.end), (310, WorkEnd::Predicted));
    hop_joiner.finish(&mut out);
    assert!(lost.is_empty() && out.len() == 1);
}
