//! Sends requests over TLS to servers of several kinds, and compares the agent with their own marks.

use std::time::{Duration, Instant};

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    require_kernel::require_kernel,
    server_cases::hosts::{self, Kind, Marks},
    tls::{Load, Sent, TlsServer},
};

const REQUESTS: usize = 60;
const LOAD: Load = Load {
    requests: REQUESTS,
    connections: 4,
    per_connection: REQUESTS,
    version: "1.3",
    alpn: "-",
    body_bytes: 40,
    certified: false,
};

fn watch(server: &TlsServer) -> Agent {
    Agent::start(&["--watch-port", &server.port.to_string()])
}

/// Sends `load` to a server, and checks that each request counts once and is timed inside the server's own calls. `labels` are
/// those that at least one connection counts under.
fn each_request_is_timed(kind: Kind, load: Load, labels: &[(&str, &str)]) {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let Some(installed) = hosts::installed() else {
        return;
    };
    let server = TlsServer::start(kind, load.certified, &installed);
    let agent = watch(&server);
    let sent = server.load(load);
    let counted = load.requests as f64;
    agent.wait_sum("inferprobe_requests_total", &[("code", "unknown")], counted);
    let page = agent.metrics();
    for (name, expected) in [
        ("inferprobe_requests_total", counted),
        ("inferprobe_tls_requests_total", counted),
        ("inferprobe_requests_unfinished_total", 0.0),
        ("inferprobe_records_lost_total", 0.0),
        ("inferprobe_coverage_ratio", 1.0),
        ("Requests2XX", 0.0),
        ("ts_inference_requests_total", 0.0),
    ] {
        assert_eq!(page.sum(name, &[]), expected, "{name}");
    }
    assert!(page.sum("inferprobe_tls_connections_total", labels) > 0.0);
    assert!(page.sum("inferprobe_tls_unread_bytes_total", &[]) > 0.0);
    let rows = agent.rows(load.requests, |_| true);
    let marks = server.marks(load.requests);
    let faults: Vec<String> = sent
        .iter()
        .filter_map(|sent| fault_of(sent, &rows, &marks, load.body_bytes))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    agent.stop();
}

/// What is wrong with the row of a request.
fn fault_of(sent: &Sent, rows: &[Logged], marks: &[Marks], body_bytes: usize) -> Option<String> {
    let row = rows
        .iter()
        .find(|row| row.peer_port == Some(sent.port) && row.seq == sent.index);
    let marks = marks.iter().find(|marks| marks.case == sent.case);
    let (Some(row), Some(marks)) = (row, marks) else {
        return Some(format!("{sent:?} has no row, or no marks"));
    };
    let begun_ns = marks.begun_ns?;
    let least = body_bytes as u64;
    let is_right = row.status == 0
        && row.last_read_ns <= begun_ns
        && row.first_write_ns.is_none_or(|ns| ns >= begun_ns)
        && row.last_write_ns.is_some_and(|ns| ns >= begun_ns)
        && (least..least + 600).contains(&row.request_bytes)
        && (row.first_write_ns.is_none() || (least..least + 600).contains(&row.response_bytes));
    (!is_right).then(|| format!("{sent:?}: {row:?} {marks:?}"))
}

#[test]
fn uvicorn_with_tls_1_3() {
    let labels = [("version", "1.3"), ("resumed", "no"), ("alpn", "none")];
    each_request_is_timed(Kind::UvicornAsyncio, LOAD, &labels);
}

#[test]
fn uvicorn_with_tls_1_2_and_resumed_sessions() {
    let load = Load {
        version: "1.2",
        per_connection: 3,
        ..LOAD
    };
    let labels = [("version", "1.2"), ("resumed", "yes")];
    each_request_is_timed(Kind::UvicornUvloop, load, &labels);
}

#[test]
fn uvicorn_with_resumed_sessions() {
    let load = Load {
        per_connection: 3,
        ..LOAD
    };
    let labels = [("version", "1.3"), ("resumed", "yes")];
    each_request_is_timed(Kind::UvicornUvloop, load, &labels);
}

#[test]
fn uvicorn_with_certificates_of_clients() {
    let load = Load {
        certified: true,
        ..LOAD
    };
    let labels = [("version", "1.3"), ("client_cert", "yes")];
    each_request_is_timed(Kind::UvicornAsyncio, load, &labels);
}

#[test]
fn uvicorn_with_long_bodies() {
    let load = Load {
        requests: 16,
        body_bytes: 300_000,
        ..LOAD
    };
    each_request_is_timed(Kind::UvicornUvloop, load, &[("version", "1.3")]);
}

#[test]
fn gunicorn_which_reads_the_head_of_each_record_by_itself() {
    each_request_is_timed(Kind::Gunicorn, LOAD, &[("version", "1.3")]);
}

#[test]
fn hypercorn_with_http1_by_alpn() {
    let load = Load {
        alpn: "http/1.1",
        ..LOAD
    };
    each_request_is_timed(Kind::Hypercorn, load, &[("alpn", "http/1.1")]);
}

#[test]
fn http2_counts_as_connections_and_bytes() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let Some(installed) = hosts::installed() else {
        return;
    };
    let server = TlsServer::start(Kind::Hypercorn, false, &installed);
    let agent = watch(&server);
    let load = Load {
        alpn: "h2",
        per_connection: 20,
        ..LOAD
    };
    server.load(load);
    let connections = "inferprobe_tls_connections_total";
    agent.wait_sum(connections, &[("alpn", "h2")], 1.0);
    let busy = "inferprobe_tls_multiplexed_busy_seconds_total";
    agent.wait_sum(busy, &[], f64::MIN_POSITIVE);
    let page = agent.metrics();
    let lost = "inferprobe_records_lost_total";
    for (name, labels, expected) in [
        ("inferprobe_requests_total", &[][..], 0.0),
        ("inferprobe_tls_requests_total", &[], 0.0),
        ("inferprobe_requests_unfinished_total", &[], 0.0),
        (lost, &[("reason", "tls_multiplexed")], 1.0),
        (lost, &[], 1.0),
    ] {
        assert_eq!(page.sum(name, labels), expected, "{name}");
    }
    agent.stop();
}

/// Longest time to end with probes in a server: the kernel detaches one after the other.
const DETACHED: Duration = Duration::from_secs(20);

/// Sends requests to a server whose plaintext is read, and checks that each has the row that it has without TLS.
/// `starts_first`: the server starts before the agent.
fn each_request_is_read(kind: Kind, starts_first: bool) {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let Some(installed) = hosts::installed() else {
        return;
    };
    let start = |option: &str, watched: &str| Agent::start(&["--tls", "openssl", option, watched]);
    let serve = || TlsServer::start(kind, false, &installed);
    let (server, agent) = match starts_first {
        true => {
            let server = serve();
            let agent = start("--watch-port", &server.port.to_string());
            (server, agent)
        }
        false => {
            let agent = start("--watch-exe", "uvicorn.*uvloop");
            (serve(), agent)
        }
    };
    // The first requests come before the probes, if the server was just started.
    let warm_up = Load {
        requests: 4,
        connections: 1,
        per_connection: 1,
        ..LOAD
    };
    // Those of other tests may be watched too.
    let port = server.port.to_string();
    let read = [("content", "read"), ("port", &*port)];
    let requests = "inferprobe_tls_requests_total";
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut warmed = 0;
    while agent.metrics().sum(requests, &read) == 0.0 {
        assert!(Instant::now() < deadline, "nothing is read");
        server.load(warm_up);
        warmed += warm_up.requests;
        agent.wait_sum(requests, &read[1..], warmed as f64);
    }
    let before = agent.metrics().sum(requests, &read);
    let sent = server.load(LOAD);
    agent.wait_sum(requests, &read, before + LOAD.requests as f64);
    if starts_first {
        let page = agent.metrics();
        for name in [
            "inferprobe_records_lost_total",
            "inferprobe_requests_unfinished_total",
        ] {
            assert_eq!(page.sum(name, &[]), 0.0, "{name}");
        }
    }
    let is_of =
        |row: &Logged, sent: &Sent| row.peer_port == Some(sent.port) && row.seq == sent.index;
    let rows = agent.rows(LOAD.requests, |row| {
        sent.iter().any(|sent| is_of(row, sent))
    });
    let marks = server.marks(warmed + LOAD.requests);
    for sent in &sent {
        let row = rows.iter().find(|row| is_of(row, sent)).expect("a row");
        // Those of the warm-up come first.
        let marks = marks.iter().rfind(|marks| marks.case == sent.case);
        let marks = marks.expect("marks");
        let begun_ns = marks.begun_ns.unwrap();
        assert_eq!((&*row.method, row.status), ("POST", 200), "{row:?}");
        assert!(row.last_read_ns <= begun_ns, "{row:?} {marks:?}");
        assert!(
            row.first_write_ns.is_some_and(|ns| ns >= begun_ns),
            "{row:?} {marks:?}"
        );
    }
    agent.stop_within(DETACHED);
}

#[test]
fn plaintext_of_uvicorn_is_read() {
    each_request_is_read(Kind::UvicornAsyncio, true);
}

#[test]
fn plaintext_of_a_server_that_starts_later_is_read() {
    each_request_is_read(Kind::UvicornUvloop, false);
}

#[test]
fn plaintext_of_a_pool_of_threads_is_read() {
    each_request_is_read(Kind::Gunicorn, true);
}
