//! What the real TorchServe of these tests answers when its handler is told how to fail.

use inferprobe_tests::{
    client::{Connection, request},
    torchserve::{self, TorchServe},
};

#[test]
fn the_handler_ends_each_request_as_its_body_says() {
    let Some(installed) = torchserve::installed() else {
        return;
    };
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
        (r#"{"answer": "die"}"#, 500),
    ];
    for (body, status) in cases {
        let mut client = Connection::open_tcp(torchserve.ports.inference).unwrap();
        let fields = ["Content-Type: application/json"];
        let bytes = request("POST", "/predictions/tiny", &fields, body.as_bytes());
        let (_, answer) = client.exchange(&bytes).unwrap();
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    let counted = torchserve.metrics();
    let requests = counted.sum(
        "ts_inference_requests_total",
        &[("model_name", "tiny"), ("model_version", "default")],
    );
    assert_eq!(requests, cases.len() as f64);
    torchserve.stop();
}
