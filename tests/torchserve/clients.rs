//! Compares clients that use gRPC or disconnect early with TorchServe's own counters.

use std::time::Duration;

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    report::row,
    require_kernel::require_kernel,
    socket_queues::unread,
    torchserve::{
        self, PredictionClient, TorchServe,
        counters::{Counters, assert_nothing_lost},
        traffic::Client,
    },
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Model, version, body, and the status of a call over gRPC.
const CALLS: [(&str, Option<&str>, &str, &str); 8] = [
    ("tiny", None, "{}", "OK"),
    ("tiny", Some("1.0"), r#"{"sleep_ms": 20}"#, "OK"),
    ("twin", None, r#"{"pad_bytes": 200000}"#, "OK"),
    ("tiny", None, r#"{"set_code": 400}"#, "OK"),
    ("tiny", None, r#"{"fail_code": 404}"#, "NOT_FOUND"),
    ("twin", None, r#"{"answer": "raise"}"#, "UNAVAILABLE"),
    ("unknown", None, "{}", "INTERNAL"),
    ("tiny", Some("9.9"), "{}", "INTERNAL"),
];

#[test]
fn grpc_calls_are_counted_as_by_torchserve() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let torchserve = TorchServe::start(&installed, &[]);
    let agent = Agent::start::<&str>(&[]);
    let none = Counters::default();
    let theirs_base = Counters::of_torchserve(&torchserve);
    let ours_base = Counters::of_agent(&agent, &none, 1.0);
    let port = torchserve.ports.grpc_inference;
    std::thread::scope(|scope| {
        for start in 0..4 {
            let installed = &installed;
            scope.spawn(move || {
                let mut client = PredictionClient::start(installed, port);
                for index in 0..3 * CALLS.len() {
                    let (model, version, body, code) = CALLS[(start + index) % CALLS.len()];
                    let called = client.predict(model, version, body);
                    assert_eq!(called.code, code, "{model} {version:?} {body}");
                }
                let long = format!(r#"{{"text": "{}"}}"#, "y".repeat(300_000));
                assert_eq!(client.predict("twin", None, &long).code, "OK");
                let streamed = client.stream("tiny", None, r#"{"stream": 4, "gap_ms": 2}"#);
                assert_eq!((&*streamed.code, streamed.parts), ("OK", 5));
            });
        }
    });
    // One over HTTP: what both count last.
    Client::new(torchserve.ports.inference).predict("twin", 1);
    let counted = 4.0 * (3.0 * 6.0 + 2.0) + 1.0;
    agent.wait_sum("ts_inference_requests_total", &[], counted);
    let (ours, theirs) = Counters::of_both(&agent, &ours_base, &torchserve, &theirs_base);
    assert_eq!(theirs.requests.values().sum::<f64>(), counted);
    assert_eq!(ours.counts(), theirs.counts());
    let models = |counters: &Counters| counters.latency_us.keys().cloned().collect::<Vec<_>>();
    assert_eq!(models(&ours), models(&theirs));
    assert_nothing_lost(&agent);
    let mut impatient = PredictionClient::start(&installed, port);
    impatient.predict("twin", None, "{}");
    let left = impatient.leave("tiny", Some("1.0"), r#"{"sleep_ms": 400}"#);
    assert_eq!(left.code, "DEADLINE_EXCEEDED");
    let counted = counted + 2.0;
    agent.wait_sum("ts_inference_requests_total", &[], counted);
    let (ours, theirs) = Counters::of_both(&agent, &ours_base, &torchserve, &theirs_base);
    assert_eq!(ours.counts(), theirs.counts());
    let counted = counted.to_string();
    row(
        "calls over gRPC",
        "ts_inference_requests_total",
        &counted,
        &counted,
        "equal",
    );
    let page = agent.metrics();
    let of_calls = page.sum(
        "inferprobe_requests_total",
        &[("model", "tiny"), ("code", "404")],
    );
    assert_eq!(of_calls, 12.0);
    agent.stop();
}

#[test]
fn requests_of_disconnected_clients_are_counted_as_by_torchserve() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let torchserve = TorchServe::start(&installed, &[]);
    let agent = Agent::start::<&str>(&[]);
    let none = Counters::default();
    let theirs_base = Counters::of_torchserve(&torchserve);
    let ours_base = Counters::of_agent(&agent, &none, 1.0);
    let fields = ["Content-Type: application/json"];
    // The first is running when its client disconnects, and the others wait in the queue.
    for (target, body) in [
        // Long enough for all of them to disconnect, however busy the machine is.
        ("/predictions/tiny", r#"{"sleep_ms": 3000}"#),
        ("/predictions/tiny", r#"{"sleep_ms": 5}"#),
        ("/predictions/tiny/1.0", r#"{"sleep_ms": 5}"#),
        ("/predictions/tiny", r#"{"set_code": 400}"#),
        ("/predictions/tiny", r#"{"answer": "raise"}"#),
    ] {
        let mut connection = Connection::open_tcp(torchserve.ports.inference).unwrap();
        let bytes = request("POST", target, &fields, body.as_bytes());
        connection.send(&bytes).unwrap();
        // TorchServe must have read it before its client disconnects.
        let pending = format!("{body} read by the server");
        wait_for(&pending, PATIENCE, || {
            (unread(torchserve.ports.inference) == 0).then_some(())
        });
    }
    // A client that disconnects within its request's body has sent no request.
    let whole = request("POST", "/predictions/tiny", &fields, b"{}");
    let mut connection = Connection::open_tcp(torchserve.ports.inference).unwrap();
    connection.send(&whole[..whole.len() - 1]).unwrap();
    drop(connection);
    Client::new(torchserve.ports.inference).predict("tiny", 1);
    let counted = agent.wait_sum("ts_inference_requests_total", &[], 6.0);
    let (ours, theirs) = Counters::of_both(&agent, &ours_base, &torchserve, &theirs_base);
    assert_eq!(ours.counts(), theirs.counts());
    let times = |counters: &Counters| counters.latency_us.keys().cloned().collect::<Vec<_>>();
    assert_eq!(times(&ours), times(&theirs));
    let page = agent.metrics();
    let unfinished = [
        "incomplete",
        "unanswered",
        "reset",
        "lost_records",
        "evicted",
    ]
    .map(|reason| {
        page.sum(
            "inferprobe_requests_unfinished_total",
            &[("reason", reason)],
        )
    });
    assert_eq!(unfinished, [1.0, 5.0, 0.0, 0.0, 0.0], "{:#?}", agent.log());
    assert_eq!(page.sum("inferprobe_records_lost_total", &[]), 0.0);
    let counted = counted.to_string();
    row(
        "clients that left",
        "ts_inference_requests_total",
        &counted,
        &counted,
        "equal",
    );
    agent.stop();
}
