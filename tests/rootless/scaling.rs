//! Runs the scaling commands against mock servers for TorchServe and for the agent.

use inferprobe_tests::{
    agent::{free_port, run::run_to_end},
    autoscale::{Autoscale, MockAgent},
    mock_http::MockServer,
};

/// Returns a mock TorchServe that describes `workers` ready workers of any model, and accepts every scaling.
fn management(workers: usize) -> MockServer {
    MockServer::start(move |asked| {
        if asked.starts_with("PUT ") {
            return (202, r#"{"status": "Processing worker updates..."}"#.into());
        }
        let worker = vec![r#"{"status": "READY"}"#; workers].join(",");
        let text = format!(
            r#"[{{"minWorkers": {workers}, "maxWorkers": {workers}, "workers": [{worker}],
               "jobQueueStatus": {{"pendingRequests": 0}}}}]"#
        );
        (200, text)
    })
}

#[test]
fn scale_prints_the_status_of_torchserve() {
    let torchserve = management(1);
    let address = format!("http://127.0.0.1:{}", torchserve.port);
    let args = [
        "scale",
        "tiny",
        "--min-worker",
        "2",
        "--management",
        &address,
    ];
    let ended = run_to_end(&args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "Processing worker updates...\n");
    let asked = ["PUT /models/tiny?min_worker=2&max_worker=2&synchronous=false"];
    assert_eq!(torchserve.requests(), asked);
}

#[test]
fn usage_error_ends_with_2_and_sends_no_request() {
    let torchserve = management(1);
    let address = format!("http://127.0.0.1:{}", torchserve.port);
    for args in [
        "scale tiny --min-worker -1",
        "scale tiny --min-worker 3 --max-worker 1",
        "scale tiny",
        "autoscale --model tiny --min 2 --max 1 --target-queue-ms 20",
        "autoscale --model tiny --min -1 --max 1 --target-queue-ms 20",
        "autoscale --model tiny --min 1 --max 2 --target-queue-ms 0",
    ] {
        let mut args: Vec<_> = args.split(' ').collect();
        args.extend(["--management", &address]);
        let ended = run_to_end(&args);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert_eq!(ended.stdout, "");
    }
    assert_eq!(torchserve.requests(), [""; 0]);
}

#[test]
fn missing_torchserve_ends_with_1_and_one_line() {
    let address = format!("http://127.0.0.1:{}", free_port());
    for args in [
        "scale tiny --min-worker 1",
        "autoscale --model tiny --min 1 --max 2 --target-queue-ms 20 --listen 127.0.0.1:0",
    ] {
        let mut args: Vec<_> = args.split(' ').collect();
        args.extend(["--management", &address]);
        let ended = run_to_end(&args);
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(&address), "{}", ended.stderr);
        let remedy = "start TorchServe, or give its management_address as --management\n";
        assert!(ended.stderr.ends_with(remedy), "{}", ended.stderr);
    }
}

#[test]
fn dry_run_prints_decisions_and_changes_nothing() {
    let (agent, torchserve) = (MockAgent::start(50), management(1));
    let flags = "--min 1 --max 4 --target-queue-ms 20 --cool-down 1 --dry-run";
    let flags: Vec<_> = flags.split(' ').collect();
    let mut autoscale = Autoscale::start(agent.server.port, torchserve.port, &flags);
    let decision = autoscale.await_decision("decision=up");
    let expected = " model=\"tiny\" workers=1/1 queue_ms=50.0 requests=10 pending=0 decision=up desired=2 \
                    reason=\"queue 50.0 ms is above the target of 20 ms\"";
    assert!(decision.ends_with(expected), "{decision}");
    agent.set_queue_ms(10);
    autoscale.await_decision("queue_ms=10.0");
    autoscale.stop();
    let asked = torchserve.requests();
    assert!(
        asked.iter().all(|asked| asked == "GET /models/tiny"),
        "{asked:?}"
    );
}

#[test]
fn decisions_are_executed_and_exported() {
    let (agent, torchserve) = (MockAgent::start(50), management(1));
    let flags = ["--min", "1", "--max", "4", "--target-queue-ms", "20"];
    let mut autoscale = Autoscale::start(agent.server.port, torchserve.port, &flags);
    let first = autoscale.await_decision("model");
    assert!(
        first.ends_with("decision=unknown desired=1 reason=\"first reading of the agent\""),
        "{first}"
    );
    // This TorchServe never does what it has accepted: only the cool-down prevents another request.
    autoscale.await_decision("but the cool-down lasts");
    let metrics = autoscale.metrics();
    let tiny = [("model", "tiny")];
    assert_eq!(
        metrics.sum("inferprobe_autoscale_actual_workers", &tiny),
        1.0
    );
    assert_eq!(
        metrics.sum("inferprobe_autoscale_queue_seconds", &tiny),
        0.05
    );
    let decisions = |decision| {
        let labels = [("model", "tiny"), ("decision", decision)];
        metrics.sum("inferprobe_autoscale_decisions_total", &labels)
    };
    assert_eq!(
        (decisions("up"), decisions("unknown"), decisions("down")),
        (1.0, 1.0, 0.0)
    );
    assert_eq!(autoscale.get("/healthz"), (200, "ok: deciding\n".into()));
    autoscale.stop();
    let asked = torchserve.requests();
    let puts = asked.iter().filter(|asked| asked.starts_with("PUT "));
    let expected = "PUT /models/tiny?min_worker=2&max_worker=2&synchronous=false";
    assert_eq!(puts.collect::<Vec<_>>(), [expected]);
    // It requests only the families that it needs from the agent.
    let scrape = agent.server.requests().first().unwrap().clone();
    let wanted = "GET /metrics?name%5B%5D=inferprobe_request_inner_queue_seconds&name%5B%5D=";
    assert!(scrape.starts_with(wanted), "{scrape}");
}

#[test]
fn autoscale_without_an_agent_holds_and_reports_it() {
    let (port, torchserve) = (free_port(), management(2));
    let flags = ["--min", "1", "--max", "4", "--target-queue-ms", "20"];
    let mut autoscale = Autoscale::start(port, torchserve.port, &flags);
    let decision = autoscale.await_decision("decision=unknown");
    let reason = format!(
        "workers=2/2 queue_ms=- requests=- pending=0 decision=unknown desired=2 \
                          reason=\"cannot reach the agent at http://127.0.0.1:{port}: cannot connect: "
    );
    assert!(decision.contains(&reason), "{decision}");
    let (status, text) = autoscale.get("/healthz");
    assert_eq!(status, 503, "{text}");
    assert!(
        text.starts_with("not deciding: cannot reach the agent"),
        "{text}"
    );
    autoscale.stop();
    assert!(
        torchserve
            .requests()
            .iter()
            .all(|asked| asked.starts_with("GET "))
    );
}
