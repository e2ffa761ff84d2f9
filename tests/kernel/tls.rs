//! Sends requests over TLS to servers of several kinds, and compares the agent with their own marks.

use std::{
    collections::HashMap,
    process::Command,
    time::{Duration, Instant},
};

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    exposition::Exposition,
    report,
    require_kernel::{require_kernel, skip_always},
    server_cases::hosts::{self, Kind, Marks},
    tls::{Load, NGINX_BODY_BYTES, Program, Sent, TlsServer},
};

/// Names the number of requests to each server, in place of [`REQUESTS`].
const REQUESTS_ENV: &str = "INFERPROBE_TEST_TLS_REQUESTS";
const REQUESTS: usize = 60;
const LOAD: Load = Load {
    requests: REQUESTS,
    connections: 4,
    per_connection: usize::MAX >> 1,
    version: "1.3",
    alpn: "-",
    body_bytes: NGINX_BODY_BYTES,
    certified: false,
};

fn watch(server: &TlsServer) -> Agent {
    Agent::start(&["--watch-port", &server.port.to_string()])
}

/// Sends `load` to a server, and checks that each request counts once and is timed inside the server's own calls. `labels` are
/// those that at least one connection counts under. Returns the page; `None` if the test is skipped.
fn each_request_is_timed(
    program: Program,
    load: Load,
    labels: &[(&str, &str)],
) -> Option<Exposition> {
    let load = Load {
        requests: requests().unwrap_or(load.requests),
        ..load
    };
    let _kernel = require_kernel()?;
    let installed = hosts::installed()?;
    if let Some(tool) = program.tool()
        && Command::new(tool).arg("-h").output().is_err()
    {
        skip_always(&format!("{tool} is not installed"));
        return None;
    }
    let server = TlsServer::start(program, load.certified, &installed);
    let agent = watch(&server);
    let sent = server.load(load);
    let counted = load.requests as f64;
    // Servers of others may run beside it.
    let port = server.port.to_string();
    let own = [("port", &*port), ("code", "unknown")];
    agent.wait_sum("inferprobe_requests_total", &own, counted);
    let page = agent.metrics();
    for (name, expected) in [
        ("inferprobe_requests_total", counted),
        ("inferprobe_tls_requests_total", counted),
        ("inferprobe_requests_unfinished_total", 0.0),
        ("inferprobe_records_lost_total", 0.0),
        ("inferprobe_coverage_ratio", 1.0),
    ] {
        assert_eq!(page.sum(name, &own[..1]), expected, "{name}");
    }
    let labels = [labels, &own[..1]].concat();
    assert!(page.sum("inferprobe_tls_connections_total", &labels) > 0.0);
    assert!(page.sum("inferprobe_tls_unread_bytes_total", &own[..1]) > 0.0);
    let rows = agent.rows(load.requests, |row| row.local_port == Some(server.port));
    let mut logged: HashMap<(Option<u16>, u32), Vec<Logged>> = HashMap::new();
    for row in rows {
        let key = (row.peer_port, row.seq);
        logged.entry(key).or_default().push(row);
    }
    let marks: Option<HashMap<String, Marks>> = program.keeps_marks().then(|| {
        let marks = server.marks(load.requests).into_iter();
        marks.map(|marks| (marks.case.clone(), marks)).collect()
    });
    let faults: Vec<String> = sent
        .iter()
        .filter_map(|sent| fault_of(sent, &logged, marks.as_ref(), load.body_bytes))
        .collect();
    assert!(
        faults.is_empty(),
        "{} of them: {:#?}",
        faults.len(),
        &faults[..faults.len().min(5)]
    );
    let scenario = format!(
        "{program:?}, TLS {}, {} requests a connection, certificate of the client: {}",
        load.version,
        load.per_connection.min(load.requests / load.connections),
        load.certified
    );
    let [sent, counted] = [sent.len(), counted as usize].map(|count| count.to_string());
    report::row(&scenario, "requests timed", &sent, &counted, "equal");
    agent.stop();
    Some(page)
}

/// The number of requests that the environment asks for.
fn requests() -> Option<usize> {
    std::env::var(REQUESTS_ENV).ok()?.parse().ok()
}

/// What is wrong with the row of a request: it has none in the time in which the client waited for it, or one that the
/// server's marks contradict.
fn fault_of(
    sent: &Sent,
    rows: &HashMap<(Option<u16>, u32), Vec<Logged>>,
    marks: Option<&HashMap<String, Marks>>,
    body_bytes: usize,
) -> Option<String> {
    let rows = rows.get(&(Some(sent.port), sent.index));
    let waited = sent.begun_ns..=sent.ended_ns;
    let is_of = |row: &&Logged| {
        waited.contains(&row.first_read_ns) && row.arrival_ns.is_none_or(|ns| waited.contains(&ns))
    };
    let Some(row) = rows.and_then(|rows| rows.iter().find(is_of)) else {
        return Some(format!("{sent:?}: {rows:?}"));
    };
    let begun_ns = match marks {
        Some(marks) => match marks.get(&sent.case) {
            Some(marks) => marks.begun_ns?,
            None => return Some(format!("{sent:?} has no marks")),
        },
        None => row.last_read_ns,
    };
    let least = body_bytes as u64;
    let is_right = row.status == 0
        && row.last_read_ns <= begun_ns
        && row
            .first_write_ns
            .is_none_or(|ns| ns >= begun_ns && ns <= sent.ended_ns)
        && row.last_write_ns.is_some_and(|ns| ns >= begun_ns)
        && (least..least + 600).contains(&row.request_bytes)
        && (row.first_write_ns.is_none() || (least..least + 600).contains(&row.response_bytes));
    (!is_right).then(|| format!("{sent:?}: {row:?} {begun_ns}"))
}

#[test]
fn uvicorn_with_tls_1_3() {
    let labels = [("version", "1.3"), ("resumed", "no"), ("alpn", "none")];
    let page = each_request_is_timed(Program::Python(Kind::UvicornAsyncio), LOAD, &labels);
    for name in ["Requests2XX", "ts_inference_requests_total"] {
        assert!(
            page.as_ref().is_none_or(|page| page.sum(name, &[]) == 0.0),
            "{name}"
        );
    }
}

#[test]
fn uvicorn_with_tls_1_2_and_resumed_sessions() {
    let load = Load {
        version: "1.2",
        per_connection: 3,
        ..LOAD
    };
    let labels = [("version", "1.2"), ("resumed", "yes")];
    each_request_is_timed(Program::Python(Kind::UvicornUvloop), load, &labels);
}

#[test]
fn uvicorn_with_resumed_sessions() {
    let load = Load {
        per_connection: 3,
        ..LOAD
    };
    let labels = [("version", "1.3"), ("resumed", "yes")];
    each_request_is_timed(Program::Python(Kind::UvicornUvloop), load, &labels);
}

#[test]
fn uvicorn_with_certificates_of_clients() {
    let load = Load {
        certified: true,
        ..LOAD
    };
    let labels = [("version", "1.3"), ("client_cert", "yes")];
    each_request_is_timed(Program::Python(Kind::UvicornAsyncio), load, &labels);
}

#[test]
fn uvicorn_with_long_bodies() {
    let load = Load {
        requests: 16,
        body_bytes: 300_000,
        ..LOAD
    };
    each_request_is_timed(
        Program::Python(Kind::UvicornUvloop),
        load,
        &[("version", "1.3")],
    );
}

#[test]
fn gunicorn_which_reads_the_head_of_each_record_by_itself() {
    each_request_is_timed(Program::Python(Kind::Gunicorn), LOAD, &[("version", "1.3")]);
}

#[test]
fn hypercorn_with_http1_by_alpn() {
    // It closes a connection after 1,000 requests.
    let load = Load {
        alpn: "http/1.1",
        per_connection: 500,
        ..LOAD
    };
    each_request_is_timed(
        Program::Python(Kind::Hypercorn),
        load,
        &[("alpn", "http/1.1")],
    );
}

/// Sends requests to `program` over both versions, over resumed sessions, and with certificates of clients.
fn each_way_is_timed(program: Program) {
    let resumed = [("resumed", "yes")];
    for version in ["1.3", "1.2"] {
        let load = Load { version, ..LOAD };
        each_request_is_timed(program, load, &[("version", version)]);
        let certified = Load {
            certified: true,
            ..load
        };
        each_request_is_timed(program, certified, &[("client_cert", "yes")]);
        let load = Load {
            per_connection: 3,
            ..load
        };
        each_request_is_timed(program, load, &resumed);
    }
}

#[test]
#[ignore = "needs node and an idle machine: run `cargo xtask test is_timed -- -- --ignored --nocapture`"]
fn node_is_timed() {
    each_way_is_timed(Program::Node);
}

#[test]
#[ignore = "needs nginx and an idle machine: run `cargo xtask test is_timed -- -- --ignored --nocapture`"]
fn nginx_is_timed() {
    each_way_is_timed(Program::Nginx);
}

#[test]
#[ignore = "needs go and an idle machine: run `cargo xtask test is_timed -- -- --ignored --nocapture`"]
fn go_is_timed() {
    each_way_is_timed(Program::Go);
}

#[test]
#[ignore = "needs java and an idle machine: run `cargo xtask test is_timed -- -- --ignored --nocapture`"]
fn java_is_timed() {
    each_way_is_timed(Program::Java);
}

#[test]
fn http2_counts_as_connections_and_bytes() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let Some(installed) = hosts::installed() else {
        return;
    };
    let server = TlsServer::start(Program::Python(Kind::Hypercorn), false, &installed);
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
    let serve = || TlsServer::start(Program::Python(kind), false, &installed);
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
