//! Tests of TorchServe's rules: what counts, in which unit, with which rounding.

use super::*;
use crate::{
    catalogue::route::{ModelSource, Purpose},
    identity::{Hop, Replica, ShownLabels},
    metrics::encode::{Format, Selection},
    observation::Stages,
    torchserve::timing::WorkerTiming,
};

const STAGES: Stages = Stages {
    queue_ns: Some(2_900_500),
    receive_ns: 100_000,
    handler_ns: Some(36_024_999),
    stream_ns: Some(0),
    unsplit_ns: None,
};

fn timing(end: WorkEnd) -> WorkerSide {
    WorkerSide::Observed(WorkerTiming {
        internal_queue_ns: Some(5_900_000),
        worker_ns: Some(20_006_000),
        starved_ns: None,
        latency_ns: 26_000_000,
        relay_ns: Some(1_999_999),
        end,
    })
}

fn observation(status: u16, worker_side: WorkerSide) -> Observation {
    Observation {
        identity: identity("tiny"),
        purpose: Purpose::Inference,
        model_source: ModelSource::Path,
        protocol: Protocol::Http,
        status,
        stages: STAGES,
        starved_ns: None,
        because: None,
        worker_side,
        stream: None,
        hop: Hop::ONLY,
        session: None,
        operation: None,
        tokens: None,
    }
}

fn identity(model: &str) -> Identity {
    Identity {
        model: model.into(),
        version: "default".into(),
        server: "torchserve".into(),
        replica: Replica::default(),
    }
}

fn lines(fill: impl FnOnce(&mut Samples)) -> Vec<String> {
    let mut samples = Samples::new(ShownLabels::ALL);
    fill(&mut samples);
    let text = samples.encode(&Selection::all(), Format::Text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn after(observations: &[Observation]) -> Vec<String> {
    let mut served = ModelTotals::default();
    let mut last = LastTimes::default();
    for (index, observation) in (0..).zip(observations) {
        served.add(observation, index);
        last.add(observation);
    }
    let identity = identity("tiny");
    lines(|samples| {
        collect_served([(&identity, &served)].into_iter(), "vm", samples);
        last.collect("vm", samples);
    })
}

const SERVED: &str = r#"{model_name="tiny",model_version="default",hostname="vm"}"#;
const MODEL: &str = r#"{ModelName="tiny",Level="Model",Hostname="vm"}"#;
const HOST: &str = r#"{Level="Host",Hostname="vm"}"#;

#[test]
fn response_of_a_worker_has_torchserves_units_and_rounding() {
    let observation = observation(200, timing(WorkEnd::Predicted));
    assert_eq!(
        after(&[observation.clone(), observation]),
        [
            format!("HandlerTime{MODEL} 20.01"),
            format!("PredictionTime{MODEL} 20.01"),
            format!("QueueTime{HOST} 5.0"),
            format!("WorkerThreadTime{HOST} 1.0"),
            format!("ts_inference_requests_total{SERVED} 2.0"),
            format!("ts_inference_latency_microseconds{SERVED} 52000.0"),
            format!("ts_queue_latency_microseconds{SERVED} 11800.0"),
        ]
    );
}

#[test]
fn a_server_without_workers_is_timed_at_its_socket() {
    assert_eq!(
        after(&[observation(200, WorkerSide::NoWorker)]),
        [
            format!("HandlerTime{MODEL} 36.02"),
            format!("PredictionTime{MODEL} 36.02"),
            format!("QueueTime{HOST} 2.0"),
            format!("ts_inference_requests_total{SERVED} 1.0"),
            format!("ts_inference_latency_microseconds{SERVED} 39025.499"),
            format!("ts_queue_latency_microseconds{SERVED} 2900.5"),
        ]
    );
}

#[test]
fn each_end_counts_as_in_torchserve() {
    let cases: [(u16, WorkerSide, &[&str]); 8] = [
        // A status that the handler set changes nothing.
        (
            404,
            timing(WorkEnd::Predicted),
            &["requests", "latency", "queue", "handler", "prediction"],
        ),
        (503, timing(WorkEnd::Refused), &["requests", "handler"]),
        (404, timing(WorkEnd::Failed), &["requests"]),
        (503, WorkerSide::NotObserved, &["requests"]),
        (404, WorkerSide::NotObserved, &[]),
        (404, WorkerSide::NoWorker, &[]),
        (302, WorkerSide::NoWorker, &["requests"]),
        (200, WorkerSide::NotObserved, &["requests", "latency"]),
    ];
    for (status, worker_side, expected) in cases {
        let mut served = ModelTotals::default();
        served.add(&observation(status, worker_side), 1);
        let found = [
            ("requests", served.requests > 0),
            ("latency", served.latency_ns.is_some()),
            ("queue", served.queue_ns.is_some()),
            ("handler", served.handler.is_some()),
            ("prediction", served.prediction.is_some()),
        ];
        let found: Vec<&str> = found
            .into_iter()
            .filter_map(|(name, there)| there.then_some(name))
            .collect();
        assert_eq!(found, expected, "{status} {worker_side:?}");
    }
}

#[test]
fn grpc_adds_no_sums_and_an_internal_error_of_the_frontend_is_no_inference() {
    let call = |grpc_status, status, worker_side| Observation {
        protocol: Protocol::Grpc(Some(grpc_status)),
        ..observation(status, worker_side)
    };
    let internal = call(grpc::INTERNAL, 500, WorkerSide::NotObserved);
    let missing = call(5, 404, timing(WorkEnd::Failed));
    assert_eq!(
        after(&[internal, missing, call(0, 200, timing(WorkEnd::Predicted))]),
        [
            format!("HandlerTime{MODEL} 20.01"),
            format!("PredictionTime{MODEL} 20.01"),
            format!("QueueTime{HOST} 5.0"),
            format!("WorkerThreadTime{HOST} 1.0"),
            format!("ts_inference_requests_total{SERVED} 2.0"),
        ]
    );
}

#[test]
fn live_workers_have_a_load_time_and_dead_ones_have_none() {
    let worker = |name: &str, load_ns| LiveWorker {
        name: name.into(),
        identity: identity("tiny"),
        load_ns,
    };
    let mut workers = Workers::default();
    workers.insert(7, worker("W-9000-tiny_1.0", Some(1_500_900_000)));
    workers.insert(8, worker("W-9001-tiny_1.0", Some(1_600_000_000)));
    workers.insert(9, worker("W-9002-tiny_1.0", None));
    workers.remove(8);
    let found = lines(|samples| workers.collect("vm", samples));
    assert_eq!(
        found[0],
        r#"WorkerLoadTime{WorkerName="W-9000-tiny_1.0",Level="Host",Hostname="vm"} 1500.0"#
    );
    let labels = r#"{model="tiny",version="default",server="torchserve",port="",namespace="",pod="",container=""}"#;
    assert!(
        found.contains(&format!("inferprobe_workers{labels} 2")),
        "{found:?}"
    );
    let count = format!("inferprobe_worker_load_seconds_count{labels} 2");
    assert!(found.contains(&count), "{found:?}");
    assert!(!found.iter().any(|line| line.contains("W-9001")));
}
