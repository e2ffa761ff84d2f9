//! Compares every family of the agent with TorchServe's own.

use std::collections::BTreeSet;

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    cpu_steal::CpuTime,
    exposition::Exposition,
    report::row,
    require_kernel::require_kernel,
    torchserve::{
        self, Registration, TorchServe,
        alike::assert_alike,
        counters::{Counters, assert_nothing_lost},
        traffic::{self, Client, EVERY_ROW},
    },
};

/// Rounds of [`EVERY_ROW`] by one client, and by each of eight: 500 requests in all, the rest to `batched`.
const ROUNDS: [(usize, usize); 2] = [(1, 5), (8, 2)];
/// Requests of a batch, and batches.
const BATCH: u32 = 4;
const BATCHES: usize = 20;

/// A model whose name is too long for the names of its workers' threads, and is not that of its archive.
const NAME_OF_NO_THREAD: &str = "longer-than-a-thread";

/// Fills batches of `batched`: a client for each place, and one failure that ends its whole batch.
fn send_batches(port: u16) -> usize {
    std::thread::scope(|scope| {
        for place in 0..BATCH {
            scope.spawn(move || {
                let mut client = Client::new(port);
                for batch in 0..BATCHES {
                    let body = match (place, batch) {
                        (0, 3) => r#"{"answer": "raise"}"#,
                        (1, 7) => r#"{"set_code": 400}"#,
                        _ => r#"{"sleep_ms": 3}"#,
                    };
                    let status = client.status("POST", "/predictions/batched", body);
                    assert!(matches!(status, 200 | 400 | 503), "{status}");
                }
            });
        }
    });
    BATCH as usize * BATCHES
}

/// Family, type, HELP, label names and label values of everything that TorchServe exports.
fn shape(page: &Exposition, families: &BTreeSet<String>) -> BTreeSet<String> {
    let mut shape = BTreeSet::new();
    for name in families {
        let family = page.family(name).unwrap_or_else(|| panic!("no {name}"));
        shape.insert(format!("{name}: {:?} {:?}", family.kind, family.help));
        for sample in page.samples(name, &[]) {
            let mut labels = sample.labels.clone();
            labels.sort();
            shape.insert(format!("{name} {labels:?}"));
        }
    }
    shape
}

#[test]
fn five_hundred_mixed_requests_are_counted_as_by_torchserve() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let start = CpuTime::now();
    let agent = Agent::start::<&str>(&[]);
    let torchserve = TorchServe::start(&installed, &[]);
    torchserve.register(&Registration {
        archive: "tiny.mar",
        model: "batched",
        batch_size: BATCH,
        max_batch_delay_ms: 30,
        workers: 1,
    });
    let mut sent = 0;
    for (clients, rounds) in ROUNDS {
        sent += traffic::send(torchserve.ports, &EVERY_ROW, clients, rounds);
    }
    sent += send_batches(torchserve.ports.inference);
    assert!(sent >= 500, "{sent}");
    let none = Counters::default();
    let (ours, theirs) = Counters::of_both(&agent, &none, &torchserve, &none);
    assert!(theirs.all_answers() > sent as f64, "{theirs:?}");
    assert_alike("500 mixed requests", start, &ours, &theirs);
    assert_nothing_lost(&agent);
    let foreign: Vec<Logged> = agent
        .log()
        .into_iter()
        .filter(|row| row.server != "torchserve" || row.pid != torchserve.pid)
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");

    let (ours, theirs) = (agent.metrics(), torchserve.metrics());
    let families: BTreeSet<String> = theirs
        .families
        .iter()
        .map(|family| family.name.clone())
        .collect();
    assert_eq!(families.len(), 21, "{families:?}");
    assert_eq!(shape(&ours, &families), shape(&theirs, &families));
    row(
        "500 mixed requests",
        "families, types, HELP, label names and values",
        "21 families",
        "the same",
        "equal",
    );
    agent.stop();
}

#[test]
fn torchserve_from_before_the_agent_is_counted_from_then_on() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let start = CpuTime::now();
    let torchserve = TorchServe::start(&installed, &["default_workers_per_model=2"]);
    torchserve.register(&Registration {
        archive: "twin.mar",
        model: NAME_OF_NO_THREAD,
        batch_size: 1,
        max_batch_delay_ms: 100,
        workers: 1,
    });
    Client::new(torchserve.ports.inference).predict("tiny", 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    let address = format!("http://127.0.0.1:{}", torchserve.ports.management);
    let text = format!("management_address={address}\nenable_metrics_api=false\n");
    std::fs::write(file.path(), text).unwrap();
    let agent = Agent::start(&["--ts-config", file.path().to_str().unwrap()]);
    agent.wait_sum("inferprobe_workers", &[("model", NAME_OF_NO_THREAD)], 1.0);
    let theirs_base = Counters::of_torchserve(&torchserve);
    // What the agent observes first: its own requests for the list of models and for each of the three, and the scrape.
    let ours_base = Counters::of_agent(&agent, &Counters::default(), 5.0);
    assert_eq!(ours_base.all_answers(), 5.0);
    traffic::send(torchserve.ports, &EVERY_ROW, 4, 2);
    let (ours, theirs) = Counters::of_both(&agent, &ours_base, &torchserve, &theirs_base);
    assert_alike("agent started after TorchServe", start, &ours, &theirs);
    assert_nothing_lost(&agent);
    let workers = agent.metrics();
    for model in ["tiny", "twin"] {
        let labels = [("model", model), ("version", "1.0")];
        assert_eq!(workers.sum("inferprobe_workers", &labels), 2.0, "{model}");
    }
    agent.stop();
}

/// Whether a worker answered with predictions, of whatever status.
fn predicted(row: &Logged) -> bool {
    row.worker.as_ref().is_some_and(|worker| worker.code == 200)
}

#[test]
fn families_of_times_are_the_sums_of_the_request_log() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let torchserve = TorchServe::start(&installed, &[]);
    let agent = Agent::start::<&str>(&[]);
    let mut client = Client::new(torchserve.ports.inference);
    for (target, body, status) in EVERY_ROW {
        assert_eq!(client.status("POST", target, body), status, "{target}");
    }
    let inferences = EVERY_ROW.len() - 2;
    let rows = agent.rows(inferences, |row| row.purpose == "inference");
    let page = agent.metrics();
    for (model, version) in [("tiny", "default"), ("tiny", "1.0"), ("twin", "default")] {
        let served: Vec<&Logged> = rows
            .iter()
            .filter(|row| (&*row.model, &*row.version) == (model, version) && predicted(row))
            .collect();
        let sum_us = |time_ns: &dyn Fn(&Logged) -> Option<u64>| {
            let times_ns = served.iter().map(|row| time_ns(row).unwrap());
            times_ns.sum::<u64>() as f64 / 1e3
        };
        let labels = [("model_name", model), ("model_version", version)];
        for (name, expected_us) in [
            (
                "ts_queue_latency_microseconds",
                sum_us(&Logged::internal_queue_ns),
            ),
            (
                "ts_inference_latency_microseconds",
                sum_us(&Logged::latency_ns),
            ),
        ] {
            let found_us = page.sum(name, &labels);
            assert!(
                (found_us - expected_us).abs() < 0.001,
                "{name}{labels:?}: {found_us}"
            );
            assert!(found_us > 0.0, "{name}{labels:?}");
        }
    }
    let last = |model: Option<&str>| {
        let mut served = rows.iter().rev().filter(|row| predicted(row));
        served
            .find(|row| model.is_none_or(|model| row.model == model))
            .unwrap()
    };
    let queue_ms = (last(None).internal_queue_ns().unwrap() / 1_000_000) as f64;
    assert_eq!(page.sum("QueueTime", &[("Level", "Host")]), queue_ms);
    for model in ["tiny", "twin"] {
        let found_ms = page.sum("PredictionTime", &[("ModelName", model)]);
        let expected_ms = last(Some(model)).worker_ns().unwrap() as f64 / 1e6;
        assert!(
            (found_ms - expected_ms).abs() <= 0.005_001,
            "{model}: {found_ms}"
        );
    }
    agent.stop();
}
