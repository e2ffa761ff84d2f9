//! Records a real agent under load, and compares what `view` shows with what the agent says.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use inferprobe_tests::{
    agent::{Agent, run::run_to_end},
    client::{Connection, request},
    require_kernel::require_kernel,
    server::Server,
};
use serde_json::Value;

const PARTS: [&str; 8] = [
    "accept",
    "queue",
    "receive",
    "starved",
    "inner_queue",
    "worker",
    "handler",
    "stream",
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|err| panic!("{err}: {text}"))
}

/// Returns an answer of the API from the end of a recording.
fn shown(file: &str, view: &str) -> Value {
    shown_of(file, view, "")
}

/// Returns it of what a filter leaves.
fn shown_of(file: &str, view: &str, filter: &str) -> Value {
    let ended = run_to_end(&["view", file, "--json", "--view", view, "--filter", filter]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    json(&ended.stdout)
}

/// Adds up each part of all `rows`.
fn sums<'a>(rows: impl IntoIterator<Item = &'a Value>) -> [u64; 8] {
    let mut sums = [0; 8];
    for row in rows {
        for (sum, part) in sums.iter_mut().zip(PARTS) {
            *sum += row[part].as_u64().unwrap();
        }
    }
    sums
}

#[test]
fn view_shows_the_sums_and_the_verdict_of_the_agent() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    // Two replicas of a model.
    let servers = [Server::start(&[]), Server::start(&[])];
    let ports = servers.each_ref().map(|server| server.port().to_string());
    let agent = Agent::start(&["--watch-port", &ports[0], "--watch-port", &ports[1]]);
    let address = format!("127.0.0.1:{}", agent.port);
    let ends = AtomicBool::new(false);
    let recorded = thread::scope(|scope| {
        for (server, pause_ms) in servers.iter().zip([20, 60]) {
            let ends = &ends;
            scope.spawn(move || {
                let mut client = Connection::open(&server.place).unwrap();
                let bytes = request("POST", "/predictions/recorded", &[], b"{}");
                while !ends.load(Ordering::Relaxed) {
                    client.exchange(&bytes).unwrap();
                    thread::sleep(std::time::Duration::from_millis(pause_ms));
                }
            });
        }
        let recorded = run_to_end(&["record", "3s", "--url", &address]);
        ends.store(true, Ordering::Relaxed);
        recorded
    });
    assert_eq!(recorded.code, Some(0), "{}", recorded.stderr);
    assert!(recorded.stderr.contains(" 0 missed"), "{}", recorded.stderr);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recorded.jsonl");
    fs::write(&path, &recorded.stdout).unwrap();
    let file = path.to_str().unwrap();

    // What `view` shows is the last answer of the agent, verdict and all.
    let lines: Vec<Value> = recorded.stdout.lines().map(json).collect();
    let last = lines
        .iter()
        .rev()
        .find_map(|line| line.get("live"))
        .unwrap();
    let live = shown(file, "waterfall");
    assert_eq!(&live, last);
    let model = &live["models"][0];
    assert_eq!(model["served"]["model"], "recorded");
    assert!(model["verdict"]["headline"].is_string(), "{model}");

    // The windows have the sums of the requests, and those are what the agent counted.
    let requests = shown(file, "requests");
    let requests = requests["requests"].as_array().unwrap();
    let windows = shown(file, "heat");
    let windows = windows["windows"].as_array().unwrap();
    let of_requests = sums(requests.iter().map(|request| &request["stages_ns"]));
    let of_windows = sums(windows.iter().map(|window| &window["sums_ns"]));
    assert!(requests.len() > 50, "{}", requests.len());
    assert_eq!(of_requests, of_windows);
    let counted: u64 = windows
        .iter()
        .map(|window| window["requests"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, requests.len() as u64);
    let of_agent = json(&run_to_end(&["top", &address, "--json", "--view", "heat"]).stdout);
    let numbers: Vec<u64> = requests
        .iter()
        .map(|request| request["number"].as_u64().unwrap())
        .collect();
    let all = json(&run_to_end(&["top", &address, "--json", "--view", "requests"]).stdout);
    let all = all["requests"].as_array().unwrap();
    let also_recorded = all
        .iter()
        .filter(|request| numbers.contains(&request["number"].as_u64().unwrap()));
    assert_eq!(
        sums(also_recorded.map(|request| &request["stages_ns"])),
        of_windows
    );
    let in_all: u64 = of_agent["windows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|window| window["requests"].as_u64().unwrap())
        .sum();
    assert_eq!(in_all, all.len() as u64);

    // Each replica has its own.
    let each = ports.each_ref().map(|port| {
        let requests = shown_of(file, "requests", port);
        let requests = requests["requests"].as_array().unwrap();
        assert!(requests.iter().all(|one| one["labels"]["port"] == **port));
        let windows = shown_of(file, "heat", port);
        assert_eq!(windows["labels"][0]["port"], **port);
        let windows = windows["windows"].as_array().unwrap();
        let of_replica = sums(requests.iter().map(|request| &request["stages_ns"]));
        assert_eq!(
            of_replica,
            sums(windows.iter().map(|window| &window["sums_ns"]))
        );
        requests.len()
    });
    assert_eq!(each.iter().sum::<usize>(), requests.len());
    assert!(each.iter().all(|count| *count > 10), "{each:?}");

    // The same as text, and the verdict of a running agent.
    let text = run_to_end(&["view", file, "--once"]);
    assert!(text.stdout.contains("recorded"), "{}", text.stdout);
    let why = run_to_end(&["why", "recorded", "--url", &address]);
    assert_eq!(why.code, Some(0), "{}", why.stderr);
    assert!(why.stdout.contains("\nsure "), "{}", why.stdout);
    let slowest = run_to_end(&["why", "--slowest", "2", "--json", "--url", &address]);
    assert_eq!(
        json(&slowest.stdout)["requests"].as_array().unwrap().len(),
        2
    );
    agent.stop();
}
