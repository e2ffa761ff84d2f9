//! Compares the agent's counters with those of a TorchServe whose clients speak TLS: its workers' connections are in clear.

use std::{collections::BTreeMap, path::Path, process::Command};

use inferprobe_tests::{
    agent::Agent,
    cpu_steal::CpuTime,
    report::equal,
    require_kernel::require_kernel,
    torchserve::{
        self, TorchServe,
        alike::assert_latency_alike,
        counters::{Counters, ModelVersion, losses},
        traffic::EVERY_ROW,
    },
};

const CLIENTS: usize = 4;
const ROUNDS: usize = 3;
const SCENARIO: &str = "clients over TLS";

/// Returns the sums of all versions: the version that a client asks for is in the path, which is not read.
fn by_model(counters: &BTreeMap<ModelVersion, f64>) -> BTreeMap<&str, f64> {
    let mut sums = BTreeMap::new();
    for ((model, _), value) in counters {
        *sums.entry(&**model).or_default() += value;
    }
    sums
}

#[test]
fn requests_over_tls_are_those_of_torchserve() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/torchserve"));
    let file = |name: &str| folder.join(name).display().to_string();
    let certificate = file("tls_cert.pem");
    let properties = [
        format!("private_key_file={}", file("tls_key.pem")),
        format!("certificate_file={certificate}"),
    ];
    let torchserve = TorchServe::start_tls(&installed, &properties.each_ref().map(|line| &**line));
    let agent = Agent::start::<&str>(&[]);
    let theirs_base = Counters::of_torchserve(&torchserve);
    let start = CpuTime::now();
    let output = Command::new(installed.join("venv/bin/python"))
        .arg(file("tls_client.py"))
        .args([torchserve.ports.inference.to_string(), certificate])
        .args([CLIENTS, ROUNDS].map(|number| number.to_string()))
        .arg(serde_json::to_string(&EVERY_ROW).unwrap())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let theirs = Counters::of_torchserve(&torchserve).since(&theirs_base);
    let sent = (CLIENTS * ROUNDS * EVERY_ROW.len()) as f64;
    let unknown = [("server", "torchserve"), ("code", "unknown")];
    agent.wait_sum("inferprobe_requests_total", &unknown, sent);
    let page = agent.metrics();
    let timed = [("server", "torchserve"), ("content", "timed")];
    assert_eq!(page.sum("inferprobe_tls_requests_total", &timed), sent);
    let ours = Counters::of(&page);
    // None but the scrapes of TorchServe's own metrics were read.
    assert_eq!(
        ours.answers["Requests4XX"] + ours.answers["Requests5XX"],
        0.0
    );
    let (of_ours, of_theirs) = (by_model(&ours.requests), by_model(&theirs.requests));
    assert_eq!(of_ours, of_theirs);
    let name = "ts_inference_requests_total, by model";
    let [ours_sum, theirs_sum] =
        [&of_ours, &of_theirs].map(|by_model| by_model.values().sum::<f64>());
    equal(SCENARIO, name, theirs_sum, ours_sum);
    assert_latency_alike(SCENARIO, start, &ours, &theirs);
    let lost = losses(&page);
    assert!(lost.is_empty(), "{lost:?}");
    agent.stop();
}
