//! Sends hostile input, and kills the agent without warning.

use std::{collections::HashSet, time::Duration};

use inferprobe_tests::{
    agent::Agent,
    bpf_ids,
    client::{Connection, request},
    clock::wait_for,
    require_kernel::require_kernel,
    server::Server,
};

fn scene() -> (Server, Agent) {
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    (server, agent)
}

/// Asserts that a request after all the others is measured, and that the page still parses.
fn assert_well(agent: &Agent, server: &Server) {
    let mut client = Connection::open(&server.place).unwrap();
    let bytes = request("POST", "/predictions/after-all?sleep_ms=1", &[], b"{}");
    client.exchange(&bytes).unwrap();
    let rows = agent.rows(1, |row| row.model == "after-all");
    assert!(rows.iter().all(|row| row.handler_ns() >= Some(1_000_000)));
    assert_eq!(agent.get("/healthz").0, 200);
    agent.metrics();
}

#[test]
fn url_of_64_kilobytes_is_one_request() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (server, agent) = scene();
    let mut client = Connection::open(&server.place).unwrap();
    let name = "long".repeat(16_384);
    for target in [
        format!("/predictions/{name}"),
        format!("/predictions/short?{name}"),
        format!("/{name}"),
    ] {
        let bytes = request("POST", &target, &[], b"{}");
        assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
    }
    agent.wait_sum("inferprobe_requests_total", &[], 3.0);
    let rows = agent.rows(1, |row| row.model == "short");
    assert!(rows[0].request_bytes > 65_536, "{rows:?}");
    assert!(agent.get("/metrics").1.len() < 100_000);
    assert_well(&agent, &server);
    agent.stop();
}

#[test]
fn junk_and_half_requests_do_not_harm_the_agent() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (server, agent) = scene();
    // A fixed sequence that contains every byte, without structure.
    let junk: Vec<u8> = (0..20_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let heads: [&[u8]; 14] = [
        &junk,
        b"\0\0\0\0",
        b"\r\n\r\n\r\n",
        b"GET",
        b"POST /predictions/half",
        b"POST /predictions/half HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\nx",
        b"POST /predictions/half HTTP/1.1\r\nContent-Length: -1\r\n\r\nx",
        b"POST /predictions/half HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /predictions/half HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"POST /predictions/\xff\xfe%00%zz\" HTTP/1.1\r\n\r\n",
        b"POST /predictions/a\"b\\c%0Ad HTTP/1.1\r\n\r\n",
        b"POST  HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for head in heads {
        let mut client = Connection::open(&server.place).unwrap();
        client.send(head).unwrap();
        // The server responds to what it parses as a request, and waits for the rest of the others.
        if head.ends_with(b"\r\n\r\n") {
            let _ = client.receive(false);
        }
    }
    assert_well(&agent, &server);
    agent.stop();
}

#[test]
fn ten_thousand_model_names_become_other_without_growth() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    const MODELS: usize = 10_000;
    const KEPT: usize = 5_000;
    let (server, agent) = scene();
    let mut client = Connection::open(&server.place).unwrap();
    let mut ask = |range: std::ops::Range<usize>| {
        for index in range {
            let bytes = request("POST", &format!("/predictions/model-{index}"), &[], b"{}");
            client.exchange(&bytes).unwrap();
        }
    };
    // Past the limits on labels and on requests that are kept for the page, every table has its final size.
    ask(0..KEPT);
    agent.wait_sum("inferprobe_requests_total", &[], KEPT as f64);
    // The allocator keeps the room of a page only once pages of this size were freed before.
    for _ in 0..4 {
        agent.metrics();
    }
    let before_bytes = agent.rss_bytes();
    ask(KEPT..MODELS);
    agent.wait_sum("inferprobe_requests_total", &[], MODELS as f64);
    let metrics = agent.metrics();
    let grown_bytes = agent.rss_bytes().saturating_sub(before_bytes);
    println!("rss {before_bytes} B after {KEPT} names, {grown_bytes} B more after {MODELS}");
    assert!(grown_bytes <= 1 << 20, "grew by {grown_bytes} B");

    let name = "inferprobe_requests_total";
    let models: HashSet<&str> = metrics
        .samples(name, &[])
        .filter_map(|s| s.label("model"))
        .collect();
    assert!(
        models.contains("other") && models.len() <= 201,
        "{} models",
        models.len()
    );
    assert_eq!(metrics.sum(name, &[]), MODELS as f64);
    assert!(metrics.sum(name, &[("model", "other")]) >= (MODELS - 200) as f64);
    assert_well_past_the_limit(&agent);
    agent.stop();
}

fn assert_well_past_the_limit(agent: &Agent) {
    assert_eq!(agent.get("/healthz").0, 200);
    assert_eq!(
        agent.metrics().sum("inferprobe_records_lost_total", &[]),
        0.0
    );
}

#[test]
fn half_requests_on_many_connections_cause_no_growth() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (server, agent) = scene();
    let round = || {
        for index in 0..500 {
            let mut client = Connection::open(&server.place).unwrap();
            let bytes = request("POST", "/predictions/half", &[], b"{}");
            // Each is cut at another byte of its head; the last few are complete.
            client.send(&bytes[..index % bytes.len()]).unwrap();
        }
    };
    round();
    let before_bytes = agent.rss_bytes();
    (0..6).for_each(|_| round());
    agent.metrics();
    let grown_bytes = agent.rss_bytes().saturating_sub(before_bytes);
    println!("rss {before_bytes} B after 500 half requests, {grown_bytes} B more after 3,000");
    assert!(grown_bytes <= 1 << 20, "grew by {grown_bytes} B");
    assert_well(&agent, &server);
    agent.stop();
}

#[test]
fn killed_agent_leaves_nothing_in_the_kernel() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (server, agent) = scene();
    assert_well(&agent, &server);
    let held = bpf_ids::held_by(agent.pid());
    assert!(
        !held.is_empty(),
        "a healthy agent holds programs, maps and links"
    );
    assert!(held.iter().all(|&object| bpf_ids::exists(object)));
    agent.kill();
    wait_for(
        "everything gone from the kernel",
        Duration::from_secs(5),
        || {
            held.iter()
                .all(|&object| !bpf_ids::exists(object))
                .then_some(())
        },
    );
    // The next agent can use the port and the hooks.
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    assert_well(&agent, &server);
    agent.stop();
}

#[test]
fn stopped_agent_leaves_nothing_in_the_kernel() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (_server, agent) = scene();
    let held = bpf_ids::held_by(agent.pid());
    assert!(!held.is_empty());
    agent.stop();
    wait_for(
        "everything gone from the kernel",
        Duration::from_secs(5),
        || {
            held.iter()
                .all(|&object| !bpf_ids::exists(object))
                .then_some(())
        },
    );
}
