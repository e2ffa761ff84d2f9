//! Checks that the TorchServe of these tests does what its handler, management and configuration ask for.

use inferprobe_tests::{
    client::{Connection, Response, request},
    require_kernel::share_machine,
    torchserve::{self, PredictionClient, Registration, TorchServe, Worker},
};

const REQUESTS: &str = "ts_inference_requests_total";

fn predict(port: u16, model: &str, body: &str) -> Response {
    let mut client = Connection::open_tcp(port).unwrap();
    let fields = ["Content-Type: application/json"];
    let target = format!("/predictions/{model}");
    let bytes = request("POST", &target, &fields, body.as_bytes());
    client.exchange(&bytes).unwrap().1
}

#[test]
fn handler_ends_each_request_as_its_body_says() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let _machine = share_machine();
    let torchserve = TorchServe::start(&installed, &[]);
    let cases = [
        ("{}", 200),
        (r#"{"fail_code": 400}"#, 400),
        (r#"{"fail_code": 404}"#, 404),
        (r#"{"fail_code": 413}"#, 507),
        (r#"{"fail_code": 302}"#, 302),
        (r#"{"set_code": 400}"#, 400),
        (r#"{"set_code": 503}"#, 503),
        (r#"{"answer": "raise"}"#, 503),
        (r#"{"answer": "memory"}"#, 507),
        (r#"{"answer": "not-a-list"}"#, 503),
        (r#"{"stream": 5, "gap_ms": 3}"#, 200),
        (r#"{"answer": "die"}"#, 500),
    ];
    for (body, status) in cases {
        let answer = predict(torchserve.ports.inference, "tiny", body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        let is_stream = body.contains("stream");
        assert_eq!(answer.head.chunked(), is_stream, "{body}: {answer:?}");
        if is_stream {
            // Five parts, and the response as it always is.
            assert_eq!(answer.body.len(), 5 * 4 + 16);
        }
    }
    let counted = torchserve.metrics();
    let labels = [("model_name", "tiny"), ("model_version", "default")];
    assert_eq!(counted.sum(REQUESTS, &labels), cases.len() as f64);
    torchserve.stop();
}

#[test]
fn workers_are_scaled_replaced_and_given_batches() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let _machine = share_machine();
    let torchserve = TorchServe::start(&installed, &[]);
    let ports = |workers: &[Worker]| -> Vec<u16> {
        assert!(workers.iter().all(Worker::is_ready), "{workers:?}");
        workers.iter().map(|worker| worker.port).collect()
    };
    let first = torchserve.describe("tiny");
    torchserve.scale("tiny", 3, 3);
    let scaled = torchserve.describe("tiny");
    assert_eq!(ports(&scaled).len(), 3);
    assert!(scaled.contains(&first[0]), "{scaled:?}");
    torchserve.scale("tiny", 1, 1);
    let last = torchserve.describe("tiny");
    assert_eq!(ports(&last).len(), 1);

    let successor = torchserve.replace_killed("tiny", &last[0]);
    assert_eq!(torchserve.describe("tiny"), [successor]);
    let answer = predict(torchserve.ports.inference, "tiny", "{}");
    assert_eq!(answer.status, 200);

    torchserve.register(&Registration {
        archive: "tiny.mar",
        model: "batched",
        batch_size: 4,
        max_batch_delay_ms: 5_000,
        workers: 1,
    });
    assert_eq!(ports(&torchserve.describe("batched")).len(), 1);
    // One request's exception ends its whole batch, which is full long before the delay has passed.
    std::thread::scope(|scope| {
        for body in ["{}", "{}", "{}", r#"{"answer": "raise"}"#] {
            let inference = torchserve.ports.inference;
            scope.spawn(move || {
                let answer = predict(inference, "batched", body);
                assert_eq!(answer.status, 503, "{body}: {answer:?}");
            });
        }
    });
    torchserve.unregister("batched");
    let answer = predict(torchserve.ports.inference, "batched", "{}");
    assert_eq!(answer.status, 404);
    torchserve.stop();
}

#[test]
fn grpc_calls_get_one_part_or_many_and_count_with_their_version() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let _machine = share_machine();
    let torchserve = TorchServe::start(&installed, &[]);
    let mut client = PredictionClient::start(&installed, torchserve.ports.grpc_inference);
    for (version, body, code, parts) in [
        (None, "{}", "OK", 1),
        (Some("1.0"), "{}", "OK", 1),
        (None, r#"{"fail_code": 404}"#, "NOT_FOUND", 0),
        (Some("9.9"), "{}", "INTERNAL", 0),
    ] {
        let called = client.predict("tiny", version, body);
        assert_eq!((&*called.code, called.parts), (code, parts), "{called:?}");
    }
    let called = client.stream("twin", None, r#"{"stream": 5, "gap_ms": 3}"#);
    assert_eq!((&*called.code, called.parts), ("OK", 6), "{called:?}");
    assert!(called.time_ms >= 15.0, "{called:?}");
    let counted = torchserve.metrics();
    for (model, version, count) in [
        ("tiny", "default", 2.0),
        ("tiny", "1.0", 1.0),
        ("tiny", "9.9", 0.0),
        ("twin", "default", 1.0),
    ] {
        let labels = [("model_name", model), ("model_version", version)];
        assert_eq!(counted.sum(REQUESTS, &labels), count, "{labels:?}");
    }
    torchserve.stop();
}

#[test]
fn workers_without_native_io_listen_on_tcp() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
    let _machine = share_machine();
    let torchserve = TorchServe::start(&installed, &["use_native_io=false"]);
    for model in ["tiny", "twin"] {
        assert_eq!(predict(torchserve.ports.inference, model, "{}").status, 200);
        let workers = torchserve.describe(model);
        let worker = &workers[0];
        let pid = worker.pid.unwrap();
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let words: Vec<&str> = command.split('\0').collect();
        let port = worker.port.to_string();
        assert!(
            words.windows(2).any(|pair| pair == ["--sock-type", "tcp"]),
            "{words:?}"
        );
        assert!(
            words.windows(2).any(|pair| pair == ["--port", &port]),
            "{words:?}"
        );
    }
    torchserve.stop();
}
