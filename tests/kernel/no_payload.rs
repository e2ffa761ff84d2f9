//! Compares an agent that reads no payload with the reference server's own clock.

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    check_times::{mismatches, pair},
    client::{Connection, request},
    require_kernel::require_kernel,
    server::Server,
};

const REQUESTS: usize = 40;

#[test]
fn requests_without_payload_are_only_counted_and_timed() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut server = Server::start(&[]);
    let port = server.port().to_string();
    let agent = Agent::start(&["--watch-port", &port, "--no-payload"]);
    let mut client = Connection::open(&server.place).unwrap();
    let mut sends = Vec::new();
    for index in 0..REQUESTS {
        let target = [
            "/a?status=201",
            "/b?status=404&sleep_ms=5&body=3000",
            "/ping",
        ][index % 3];
        let bytes = request("POST", target, &[], &[b'x'; 6_000]);
        sends.push(client.exchange(&bytes).unwrap().0);
    }
    drop(client);
    let counted = REQUESTS as f64;
    agent.wait_sum("inferprobe_requests_total", &[("code", "unknown")], counted);
    let page = agent.metrics();
    for (name, expected) in [
        ("inferprobe_requests_total", counted),
        ("inferprobe_admin_requests_total", 0.0),
        ("inferprobe_requests_unfinished_total", 0.0),
        ("inferprobe_records_lost_total", 0.0),
        ("inferprobe_coverage_ratio", 1.0),
        ("Requests2XX", 0.0),
        ("Requests5XX", 0.0),
        ("ts_inference_requests_total", 0.0),
    ] {
        assert_eq!(page.sum(name, &[]), expected, "{name}");
    }
    let rows = agent.rows(REQUESTS, |_| true);
    for ((stamp, row), sent) in pair(&server.stamps(REQUESTS), &rows).iter().zip(&sends) {
        assert_eq!((row.method.as_str(), row.status), ("", 0));
        let with_status = Logged {
            status: stamp.status,
            ..row.clone()
        };
        assert_eq!(
            mismatches(stamp, sent, &with_status),
            Vec::<String>::new(),
            "{row:?}"
        );
    }
    agent.stop();
}
