//! Tests with a real Prometheus, which scrapes the agent, and its promtool, which checks the agent's own families.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

mod expressions;
mod load;
mod rules;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    report::row,
    require_kernel::require_kernel,
    server::Server,
    torchserve::{
        self, TorchServe,
        traffic::{self, EVERY_ROW},
    },
};
use serde_json::Value;

use server::{PATIENCE, Prometheus, program};

/// Returns name, type and help of each family that a job exports.
fn families(prometheus: &Prometheus, job: &str) -> BTreeSet<[String; 3]> {
    let matching = format!("match_target=%7Bjob=%22{job}%22%7D");
    let answer = prometheus.ask(&format!("/api/v1/targets/metadata?{matching}"));
    let text = |family: &Value, key: &str| family[key].as_str().unwrap().to_owned();
    let families = answer["data"].as_array().unwrap().iter();
    families
        .map(|family| ["metric", "type", "help"].map(|key| text(family, key)))
        .collect()
}

/// Returns the labels of each series that a job exports, without those that Prometheus adds.
fn series(prometheus: &Prometheus, job: &str) -> BTreeSet<BTreeMap<String, String>> {
    let answer = prometheus.ask(&format!("/api/v1/series?match%5B%5D=%7Bjob=%22{job}%22%7D"));
    let series = answer["data"].as_array().unwrap().iter();
    series
        .map(|labels| {
            let mut labels: BTreeMap<String, String> =
                serde_json::from_value(labels.clone()).unwrap();
            labels.retain(|name, _| name != "job" && name != "instance");
            labels
        })
        .collect()
}

#[test]
fn prometheus_reads_the_same_from_torchserve_and_agent() {
    let (Some(program), Some(installed)) = (program("prometheus"), torchserve::installed()) else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start::<&str>(&[]);
    let torchserve = TorchServe::start(&installed, &[]);
    traffic::send(torchserve.ports, &EVERY_ROW, 2, 1);
    agent.wait_sum("Requests2XX", &[], 1.0);
    let jobs = [
        ("torchserve", torchserve.ports.metrics),
        ("inferprobe", agent.port),
    ];
    let prometheus = Prometheus::start(&program, &jobs);
    let (ours, theirs) = wait_for("both pages in Prometheus", PATIENCE, || {
        let theirs = families(&prometheus, "torchserve");
        let names: BTreeSet<&String> = theirs.iter().map(|[name, ..]| name).collect();
        let is_theirs = |name: &str| names.iter().any(|one| *one == name);
        let mut ours = families(&prometheus, "inferprobe");
        ours.retain(|[name, ..]| is_theirs(name));
        let mut our_series = series(&prometheus, "inferprobe");
        our_series.retain(|labels| is_theirs(&labels["__name__"]));
        let mut their_series = series(&prometheus, "torchserve");
        their_series.retain(|labels| is_theirs(&labels["__name__"]));
        let is_whole = theirs.len() == 21 && our_series == their_series;
        is_whole.then(|| (ours, theirs.clone()))
    });
    // Prometheus requests OpenMetrics, in which TorchServe's names cannot be those of counters.
    let in_openmetrics = theirs.into_iter().map(|[name, kind, help]| {
        let kind = if kind == "counter" {
            "unknown".into()
        } else {
            kind
        };
        [name, kind, help]
    });
    assert_eq!(ours, in_openmetrics.collect());
    row(
        "scraped by Prometheus, in OpenMetrics",
        "names, HELP and series; types but for counters, which are unknown",
        "21 families",
        "the same",
        "equal",
    );
    agent.stop();
}

/// Waits until Prometheus has scraped the agent, and asserts that it reports no error.
fn assert_scraped(prometheus: &Prometheus) {
    wait_for("a scraped target", PATIENCE, || {
        (prometheus.value("up") == Some(1.0)).then_some(())
    });
    let targets = prometheus.ask("/api/v1/targets");
    let target = targets.pointer("/data/activeTargets/0").unwrap();
    assert_eq!(target["health"], "up", "{target}");
    assert_eq!(target["lastError"], "", "{target}");
}

/// Asserts that promtool finds no fault in the agent's own families.
fn assert_lint_free(agent: &Agent, promtool: &Path) {
    let page = agent.get("/metrics").1;
    let ours: String = page
        .lines()
        .filter(|line| {
            let line = line
                .trim_start_matches("# HELP ")
                .trim_start_matches("# TYPE ");
            line.starts_with("inferprobe_") || line.starts_with("process_")
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(
        ours.contains("# TYPE inferprobe_requests_total counter\n"),
        "{page}"
    );
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(ours.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "promtool: {said}"
    );
}

#[test]
fn prometheus_scrapes_host_metrics() {
    let (Some(prometheus), Some(promtool)) = (program("prometheus"), program("promtool")) else {
        return;
    };
    let agent = Agent::start(&["--no-probes"]);
    assert_lint_free(&agent, &promtool);
    let prometheus = Prometheus::start(&prometheus, &[("inferprobe", agent.port)]);
    assert_scraped(&prometheus);
    assert!(prometheus.value("MemoryUsed").unwrap() > 0.0);
    agent.stop();
}

#[test]
fn prometheus_scrapes_measured_requests() {
    let (Some(prometheus), Some(promtool)) = (program("prometheus"), program("promtool")) else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let mut client = Connection::open(&server.place).unwrap();
    for _ in 0..5 {
        let bytes = request("POST", "/predictions/scraped?sleep_ms=2", &[], b"{}");
        client.exchange(&bytes).unwrap();
    }
    agent.wait_sum("inferprobe_requests_total", &[], 5.0);
    assert_lint_free(&agent, &promtool);
    let prometheus = Prometheus::start(&prometheus, &[("inferprobe", agent.port)]);
    assert_scraped(&prometheus);
    let query = "inferprobe_requests_total%7Bmodel=%22scraped%22,code=%22200%22%7D";
    let counted = wait_for("our counter in Prometheus", PATIENCE, || {
        prometheus.value(query)
    });
    assert_eq!(counted, 5.0);
    let query = "inferprobe_request_handler_seconds_sum%7Bmodel=%22scraped%22%7D";
    assert!(prometheus.value(query).unwrap() >= 0.010);
    agent.stop();
}
