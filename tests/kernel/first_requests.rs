//! Checks that listeners without a name are decided by their first requests, once, and are not measured before.

use std::time::Duration;

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    client::{Connection, request},
    clock::wait_for,
    require_kernel::require_kernel,
    server::Server,
};

/// Requests that decide, if none is for inference.
const ENOUGH: usize = 8;

fn ask(client: &mut Connection, method: &str, target: &str) {
    let bytes = request(method, target, &[], b"{}");
    let (_, answer) = client.exchange(&bytes).unwrap();
    assert_eq!(answer.status, 200);
}

fn connect(server: &Server) -> Connection {
    Connection::open(&server.place).unwrap()
}

/// Returns the rows of a server; at least `count`.
fn rows(agent: &Agent, server: &Server, count: usize) -> Vec<Logged> {
    agent.rows(count, |row| row.local_port == Some(server.port()))
}

#[test]
fn a_listener_is_watched_from_its_first_inference_request() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start_discovering(&[] as &[&str]);
    let mut client = connect(&server);
    for target in ["/healthz", "/"] {
        ask(&mut client, "GET", target);
    }
    for _ in 0..10 {
        ask(&mut client, "POST", "/predictions/m");
    }
    agent.await_watch(server.pid());
    for _ in 0..10 {
        ask(&mut connect(&server), "POST", "/predictions/m");
    }
    let rows = rows(&agent, &server, 20);
    assert_eq!(rows.len(), 20, "{rows:?}");
    assert!(rows.iter().all(|row| row.pid == server.pid()));
    let metrics = agent.metrics();
    let labels = [("model", "m"), ("server", &*rows[0].server)];
    assert_eq!(metrics.sum("inferprobe_requests_total", &labels), 20.0);
    assert!(agent.errors().contains("inference server found"));
    agent.stop();
}

#[test]
fn a_server_that_starts_later_is_found() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start_discovering(&[] as &[&str]);
    let server = Server::start(&[]);
    // The agent needs a moment to learn of the listener.
    wait_for("the server to be found", Duration::from_secs(10), || {
        ask(&mut connect(&server), "POST", "/predictions/m");
        let said = format!("watching pid={} ", server.pid());
        agent.errors().contains(&said).then_some(())
    });
    let before = rows(&agent, &server, 1).len();
    ask(&mut connect(&server), "POST", "/predictions/m");
    assert!(rows(&agent, &server, before + 1).len() > before);
    agent.stop();
}

#[test]
fn a_listener_of_other_requests_is_left_alone() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (other, found) = (Server::start(&[]), Server::start(&[]));
    let agent = Agent::start_discovering(&[] as &[&str]);
    let mut kept = connect(&other);
    for _ in 0..=ENOUGH {
        ask(&mut kept, "POST", "/rank");
    }
    ask(&mut connect(&found), "POST", "/predictions/found");
    assert_eq!(rows(&agent, &found, 1).len(), 1);
    // By now it is decided: what follows is no longer looked at.
    for _ in 0..3 {
        ask(&mut kept, "POST", "/predictions/late");
        ask(&mut connect(&other), "POST", "/predictions/late");
    }
    ask(&mut connect(&found), "POST", "/predictions/found");
    assert_eq!(rows(&agent, &found, 2).len(), 2);
    assert!(rows(&agent, &other, 0).is_empty());
    let late = [("model", "late")];
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("inferprobe_requests_total", &late), 0.0);
    agent.stop();
}

#[test]
fn probes_do_not_decide() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start_discovering(&[] as &[&str]);
    let mut client = connect(&server);
    for _ in 0..3 * ENOUGH {
        ask(&mut client, "GET", "/healthz");
    }
    ask(&mut client, "POST", "/v1/completions");
    assert_eq!(rows(&agent, &server, 1).len(), 1);
    agent.stop();
}

#[test]
fn workers_that_share_the_port_are_watched_too() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    for forking in ["listen-first", "reuse-port"] {
        let server = Server::start(&["--forking", forking, "--workers", "3"]);
        let agent = Agent::start_discovering(&[] as &[&str]);
        ask(&mut connect(&server), "POST", "/predictions/first");
        let first = rows(&agent, &server, 1).remove(0);
        agent.await_watch(first.pid);
        // From here on, every worker is watched.
        for _ in 0..30 {
            ask(&mut connect(&server), "POST", "/predictions/m");
        }
        let rows = rows(&agent, &server, 31);
        assert_eq!(rows.len(), 31, "{forking}: {rows:?}");
        agent.stop();
    }
}

#[test]
fn nothing_is_looked_at_without_discovery() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start(&[] as &[&str]);
    let server = Server::start(&[]);
    let mut client = connect(&server);
    for _ in 0..3 {
        ask(&mut client, "POST", "/predictions/m");
    }
    assert!(rows(&agent, &server, 0).is_empty());
    agent.stop();
}
