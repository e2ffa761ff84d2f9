//! Tests that all answers tell the same of the same requests.

use crate::{
    api::live::ProbeState,
    catalogue::route::{ModelSource, Purpose, Route},
    exchange::{self, Exchange},
    identity::{Hop, Replica, Server, fixtures},
    observation::Observation,
    torchserve::timing::WorkerSide,
};

use super::*;

/// Requests of a model that end now: `count` of them.
fn serve(history: &History, model: &str, status: u16, count: u64) {
    serve_at(history, model, status, count, Replica::default());
}

fn serve_at(history: &History, model: &str, status: u16, count: u64, replica: Replica) {
    let server = Server {
        model: model.into(),
        model_source: ModelSource::Configuration,
        replica,
        ..fixtures::server()
    };
    for _ in 0..count {
        let exchange = ended_at(monotonic_ns(), status);
        let route = Route::of(Purpose::Inference);
        let (hop, side) = (Hop::ONLY, WorkerSide::NoWorker);
        let mut observation = Observation::new(&exchange, server.clone(), route, hop, side);
        let times = crate::metrics::torchserve_times(&observation);
        history.add(&exchange, None, &mut observation, &times);
    }
}

fn ended_at(at_ns: u64, status: u16) -> Exchange {
    let mut exchange = exchange::fixtures::exchange();
    let shift_ns = at_ns - 5_321;
    exchange.request.arrival_ns = Some(1_000 + shift_ns);
    exchange.request.first_read_ns += shift_ns;
    exchange.request.last_read_ns += shift_ns;
    exchange.response.first_write_ns += shift_ns;
    exchange.response.last_write_ns = Some(at_ns);
    exchange.response.status = status;
    exchange
}

fn kept(history: &Arc<History>) -> Kept {
    let metrics = Arc::new(Metrics::new("vm"));
    Kept::new("vm", metrics, history.clone(), Arc::default())
}

#[test]
fn live_requests_and_history_have_the_same_sums() {
    let history = Arc::new(History::default());
    let kept = kept(&history);
    serve(&history, "a", 200, 5);
    serve(&history, "b<img onerror=x>", 503, 1);
    let live = kept.live(Probes {
        state: ProbeState::Attached,
        reason: None,
    });
    let [a, b] = live.models.as_slice() else {
        panic!("{:?}", live.models);
    };
    assert_eq!((live.totals.requests, live.totals.server_errors), (6, 1));
    assert_eq!((&*a.served.model, a.figures.requests), ("a", 5));
    assert_eq!(
        (&*b.served.model, b.figures.server_errors),
        ("b<img onerror=x>", 1)
    );
    assert_eq!(a.verdict.certainty, "5 of 5 requests have all times");
    assert_eq!(a.before, None);
    let p50_ns = a.figures.p50_ns.unwrap();
    assert!((3_900..4_750).contains(&p50_ns), "{p50_ns}");

    let requests = kept.requests(None, 100);
    assert_eq!((requests.next, requests.last, requests.missed), (6, 6, 0));
    let of_a = requests
        .requests
        .iter()
        .filter(|row| row.served.model == "a");
    let mut sums = api::stages::Stages::default();
    for row in of_a {
        sums.add(&row.stages_ns.unwrap());
    }
    assert_eq!(sums, a.now.sums_ns);

    let wanted = Wanted {
        model: Some("a".into()),
        ..Wanted::default()
    };
    let windows = kept.history(&wanted).windows;
    let mut sums = api::stages::Stages::default();
    for window in &windows {
        sums.add(&window.sums_ns);
    }
    assert_eq!(sums, a.now.sums_ns);
    let all = kept.history(&Wanted::default());
    let requests: u64 = all.windows.iter().map(|window| window.requests).sum();
    assert_eq!((requests, all.served.len()), (6, 0));
}

#[test]
fn an_agent_without_requests_says_nothing_of_them() {
    let live = kept(&Arc::default()).live(Probes::default());
    assert_eq!(live.totals.requests, 0);
    assert_eq!((live.totals.p99_ns, live.totals.in_flight), (None, None));
    assert_eq!(live.coverage.ratio, None);
    assert_eq!((live.cost.cpus, live.host.cpu_ratio), (None, None));
    assert!(live.models.is_empty() && !live.gpus.readable);
}

#[test]
fn answers_survive_being_written_and_read() {
    let history = Arc::new(History::default());
    let kept = kept(&history);
    serve(&history, "a", 200, 2);
    let live = kept.live(Probes::default());
    let requests = kept.requests(None, 9);
    let windows = kept.history(&Wanted::default());
    let json = |answer: &dyn Fn() -> serde_json::Result<String>| answer().unwrap();
    let text = json(&|| serde_json::to_string(&live));
    assert_eq!(serde_json::from_str::<Live>(&text).unwrap(), live);
    let text = json(&|| serde_json::to_string(&requests));
    assert_eq!(serde_json::from_str::<Requests>(&text).unwrap(), requests);
    let text = json(&|| serde_json::to_string(&windows));
    let read: api::history::History = serde_json::from_str(&text).unwrap();
    assert_eq!(read, windows);
}

#[test]
fn each_replica_has_its_own_requests_and_windows() {
    let history = Arc::new(History::default());
    let kept = kept(&history);
    for pod in 1..=3 {
        serve_at(&history, "a", 200, pod, fixtures::pod(pod as usize));
    }
    let live = kept.live(Probes::default());
    let requests = kept.requests(None, 9).requests;
    for model in &live.models {
        let of_it = |row: &&api::requests::Request| {
            (&row.served, &row.labels) == (&model.served, &model.labels)
        };
        let count = requests.iter().filter(of_it).count() as u64;
        let wanted = Wanted::of(&model.served, &model.labels);
        let of_windows = kept.history(&wanted);
        let in_windows: u64 = of_windows.windows.iter().map(|one| one.requests).sum();
        assert_eq!((count, in_windows), (model.figures.requests, count));
        assert_eq!(
            of_windows.labels.as_slice(),
            std::slice::from_ref(&model.labels)
        );
        assert_eq!(format!("vllm-{count}"), model.labels.get("pod"));
    }
    assert_eq!(live.models.len(), 3);
}
