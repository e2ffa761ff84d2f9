//! Runs the scaling commands against a real TorchServe, which reports its own workers.

use std::time::Duration;

use inferprobe_tests::{
    agent::run::{Ended, run_to_end},
    autoscale::{Autoscale, MockAgent},
    clock::wait_for,
    require_kernel::share_machine,
    torchserve::{self, TorchServe, Worker},
};

/// Longest wait for workers to come or go.
const PATIENCE: Duration = Duration::from_secs(60);

fn await_ready(torchserve: &TorchServe, count: usize) {
    wait_for(&format!("{count} ready workers"), PATIENCE, || {
        let workers = torchserve.describe("tiny");
        let ready = workers.iter().all(Worker::is_ready);
        (ready && workers.len() == count).then_some(())
    });
}

fn scale(torchserve: &TorchServe, words: &str) -> Ended {
    let address = format!("http://127.0.0.1:{}", torchserve.ports.management);
    let mut args = vec!["scale"];
    args.extend(words.split(' '));
    args.extend(["--management", &address]);
    run_to_end(&args)
}

#[test]
fn scale_changes_the_workers_that_torchserve_describes() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let _machine = share_machine();
    let torchserve = TorchServe::start(&installed, &[]);

    let ended = scale(&torchserve, "tiny --min-worker 3 --synchronous");
    assert_eq!(
        ended.stdout, "Workers scaled to 3 for model: tiny\n",
        "{ended:?}"
    );
    assert_eq!(ended.code, Some(0));
    await_ready(&torchserve, 3);

    // TorchServe ends every worker on the first of these, and all but one on some others.
    let before = torchserve.describe("tiny");
    for (words, code, message) in [
        (
            "tiny --min-worker -1",
            2,
            "--min-worker \"-1\": not a number of workers",
        ),
        (
            "tiny --min-worker 3 --max-worker 1",
            2,
            "--max-worker \"1\": less than --min-worker 3",
        ),
        (
            "tiny --min-worker 2147483648",
            2,
            "--min-worker \"2147483648\": not a number",
        ),
        (
            "tiny/1.0 --min-worker 1",
            2,
            "MODEL \"tiny/1.0\": not a valid TorchServe name",
        ),
        (
            "nosuch --min-worker 1",
            1,
            "404 ModelNotFoundException Model not found: nosuch; GET http://",
        ),
        (
            "tiny --min-worker 1 --model-version 2.0",
            1,
            "404 ModelVersionNotFoundException Model version: 2.0 does not exist for model: tiny; GET http://",
        ),
    ] {
        let ended = scale(&torchserve, words);
        assert_eq!(ended.code, Some(code), "{words}: {ended:?}");
        assert!(ended.stderr.contains(message), "{words}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{words}: {ended:?}");
    }
    assert_eq!(torchserve.describe("tiny"), before);

    // Workers between the bounds are kept, and those above are removed.
    let ended = scale(
        &torchserve,
        "tiny --min-worker 1 --max-worker 3 --synchronous",
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(torchserve.describe("tiny"), before);
    let ended = scale(&torchserve, "tiny --min-worker 1 --model-version 1.0");
    assert_eq!(ended.stdout, "Processing worker updates...\n", "{ended:?}");
    await_ready(&torchserve, 1);
    torchserve.stop();
}

#[test]
fn autoscale_follows_the_queue_of_a_mock_agent() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let _machine = share_machine();
    let torchserve = TorchServe::start(&installed, &[]);
    let agent = MockAgent::start(200);
    let flags = "--min 1 --max 3 --target-queue-ms 20 --cool-down 2 --down-after 2";
    let flags: Vec<_> = flags.split(' ').collect();
    let management_port = torchserve.ports.management;
    let mut autoscale = Autoscale::start(agent.server.port, management_port, &flags);

    await_ready(&torchserve, 3);
    autoscale.await_decision("reason=\"queue 200.0 ms is above 4 times the target of 20 ms, and 3 workers are the most\"");
    let metrics = autoscale.metrics();
    let tiny = [("model", "tiny")];
    assert_eq!(
        metrics.sum("inferprobe_autoscale_desired_workers", &tiny),
        3.0
    );
    assert_eq!(
        metrics.sum("inferprobe_autoscale_actual_workers", &tiny),
        3.0
    );

    agent.set_queue_ms(0);
    await_ready(&torchserve, 1);
    autoscale.await_decision("reason=\"no requests, and 1 workers are the fewest\"");
    let counts: Vec<_> = autoscale
        .decisions()
        .iter()
        .filter_map(|line| {
            let changed = line.contains("decision=up") || line.contains("decision=down");
            let desired = line.split_once("desired=")?.1.split(' ').next()?;
            changed.then(|| desired.to_owned())
        })
        .collect();
    assert_eq!(counts, ["2", "3", "2", "1"], "{:#?}", autoscale.decisions());
    autoscale.stop();
    torchserve.stop();
}
