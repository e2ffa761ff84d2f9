//! Covers the requests in flight: right at every scrape, and 0 again when all clients have left.

use std::time::Duration;

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    require_kernel::require_kernel,
    server::{Place, Server},
};

/// Connections of the requests that are open at once.
const OPEN: f64 = 8.0;
const FAMILY: &str = "inferprobe_requests_in_flight";

fn in_flight(agent: &Agent, model: &str) -> f64 {
    agent.metrics().sum(FAMILY, &[("model", model)])
}

fn await_in_flight(agent: &Agent, model: &str, expected: usize) {
    let what = format!("{expected} requests to {model} in flight");
    wait_for(&what, Duration::from_secs(10), || {
        (in_flight(agent, model) == expected as f64).then_some(())
    });
}

/// Sends a request of each path on a connection of its own, and returns the connections.
fn send(place: &Place, count: usize, target: &str) -> Vec<Connection> {
    let open = |_| {
        let mut client = Connection::open(place).unwrap();
        client.send(&request("POST", target, &[], b"{}")).unwrap();
        client
    };
    (0..count).map(open).collect()
}

fn open_requests_are_counted(place: &Place, agent: &Agent) {
    let slow = send(place, 5, "/predictions/slow?sleep_ms=1500");
    await_in_flight(agent, "slow", 5);
    let streamed = send(
        place,
        3,
        "/predictions/streamed?chunks=8&gap_ms=200&body=80",
    );
    await_in_flight(agent, "streamed", 3);
    assert_eq!(in_flight(agent, "slow"), 5.0);
    assert_eq!(agent.metrics().sum("inferprobe_connections", &[]), OPEN);
    for mut client in slow.into_iter().chain(streamed) {
        assert_eq!(client.receive(false).unwrap().status, 200);
    }
    // Answered requests are not in flight, however soon the scrape comes.
    assert_eq!(in_flight(agent, "slow"), 0.0);
    assert_eq!(in_flight(agent, "streamed"), 0.0);
}

#[test]
fn open_requests_are_counted_at_every_scrape() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    open_requests_are_counted(&server.place, &agent);
}

#[test]
fn open_requests_on_unix_sockets_are_counted_at_every_scrape() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let agent = Agent::start(&["--watch-exe", "/reference-server "]);
    let server = Server::start(&["--unix", path.to_str().unwrap()]);
    agent.await_watch(server.pid());
    open_requests_are_counted(&server.place, &agent);
}

#[test]
fn none_is_in_flight_after_a_storm_of_aborts() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    const CLIENTS: usize = 50;
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    // They leave while the server has not begun to respond, then in the middle of the responses.
    for plan in ["sleep_ms=8000", "chunks=80&gap_ms=100&body=800"] {
        let target = format!("/predictions/stormy?{plan}");
        let clients = send(&server.place, CLIENTS, &target);
        await_in_flight(&agent, "stormy", CLIENTS);
        for client in clients {
            client.reset().unwrap();
        }
        await_in_flight(&agent, "stormy", 0);
    }
}
