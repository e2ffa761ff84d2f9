//! Covers a gateway and the server behind it on one host: each client's request counts once.

use std::{path::Path, thread, time::Duration};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    gateway::Gateway,
    require_kernel::require_kernel,
    server::Server,
};

/// Requests of a round: sent on, one after another and then at once, answered by the gateway, and past the gateway.
const SENT_ON: usize = 10;
const AT_ONCE: usize = 8;
const CACHED: usize = 3;
const DIRECT: usize = 2;

fn ask(connection: &mut Connection, target: &str) {
    let bytes = request("POST", target, &[], b"{}");
    assert_eq!(connection.exchange(&bytes).unwrap().1.status, 200);
}

fn play(gateway: &Gateway, server: &Server) {
    let mut client = Connection::open_tcp(gateway.port).unwrap();
    for _ in 0..SENT_ON {
        ask(&mut client, "/predictions/m");
    }
    for _ in 0..CACHED {
        ask(&mut client, "/predictions/cached");
    }
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut client = Connection::open_tcp(gateway.port).unwrap();
                ask(&mut client, "/predictions/m?sleep_ms=50");
            });
        }
    });
    for _ in 0..DIRECT {
        ask(
            &mut Connection::open(&server.place).unwrap(),
            "/predictions/m",
        );
    }
}

/// Checks what one round adds up to. `own` and `next` are the labels `server` of the two.
fn judge(agent: &Agent, own: &str, next: &str) {
    let through = (SENT_ON + AT_ONCE) as f64;
    let at = |server| [("server", server)];
    let expected = [through + CACHED as f64, through + DIRECT as f64];
    wait_for("requests of both servers", Duration::from_secs(10), || {
        let metrics = agent.metrics();
        let found = [own, next].map(|server| metrics.sum("inferprobe_requests_total", &at(server)));
        (found == expected).then_some(())
    });
    let metrics = agent.metrics();
    let gateway_labels = [("server", next), ("gateway", own)];
    assert_eq!(
        metrics.sum("inferprobe_gateway_requests_total", &gateway_labels),
        through
    );
    assert_eq!(
        metrics.sum("inferprobe_gateway_requests_total", &[]),
        through
    );
    let clients = through + (CACHED + DIRECT) as f64;
    for family in ["ts_inference_requests_total", "Requests2XX"] {
        assert_eq!(metrics.sum(family, &[]), clients, "{family}");
    }
    let rows = agent.log();
    let marked = rows
        .iter()
        .filter(|row| row.gateway.as_deref() == Some(own));
    assert_eq!(marked.count(), SENT_ON + AT_ONCE);
}

fn config(folder: &Path, watches: &[(u16, &str)]) -> String {
    let watches = watches.iter();
    let text: String = watches
        .map(|(port, server)| format!("[[watch]]\nport = {port}\nserver = \"{server}\"\n"))
        .collect();
    let path = folder.join("config.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn request_through_a_gateway_counts_once_in_torchserves_families() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let gateway = Gateway::start(&server.place);
    let folder = tempfile::tempdir().unwrap();
    let watches = [(gateway.port, "front"), (server.port(), "back")];
    let agent = Agent::start(&["--config", &config(folder.path(), &watches)]);
    play(&gateway, &server);
    judge(&agent, "front", "back");
}

#[test]
fn gateway_in_front_of_a_unix_socket_is_found_by_its_process() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("back");
    let server = Server::start(&["--unix", path.to_str().unwrap()]);
    let gateway = Gateway::start(&server.place);
    let agent = Agent::start(&["--watch-exe", "/(gateway|reference-server) "]);
    play(&gateway, &server);
    judge(&agent, "gateway", "reference-serve");
}

#[test]
fn connection_of_a_gateway_that_is_older_than_the_agent_is_known() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let gateway = Gateway::start(&server.place);
    let mut client = Connection::open_tcp(gateway.port).unwrap();
    ask(&mut client, "/predictions/before");
    let port = server.port().to_string();
    let agent = Agent::start(&["--watch-exe", "/gateway ", "--watch-port", &port]);
    for _ in 0..SENT_ON {
        ask(&mut client, "/predictions/m");
    }
    agent.rows(2 * SENT_ON, |_| true);
    let metrics = agent.metrics();
    let sent_on = SENT_ON as f64;
    assert_eq!(
        metrics.sum("inferprobe_gateway_requests_total", &[]),
        sent_on
    );
    assert_eq!(metrics.sum("ts_inference_requests_total", &[]), sent_on);
}

#[test]
fn requests_between_processes_of_one_server_are_internal() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let gateway = Gateway::start(&server.place);
    let folder = tempfile::tempdir().unwrap();
    let watches = [(gateway.port, "both"), (server.port(), "both")];
    let agent = Agent::start(&["--config", &config(folder.path(), &watches)]);
    play(&gateway, &server);
    let (through, direct) = ((SENT_ON + AT_ONCE) as f64, DIRECT as f64);
    wait_for("internal requests", Duration::from_secs(10), || {
        let inner = agent.metrics().sum("inferprobe_inner_requests_total", &[]);
        (inner == through).then_some(())
    });
    let clients = through + CACHED as f64 + direct;
    agent.rows(SENT_ON + AT_ONCE + CACHED + DIRECT, |_| true);
    let metrics = agent.metrics();
    for family in ["inferprobe_requests_total", "ts_inference_requests_total"] {
        assert_eq!(metrics.sum(family, &[]), clients, "{family}");
    }
}
