//! Compares the counters while workers, and the agent itself, come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    clock::{monotonic_ns, wait_for},
    cpu_steal::CpuTime,
    exposition::Exposition,
    report::row,
    require_kernel::require_kernel,
    torchserve::{
        self, TorchServe,
        alike::assert_alike,
        counters::{Counters, assert_nothing_lost, losses},
        traffic::{self, Answered, Client, EVERY_ROW},
    },
};

/// Longest time until the agent notices a change.
const PATIENCE: Duration = Duration::from_secs(10);
/// Loss reason for the frame that an ended worker had read.
const UNANSWERED: &str = "inferprobe_records_lost_total: worker_unanswered";
/// Loss reason for a reply that is not used for the response.
const UNPAIRED: &str = "inferprobe_records_lost_total: reply_unpaired";
/// Loss reason for requests in flight when the agent starts.
const READ_BEFORE: &str = "inferprobe_records_lost_total: read_before_watch";
/// Stages that are unknown for the first bytes on a connection from before the agent: a client's, and a worker's.
const QUEUE_UNKNOWN: &str = "inferprobe_request_stage_unknown_total: queue";
const INNER_QUEUE_UNKNOWN: &str = "inferprobe_request_stage_unknown_total: inner_queue";

/// `WorkerLoadTime` by worker.
fn load_times_ms(page: &Exposition) -> BTreeMap<String, f64> {
    let samples = page.samples("WorkerLoadTime", &[]);
    samples
        .map(|sample| {
            let name = sample.label("WorkerName").unwrap();
            (name.to_owned(), sample.value)
        })
        .collect()
}

/// Returns the ids of the workers with load times.
fn ids(page: &Exposition) -> BTreeSet<u16> {
    let names = load_times_ms(page).into_keys();
    names
        .map(|name| name.split('-').nth(1).unwrap().parse().unwrap())
        .collect()
}

/// Waits until the agent knows all workers of `model`.
fn await_workers(agent: &Agent, model: &str, count: u32) {
    wait_for(&format!("{count} workers of {model}"), PATIENCE, || {
        let labels = [("model", model), ("version", "1.0")];
        let found = agent.metrics().sum("inferprobe_workers", &labels);
        (found == f64::from(count)).then_some(())
    });
}

/// Returns how many responses were no success.
fn failed(answers: &[Answered]) -> usize {
    answers.iter().filter(|answer| answer.status != 200).count()
}

#[test]
fn every_response_counts_while_workers_come_and_go() {
    const SCENARIO: &str = "1 to 3 to 1 workers, 8 clients";
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let start = CpuTime::now();
    let agent = Agent::start::<&str>(&[]);
    let torchserve = TorchServe::start(&installed, &[]);
    let port = torchserve.ports.inference;
    traffic::while_asking(port, "tiny", 8, 10, |traffic| {
        traffic.await_answers(50);
        for workers in [3, 1] {
            torchserve.scale("tiny", workers, workers);
            await_workers(&agent, "tiny", workers);
            traffic.await_answers(100);
        }
    });
    let none = Counters::default();
    let (ours, theirs) = Counters::of_both(&agent, &none, &torchserve, &none);
    assert_alike(SCENARIO, start, &ours, &theirs);

    wait_for(
        "the workers that are there, and no others",
        PATIENCE,
        || (ids(&agent.metrics()) == torchserve.running()).then_some(()),
    );
    let [ours, theirs] = [agent.metrics(), torchserve.metrics()].map(|page| ids(&page).len());
    // TorchServe still exports the load times of ended workers.
    assert!(ours < 4 && theirs == 4, "{ours}, TorchServe {theirs}");
    row(
        SCENARIO,
        "workers with a WorkerLoadTime, those gone left out",
        &theirs.to_string(),
        &ours.to_string(),
        "documented difference",
    );
    // If TorchServe ends a worker at work, it responds itself or asks another worker. It drops the first one's reply.
    let mut lost = losses(&agent.metrics());
    let ended = [UNANSWERED, UNPAIRED].map(|why| lost.remove(why).unwrap_or_default());
    assert!(ended.into_iter().sum::<f64>() <= 2.0, "{ended:?}");
    assert!(lost.is_empty(), "{lost:?}");
    agent.stop();
}

#[test]
fn killed_worker_fails_only_its_own_request() {
    const SCENARIO: &str = "a worker killed at work";
    const WAITING: u64 = 3;
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let start = CpuTime::now();
    let agent = Agent::start::<&str>(&[]);
    let torchserve = TorchServe::start(&installed, &[]);
    let port = torchserve.ports.inference;
    traffic::send(torchserve.ports, &EVERY_ROW, 1, 1);
    let worker = torchserve.describe("tiny").remove(0);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let ask = |sleep_ms: u32| {
            let body = format!(r#"{{"sleep_ms": {sleep_ms}}}"#);
            scope.spawn(move || Client::new(port).status("POST", "/predictions/tiny", &body))
        };
        let mut clients = vec![ask(60_000)];
        wait_for("a worker at work", PATIENCE, || {
            worker.is_working().then_some(())
        });
        clients.extend((0..WAITING).map(|_| ask(5)));
        wait_for("requests that wait", PATIENCE, || {
            (torchserve.pending("tiny") == WAITING).then_some(())
        });
        torchserve.replace_killed("tiny", &worker);
        let statuses = clients.into_iter().map(|client| client.join().unwrap());
        statuses.collect()
    });
    // TorchServe responds with 507 if it knows of the signal by then, and else with 500.
    assert!(matches!(statuses[0], 500 | 507), "{statuses:?}");
    assert_eq!(statuses[1..], [200, 200, 200]);
    traffic::send(torchserve.ports, &EVERY_ROW, 4, 1);
    let none = Counters::default();
    let (ours, theirs) = Counters::of_both(&agent, &none, &torchserve, &none);
    assert_alike(SCENARIO, start, &ours, &theirs);

    let unanswered = [("reason", "worker_unanswered")];
    agent.wait_sum("inferprobe_records_lost_total", &unanswered, 1.0);
    let lost = BTreeMap::from([(UNANSWERED.to_owned(), 1.0)]);
    assert_eq!(losses(&agent.metrics()), lost);
    await_workers(&agent, "tiny", 1);
    let name = format!("W-{}-tiny_1.0", worker.port);
    let [ours_ms, theirs_ms] =
        [agent.metrics(), torchserve.metrics()].map(|page| load_times_ms(&page)[&name]);
    // TorchServe counts from the start of the first worker, and waits for a second before it starts the next.
    let own = ours_ms > 0.0 && ours_ms + 1_000.0 < theirs_ms;
    assert!(own, "{ours_ms}, TorchServe {theirs_ms}");
    row(
        SCENARIO,
        "WorkerLoadTime of its successor, ms",
        &theirs_ms.to_string(),
        &ours_ms.to_string(),
        "documented difference",
    );
    agent.stop();
}

/// Returns the rows of inference requests, each of which must be counted once.
fn inferences(rows: Vec<Logged>) -> Vec<Logged> {
    let is_inference = |row: &Logged| row.purpose == "inference";
    rows.into_iter().filter(is_inference).collect()
}

#[test]
fn agent_restarted_under_traffic_counts_once_and_reports_its_losses() {
    const SCENARIO: &str = "the agent restarted under traffic, 4 clients, 100 ms each";
    const CLIENTS: usize = 4;
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let torchserve = TorchServe::start(&installed, &["default_workers_per_model=2"]);
    let port = torchserve.ports.inference;
    let first = Agent::start::<&str>(&[]);
    let mut restart = None;
    let answers = traffic::while_asking(port, "tiny", CLIENTS, 100, |traffic| {
        traffic.await_answers(20);
        let stopped_ns = monotonic_ns();
        let rows = first.stop_for_log();
        traffic.await_answers(8);
        let second = Agent::start::<&str>(&[]);
        let started_ns = monotonic_ns();
        traffic.await_answers(20);
        restart = Some((stopped_ns, rows, second, started_ns));
    });
    let (stopped_ns, first_rows, second, started_ns) = restart.unwrap();
    assert_eq!(failed(&answers), 0, "{answers:?}");
    let asked_later = answers.iter().filter(|answer| answer.asked_ns > started_ns);
    let asked_later = asked_later.count();
    assert!(asked_later >= 20 - CLIENTS, "{answers:?}");
    second.rows(asked_later, |row| {
        row.purpose == "inference" && row.first_read_ns > started_ns
    });
    let page = second.metrics();
    let ours = page.sum("ts_inference_requests_total", &[]);
    let theirs = torchserve.metrics().sum("ts_inference_requests_total", &[]);
    assert_eq!(theirs, answers.len() as f64);
    let (first_rows, second_rows) = (inferences(first_rows), inferences(second.log()));
    assert_eq!(ours, second_rows.len() as f64);
    let first_end_ns = first_rows.iter().filter_map(|row| row.last_write_ns).max();
    let twice = second_rows
        .iter()
        .find(|row| Some(row.first_read_ns) <= first_end_ns);
    assert!(twice.is_none(), "{twice:?}");

    let mut lost = losses(&page);
    let said = lost.remove(READ_BEFORE).unwrap_or_default() as usize;
    let unwatched = answers
        .iter()
        .filter(|answer| (stopped_ns..started_ns).contains(&answer.answered_ns))
        .count();
    let missing = answers.len() - first_rows.len() - second_rows.len();
    println!("{missing} missing: {unwatched} answered without an agent, {said} read before");
    assert!((1..=CLIENTS).contains(&said), "{said}");
    assert!((said..=unwatched + said).contains(&missing), "{missing}");
    // The clients kept their connections, and bytes from before the watch are in no record.
    let queue_unknown = lost.remove(QUEUE_UNKNOWN).unwrap_or_default();
    assert!(queue_unknown <= CLIENTS as f64, "{queue_unknown}");
    assert!(lost.is_empty(), "{lost:?}");
    row(
        SCENARIO,
        "ts_inference_requests_total: before + after the restart",
        &theirs.to_string(),
        &format!("{} + {ours}", first_rows.len()),
        &format!("{missing} missing, {said} of them said"),
    );
    second.stop();
}

#[test]
fn workers_on_tcp_are_watched_as_on_unix_sockets() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let start = CpuTime::now();
    let agent = Agent::start::<&str>(&[]);
    let torchserve = TorchServe::start(&installed, &["use_native_io=false"]);
    traffic::send(torchserve.ports, &EVERY_ROW, 1, 1);
    traffic::send(torchserve.ports, &EVERY_ROW, 4, 2);
    let none = Counters::default();
    let (ours, theirs) = Counters::of_both(&agent, &none, &torchserve, &none);
    assert_alike("workers on TCP", start, &ours, &theirs);
    assert_nothing_lost(&agent);
    assert_eq!(ids(&agent.metrics()), ids(&torchserve.metrics()));
    await_workers(&agent, "tiny", 1);
    await_workers(&agent, "twin", 1);
    agent.stop();

    let agent = Agent::start::<&str>(&[]);
    let theirs_base = Counters::of_torchserve(&torchserve);
    // The scrape is the first request that the agent observes.
    let ours_base = Counters::of_agent(&agent, &none, 1.0);
    let mut client = Client::new(torchserve.ports.inference);
    for _ in 0..2 {
        client.predict("tiny", 1);
        client.predict("twin", 1);
    }
    traffic::send(torchserve.ports, &EVERY_ROW, 4, 1);
    let (ours, theirs) = Counters::of_both(&agent, &ours_base, &torchserve, &theirs_base);
    assert_alike(
        "workers on TCP, older than the agent",
        start,
        &ours,
        &theirs,
    );
    // The arrival of the first frame of each worker is unknown, and that of every later one is known.
    let lost = BTreeMap::from([(INNER_QUEUE_UNKNOWN.to_owned(), 2.0)]);
    assert_eq!(losses(&agent.metrics()), lost);
    await_workers(&agent, "tiny", 1);
    await_workers(&agent, "twin", 1);
    agent.stop();
}
