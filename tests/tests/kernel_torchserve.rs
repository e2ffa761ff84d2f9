//! Needs root: a real TorchServe, watched from the kernel, and its own metrics as the judge.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use inferprobe_tests::{
    agent::{Agent, Logged},
    client::{Connection, request},
    clock::wait_for,
    exposition::Exposition,
    gate,
    torchserve::{self, Ports, TorchServe},
};

const PATIENCE: Duration = Duration::from_secs(20);
const REQUESTS: &str = "ts_inference_requests_total";
const CLASSES: [&str; 3] = ["Requests2XX", "Requests4XX", "Requests5XX"];

/// Clients that send at the same time.
const CLIENTS: usize = 8;
/// Times that each client goes through all of [`TRAFFIC`].
const ROUNDS: usize = 4;

/// Requests that TorchServe and a watcher of its HTTP alone count alike: target, body, expected status.
///
/// A `PredictionException` of code 404 is left out: TorchServe counts it, unlike a 404 of its own.
const TRAFFIC: [(&str, &str, u16); 15] = [
    ("/predictions/tiny", "{}", 200),
    ("/predictions/twin", r#"{"sleep_ms": 2}"#, 200),
    ("/predictions/tiny/1.0", r#"{"sleep_ms": 1}"#, 200),
    ("/predictions/twin", r#"{"pad_bytes": 300000}"#, 200),
    ("/predictions/unknown", "{}", 404),
    ("/predictions/tiny/9.9", "{}", 404),
    ("/nowhere", "{}", 404),
    ("/predictions/tiny", r#"{"fail_code": 400}"#, 400),
    ("/predictions/tiny", r#"{"fail_code": 413}"#, 507),
    ("/predictions/twin/1.0", r#"{"fail_code": 302}"#, 302),
    ("/predictions/tiny", r#"{"set_code": 400}"#, 400),
    ("/predictions/twin", r#"{"set_code": 503}"#, 503),
    ("/predictions/tiny", r#"{"answer": "raise"}"#, 503),
    ("/predictions/twin", r#"{"answer": "memory"}"#, 507),
    ("/predictions/tiny", r#"{"answer": "not-a-list"}"#, 503),
];

/// A client that connects again where TorchServe hangs up, as it does after each error of its own.
struct Client {
    port: u16,
    connection: Option<Connection>,
}

impl Client {
    fn new(port: u16) -> Self {
        Self {
            port,
            connection: None,
        }
    }

    fn status(&mut self, method: &str, target: &str, body: &str) -> u16 {
        let fields = ["Content-Type: application/json"];
        let bytes = request(method, target, &fields, body.as_bytes());
        let connection = self
            .connection
            .get_or_insert_with(|| Connection::open_tcp(self.port).unwrap());
        let (_, answer) = connection.exchange(&bytes).unwrap();
        if answer.head.field("connection") == Some("close") {
            self.connection = None;
        }
        answer.status
    }
}

/// Sends all of [`TRAFFIC`] from every client, and asks about the server in between.
fn send_traffic(ports: Ports) {
    std::thread::scope(|scope| {
        for start in 0..CLIENTS {
            scope.spawn(move || {
                let mut inference = Client::new(ports.inference);
                let mut management = Client::new(ports.management);
                for index in 0..ROUNDS * TRAFFIC.len() {
                    let (target, body, status) = TRAFFIC[(start + index) % TRAFFIC.len()];
                    assert_eq!(inference.status("POST", target, body), status, "{target}");
                }
                assert_eq!(inference.status("GET", "/ping", ""), 200);
                assert_eq!(management.status("GET", "/models/tiny", ""), 200);
                assert_eq!(management.status("GET", "/models/unknown", ""), 404);
            });
        }
    });
}

/// Counters by class, and by model and version.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counts {
    classes: BTreeMap<&'static str, f64>,
    requests: BTreeMap<(String, String), f64>,
}

impl Counts {
    fn of(page: &Exposition) -> Self {
        let requests = page.samples(REQUESTS, &[]).map(|sample| {
            let label = |name: &str| sample.label(name).unwrap().to_owned();
            let key = (label("model_name"), label("model_version"));
            (key, sample.value)
        });
        Self {
            classes: CLASSES.map(|name| (name, page.sum(name, &[]))).into(),
            requests: requests.collect(),
        }
    }

    /// TorchServe's counters by a scrape, with the scrape: TorchServe counts it once it is rendered.
    fn of_torchserve(torchserve: &TorchServe) -> Self {
        let mut counts = Self::of(&torchserve.metrics());
        *counts.classes.entry("Requests2XX").or_default() += 1.0;
        counts
    }

    /// The agent's counters, once it has counted `answers` since `base`.
    fn of_agent(agent: &Agent, base: &Self, answers: f64) -> Self {
        let what = format!("{answers} answers counted by the agent");
        wait_for(&what, PATIENCE, || {
            let counts = Self::of(&agent.metrics());
            (counts.since(base).answers() >= answers).then_some(counts)
        })
    }

    fn answers(&self) -> f64 {
        self.classes.values().sum()
    }

    fn since(&self, base: &Self) -> Self {
        let mut counts = self.clone();
        for (name, count) in &mut counts.classes {
            *count -= base.classes.get(name).copied().unwrap_or_default();
        }
        for (key, count) in &mut counts.requests {
            *count -= base.requests.get(key).copied().unwrap_or_default();
        }
        counts
    }
}

/// Holds that both counted alike since their bases.
fn assert_counted_alike(
    agent: &Agent,
    agent_base: &Counts,
    torchserve: &TorchServe,
    torchserve_base: &Counts,
) {
    let theirs = Counts::of_torchserve(torchserve).since(torchserve_base);
    let sent = (CLIENTS * (ROUNDS * TRAFFIC.len() + 3)) as f64;
    assert!(theirs.answers() > sent, "{theirs:?}");
    let ours = Counts::of_agent(agent, agent_base, theirs.answers()).since(agent_base);
    assert_eq!(ours, theirs);
    assert_nothing_lost(agent);
}

fn assert_nothing_lost(agent: &Agent) {
    let page = agent.metrics();
    for name in [
        "inferprobe_records_lost_total",
        "inferprobe_requests_unfinished_total",
        "inferprobe_request_stage_unknown_total",
    ] {
        let found: Vec<_> = page
            .samples(name, &[])
            .filter(|sample| sample.value != 0.0)
            .collect();
        assert!(found.is_empty(), "{found:?}: {}", agent.errors());
    }
}

#[test]
fn torchserve_started_after_the_agent_is_counted_whole() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_turn) = gate::kernel() else { return };
    let agent = Agent::start::<&str>(&[]);
    let torchserve = TorchServe::start(&installed, &[]);
    send_traffic(torchserve.ports);
    let none = Counts::default();
    assert_counted_alike(&agent, &none, &torchserve, &none);
    let foreign: Vec<Logged> = agent
        .log()
        .into_iter()
        .filter(|row| row.server != "torchserve" || row.pid != torchserve.pid)
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    agent.stop();
}

#[test]
fn torchserve_started_before_the_agent_is_counted_from_then_on() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_turn) = gate::kernel() else { return };
    let torchserve = TorchServe::start(&installed, &["default_workers_per_model=2"]);
    Client::new(torchserve.ports.inference).status("POST", "/predictions/tiny", "{}");
    let agent = Agent::start::<&str>(&[]);
    let torchserve_base = Counts::of_torchserve(&torchserve);
    // The scrape is the first that the agent sees.
    let agent_base = Counts::of_agent(&agent, &Counts::default(), 1.0);
    assert_eq!(agent_base.answers(), 1.0);
    send_traffic(torchserve.ports);
    assert_counted_alike(&agent, &agent_base, &torchserve, &torchserve_base);
    agent.stop();
}

/// Sleeps of the handler, each longer than the one before.
const SLEEPS_MS: [u32; 12] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120];
/// What may lie between TorchServe's own end of a request and its first answer byte, for the request that the rest of
/// the machine disturbed least: measured, it is below 1 ms at the median of an idle machine.
const ANSWER_SHARE_MS: f64 = 10.0;

#[test]
fn handler_time_lies_between_torchserves_own_times_and_the_clients() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_turn) = gate::kernel() else { return };
    let torchserve = TorchServe::start(&installed, &[]);
    let agent = Agent::start::<&str>(&[]);
    let mut client = Client::new(torchserve.ports.inference);
    let mut answer_shares_ms = Vec::new();
    let mut latency_sum_ms = 0.0;
    let mut worker_before_ms = 0.0;
    for (index, sleep_ms) in SLEEPS_MS.into_iter().enumerate() {
        let body = format!(r#"{{"sleep_ms": {sleep_ms}}}"#);
        let sent = Instant::now();
        assert_eq!(client.status("POST", "/predictions/tiny", &body), 200);
        let client_ms = sent.elapsed().as_secs_f64() * 1e3;
        // The worker tells its time through a pipe, which may be read after the answer is sent.
        let page = wait_for("TorchServe's HandlerTime", PATIENCE, || {
            let page = torchserve.metrics();
            let known_ms = page.sum("HandlerTime", &[("ModelName", "tiny")]);
            let sum_ms = page.sum("ts_inference_latency_microseconds", &[]) / 1e3;
            // On a busy machine the request before may have taken longer than this one sleeps.
            let is_new = known_ms != worker_before_ms && sum_ms > latency_sum_ms;
            (is_new && known_ms >= f64::from(sleep_ms)).then_some(page)
        });
        let worker_ms = page.sum("HandlerTime", &[("ModelName", "tiny")]);
        worker_before_ms = worker_ms;
        let sum_ms = page.sum("ts_inference_latency_microseconds", &[]) / 1e3;
        let frontend_ms = sum_ms - std::mem::replace(&mut latency_sum_ms, sum_ms);

        let rows = agent.rows(index + 1, |row| row.purpose == "inference");
        let ours_ms = rows[index].handler_ns().unwrap() as f64 / 1e6;
        let times_ms = [worker_ms, frontend_ms, ours_ms, client_ms];
        // TorchServe rounds to 0.01 ms.
        let in_order = times_ms.windows(2).all(|pair| pair[0] <= pair[1] + 0.01);
        assert!(in_order, "request {index}: {times_ms:?}");
        answer_shares_ms.push(ours_ms - frontend_ms);
    }
    answer_shares_ms.sort_by(f64::total_cmp);
    println!("our handler time less TorchServe's latency, ms: {answer_shares_ms:.2?}");
    assert!(
        answer_shares_ms[0] < ANSWER_SHARE_MS,
        "{answer_shares_ms:?}"
    );
    agent.stop();
}

/// Whether a worker answered with predictions, of whatever status.
fn predicted(row: &Logged) -> bool {
    row.worker.as_ref().is_some_and(|worker| worker.code == 200)
}

#[test]
fn the_families_of_times_are_what_the_request_log_adds_up_to() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_turn) = gate::kernel() else { return };
    let torchserve = TorchServe::start(&installed, &[]);
    let agent = Agent::start::<&str>(&[]);
    let mut client = Client::new(torchserve.ports.inference);
    for (target, body, status) in TRAFFIC {
        assert_eq!(client.status("POST", target, body), status, "{target}");
    }
    let rows = agent.rows(TRAFFIC.len() - 1, |row| row.purpose == "inference");
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
                sum_us(&Logged::inner_queue_ns),
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
    let queue_ms = (last(None).inner_queue_ns().unwrap() / 1_000_000) as f64;
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
