//! Covers connections that idle, are open before the agent starts, lose their client or get an early response.

use std::{thread, time::Duration};

use inferprobe_tests::{
    agent::{Agent, LOG_LIMIT, request_log::Logged},
    check_times::{mismatches, size_mismatches},
    client::{Connection, request},
    clock::wait_for,
    require_kernel::require_kernel,
    server::{Place, Server, stamps::Stamp},
    socket_queues::unread,
};

const MS: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until what was sent has arrived and is read, separately from what follows.
fn pause() {
    thread::sleep(Duration::from_millis(20));
}

fn post(model: &str, query: &str, body_bytes: usize) -> Vec<u8> {
    let target = format!("/predictions/{model}?{query}");
    request("POST", &target, &[], &vec![b'x'; body_bytes])
}

/// Returns a TCP server, and an agent that watches it.
fn scene() -> (Server, Agent) {
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    (server, agent)
}

fn only(rows: Vec<Logged>) -> Logged {
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.into_iter().next().unwrap()
}

#[test]
fn large_response_is_not_in_the_handler_time() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (mut server, agent) = scene();
    let mut client = Connection::open(&server.place).unwrap();
    // Too much for the buffers of the connection, so that the send lasts until the client reads.
    client
        .send(&post("slow-client", "body=20000000", 10))
        .unwrap();
    thread::sleep(Duration::from_millis(200));
    client.receive(false).unwrap();
    let row = only(agent.rows(1, |row| row.model == "slow-client"));
    let own_ns = server.stamps(1)[0].handler_ns();
    let handler_ns = row.handler_ns().unwrap();
    // The transfer lasts as long as the client waits: ten times this and more.
    assert!(
        handler_ns.abs_diff(own_ns) < 20 * MS,
        "{row:?}, not {own_ns}"
    );
    assert!(
        row.last_write_ns.unwrap() - row.first_write_ns.unwrap() > 100 * MS,
        "{row:?}"
    );
    agent.stop();
}

#[test]
fn request_on_an_idle_connection_is_reported_within_a_second() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (server, agent) = scene();
    let mut client = Connection::open(&server.place).unwrap();
    for query in ["", "chunks=3&gap_ms=5", "body=3000000"] {
        let before = agent.log().len();
        client.exchange(&post("idle", query, 10)).unwrap();
        agent.rows_within(LOG_LIMIT, before + 1, |row| row.model == "idle");
        let counted = agent
            .metrics()
            .sum("inferprobe_requests_total", &[("model", "idle")]);
        assert_eq!(counted, (before + 1) as f64, "{query}");
    }
    agent.stop();
}

#[test]
fn connection_open_before_the_agent_is_measured() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut server = Server::start(&[]);
    let mut client = Connection::open(&server.place).unwrap();
    let bytes = post("older", "sleep_ms=3&body=100", 50);
    client.exchange(&bytes).unwrap();
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let mut sends = Vec::new();
    for _ in 0..3 {
        sends.push(client.exchange(&bytes).unwrap().0);
    }
    let rows = agent.rows(3, |row| row.model == "older");
    let stamps = server.stamps(4);
    assert_eq!(rows.len(), 3);
    for (index, row) in rows.iter().enumerate() {
        let mut faults = mismatches(&stamps[index + 1], &sends[index], row);
        if index == 0 {
            faults.retain(|fault| fault != "arrival is unknown");
        }
        assert!(faults.is_empty(), "request {index}: {faults:?} {row:?}");
    }
    let unknown = rows.iter().filter(|row| row.arrival_ns.is_none()).count();
    let metrics = agent.metrics();
    let stage = [("stage", "queue")];
    let counted = metrics.sum("inferprobe_request_stage_unknown_total", &stage);
    assert_eq!(counted, unknown as f64);
    let model = [("model", "older")];
    let handled = metrics.sum("inferprobe_request_handler_seconds_count", &model);
    let queued = metrics.sum("inferprobe_request_queue_seconds_count", &model);
    assert_eq!((handled, queued), (3.0, (3 - unknown) as f64));
    agent.stop();
}

#[test]
fn request_in_flight_at_the_start_does_not_disturb_later_ones() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut server = Server::start(&[]);
    let mut client = Connection::open(&server.place).unwrap();
    let bytes = post("in-flight", "", 50);
    let (head, body) = bytes.split_at(bytes.len() - 20);
    client.send(head).unwrap();
    pause();
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    client.send(body).unwrap();
    client.receive(false).unwrap();
    for _ in 0..2 {
        client.exchange(&bytes).unwrap();
    }
    let stamps = server.stamps(3);
    let fits = |stamp: &Stamp, row: &Logged| {
        let last = stamp.last_write;
        let inside = |at_ns| last.call_ns <= at_ns && at_ns <= last.return_ns;
        row.last_write_ns.is_some_and(inside) && size_mismatches(stamp, row).is_empty()
    };
    for stamp in &stamps[1..] {
        wait_for(
            "a row of each later request",
            Duration::from_secs(5),
            || agent.log().iter().any(|row| fits(stamp, row)).then_some(()),
        );
    }
    agent.stop();
}

#[test]
fn vanished_client_leaves_an_unfinished_request() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (server, agent) = scene();
    let unfinished = "inferprobe_requests_unfinished_total";
    type Act = fn(&mut Connection);
    let acts: [(&str, Act); 3] = [
        ("mid-head", |client| {
            client.send(&post("gone", "", 10)[..30]).unwrap();
        }),
        ("mid-body", |client| {
            let bytes = post("gone", "", 1000);
            client.send(&bytes[..bytes.len() - 500]).unwrap();
        }),
        ("server drops", |client| {
            client.send(&post("gone", "drop=1", 10)).unwrap();
            assert!(client.ends());
        }),
    ];
    for (index, (what, act)) in acts.iter().enumerate() {
        let mut client = Connection::open(&server.place).unwrap();
        act(&mut client);
        pause();
        drop(client);
        let expected = (index + 1) as f64;
        assert_eq!(
            agent.wait_sum(unfinished, &[], expected),
            expected,
            "{what}"
        );
    }
    let mut client = Connection::open(&server.place).unwrap();
    client.exchange(&post("stayed", "", 10)).unwrap();
    agent.rows(1, |row| row.model == "stayed");
    let metrics = agent.metrics();
    assert_eq!(
        metrics.sum("inferprobe_requests_total", &[("model", "gone")]),
        0.0
    );
    assert_eq!(metrics.sum(unfinished, &[]), 3.0);
    agent.stop();
}

#[test]
fn client_that_vanishes_in_the_handler_is_counted_once() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (server, agent) = scene();
    let mut client = Connection::open(&server.place).unwrap();
    client.send(&post("impatient", "sleep_ms=100", 10)).unwrap();
    pause();
    drop(client);
    let total = || {
        let metrics = agent.metrics();
        let model = [("model", "impatient")];
        metrics.sum("inferprobe_requests_total", &model)
            + metrics.sum("inferprobe_requests_unfinished_total", &[])
    };
    wait_for(
        "a finished or unfinished request",
        Duration::from_secs(5),
        || (total() > 0.0).then_some(()),
    );
    assert_eq!(total(), 1.0);
    agent.stop();
}

#[test]
fn response_before_the_body_is_read_is_one_request() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (server, agent) = scene();
    let mut client = Connection::open(&server.place).unwrap();
    for _ in 0..2 {
        let bytes = post("early", "status=413&early=1&body=20", 3_000_000);
        let (_, answer) = client.exchange(&bytes).unwrap();
        assert_eq!(answer.status, 413);
        // The server reads the rest of the body separately from the next request, so that the agent can find the next
        // head.
        thread::sleep(Duration::from_millis(200));
        wait_for("the rest of the body read", PATIENCE, || {
            (unread(server.port()) == 0).then_some(())
        });
    }
    client.exchange(&post("early", "", 10)).unwrap();
    let mut closing = Connection::open(&server.place).unwrap();
    let bytes = post("early", "status=413&early=1&close=1", 3_000_000);
    closing.exchange(&bytes).unwrap();
    assert!(closing.ends());
    let rows = agent.rows(4, |row| row.model == "early");
    let of_first: Vec<(u32, u16)> = rows
        .iter()
        .filter(|row| row.peer_port == client.local_port())
        .map(|row| (row.seq, row.status))
        .collect();
    assert_eq!(of_first, [(0, 413), (1, 413), (2, 200)]);
    assert_eq!(rows.len(), 4, "{rows:?}");
    agent.stop();
}

#[test]
fn connections_on_one_unix_socket_are_separate() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = Server::start(&["--unix", path.to_str().unwrap(), "--tag", "kept-apart"]);
    assert!(matches!(server.place, Place::Unix(_)));
    let agent = Agent::start(&["--watch-exe", "kept-apart"]);
    let clients: Vec<_> = ["left", "right"]
        .map(|model| {
            let mut client = Connection::open(&server.place).unwrap();
            thread::spawn(move || {
                for _ in 0..50 {
                    client.exchange(&post(model, "sleep_us=300", 100)).unwrap();
                }
            })
        })
        .into_iter()
        .collect();
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    for model in ["left", "right"] {
        let rows = agent.rows(50, |row| row.model == model);
        assert_eq!(rows.len(), 50);
        assert!(rows.iter().all(|row| row.conn == rows[0].conn), "{model}");
        assert!(rows.iter().all(|row| row.arrival_ns.is_some()), "{model}");
    }
    agent.stop();
}
