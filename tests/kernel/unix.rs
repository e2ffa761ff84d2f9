//! Covers servers on unix sockets that come and go, whose addresses the kernel reuses, and a server without its first
//! thread.

use std::{path::Path, time::Duration};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::{wait_for, wait_within},
    require_kernel::require_kernel,
    server::{Place, Server},
};

fn start(path: &Path, tag: &str) -> Server {
    Server::start(&["--unix", path.to_str().unwrap(), "--tag", tag])
}

/// Sends one request on a new connection.
fn ask(place: &Place, target: &str) {
    let mut client = Connection::open(place).unwrap();
    let bytes = request("POST", target, &[], b"{}");
    assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
}

/// Sends requests until the agent has a row of the server: the agent may not watch it yet when it responds first.
fn ask_until_seen(agent: &Agent, server: &Server, target: &str) {
    wait_for("a row of a new server", Duration::from_secs(10), || {
        ask(&server.place, target);
        let seen = || agent.log().iter().any(|row| row.pid == server.pid());
        wait_within(Duration::from_millis(300), || seen().then_some(()))
    });
}

#[test]
fn address_is_watched_no_longer_than_its_listener() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    const ROUNDS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(&["--watch-exe", "reference-server.*comes-and-goes"]);
    for round in 0..ROUNDS {
        let watched = start(&folder.path().join(format!("w{round}")), "comes-and-goes");
        ask_until_seen(&agent, &watched, "/predictions/watched");
        drop(watched);
        for other in 0..4 {
            let path = folder.path().join(format!("o{round}-{other}"));
            let unwatched = start(&path, "of-no-interest");
            ask(&unwatched.place, "/predictions/unwatched");
        }
    }
    let last = start(&folder.path().join("last"), "comes-and-goes");
    // Records come in order, so earlier ones are in the log by then.
    ask_until_seen(&agent, &last, "/predictions/last");
    let rows = agent.log();
    let of = |model: &str| rows.iter().filter(|row| row.model == model).count();
    assert_eq!(of("unwatched"), 0, "of {} requests", 4 * ROUNDS);
    assert_eq!(of("watched") + of("last"), rows.len());
    let metrics = agent.metrics();
    let total = metrics.sum("inferprobe_requests_total", &[]);
    assert_eq!(total, rows.len() as f64);
    let unfinished = metrics.sum("inferprobe_requests_unfinished_total", &[]);
    assert_eq!(unfinished, 0.0);
    agent.stop();
}

#[test]
fn process_is_watched_until_its_last_thread_ends() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inferprobe.toml");
    let watch = "[[watch]]\nexe = \"reference-server.*by-its-threads\"\n\
        model = \"ranker\"\nversion = \"7\"\nserver = \"shop\"\n";
    std::fs::write(&file, watch).unwrap();
    let agent = Agent::start(&["--config", file.to_str().unwrap()]);
    let mut server = start(&folder.path().join("s"), "by-its-threads");
    // The agent finds processes in the order in which they start: once it watches a later one, it watches this one.
    let later = start(&folder.path().join("later"), "by-its-threads");
    ask_until_seen(&agent, &later, "/predictions/later");

    server.leave_first_thread();
    // The first socket was marked while the thread was there; only the second shows whether the process is still
    // watched.
    let second = server.listen(&folder.path().join("second"));
    ask(&server.place, "/generate");
    ask(&second, "/generate");
    let rows = agent.rows(2, |row| row.pid == server.pid());
    for row in &rows {
        let names = [&row.model, &row.version, &row.server];
        assert_eq!(names, ["ranker", "7", "shop"]);
    }
    assert_eq!(rows.len(), 2);
    agent.stop();
}
