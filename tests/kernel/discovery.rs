//! Checks which processes the agent watches, whenever they start and however they fork, and how it names their models.

use inferprobe_tests::{
    agent::{Agent, free_port, request_log::Logged},
    client::{Connection, request},
    require_kernel::require_kernel,
    server::{Place, Server},
};

fn ask(place: &Place, target: &str) {
    let mut client = Connection::open(place).unwrap();
    let (_, answer) = client
        .exchange(&request("POST", target, &[], b"{}"))
        .unwrap();
    assert_eq!(answer.status, 200);
}

fn predict(server: &Server, model: &str) {
    ask(&server.place, &format!("/predictions/{model}"));
}

/// Returns the only row of `model`.
fn row(agent: &Agent, model: &str) -> Logged {
    let rows = agent.rows(1, |row| row.model == model);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.into_iter().next().unwrap()
}

#[test]
fn port_is_watched_for_any_listener_at_any_time() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let port = free_port();
    let port_flag = port.to_string();
    let early = Server::start(&["--port", &port_flag]);
    let agent = Agent::start(&["--watch-port", &port_flag]);
    predict(&early, "before-the-agent");
    assert_eq!(row(&agent, "before-the-agent").pid, early.pid());

    drop(early);
    for model in ["restarted-once", "restarted-twice"] {
        let server = Server::start(&["--port", &port_flag]);
        predict(&server, model);
        let row = row(&agent, model);
        assert_eq!((row.pid, row.local_port), (server.pid(), Some(port)));
        assert!(row.arrival_ns.is_some(), "{row:?}");
    }
    agent.stop();
}

#[test]
fn forked_workers_of_a_watched_port_are_watched() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    for started_first in [true, false] {
        for (forking, workers) in [
            ("listen-first", "3"),
            ("reuse-port", "3"),
            ("per-connection", "1"),
        ] {
            let port = free_port().to_string();
            let args = ["--port", &port, "--forking", forking, "--workers", workers];
            let (server, agent);
            if started_first {
                server = Server::start(&args);
                agent = Agent::start(&["--watch-port", &port]);
            } else {
                agent = Agent::start(&["--watch-port", &port]);
                server = Server::start(&args);
            }
            for _ in 0..30 {
                predict(&server, forking);
            }
            let rows = agent.rows(30, |row| row.model == forking);
            assert_eq!(rows.len(), 30);
            let known = |row: &Logged| row.pid != server.pid() && row.arrival_ns.is_some();
            assert!(rows.iter().all(known), "{forking}: {rows:?}");
            agent.stop();
        }
    }
}

#[test]
fn command_line_is_watched_whenever_it_starts() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let early = Server::start(&["--tag", "by-command-line-7"]);
    let agent = Agent::start(&["--watch-exe", r"reference-server .*by-command-line-\d"]);
    predict(&early, "early");
    assert_eq!(row(&agent, "early").pid, early.pid());

    let late = Server::start(&["--tag", "by-command-line-8"]);
    agent.await_watch(late.pid());
    predict(&late, "late");
    let forked = Server::start(&["--tag", "by-command-line-9", "--workers", "2"]);
    agent.await_watch(forked.pid());
    predict(&forked, "forked");
    let other = Server::start(&["--tag", "by-another-line"]);
    predict(&other, "other-line");
    predict(&late, "last");

    assert_eq!(row(&agent, "late").pid, late.pid());
    assert_ne!(row(&agent, "forked").pid, forked.pid());
    row(&agent, "last");
    assert!(agent.log().iter().all(|row| row.model != "other-line"));
    agent.stop();
}

#[test]
fn configuration_file_names_its_models() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inferprobe.toml");
    let by_port = Server::start(&[]);
    let by_exe = Server::start(&["--tag", "named-by-the-file"]);
    let text = format!(
        "[[watch]]\nport = {}\nmodel = \"ranker\"\nversion = \"7\"\nserver = \"shop\"\n\
         [[watch]]\nexe = \"named-by-the-file\"\n",
        by_port.port()
    );
    std::fs::write(&file, text).unwrap();
    let agent = Agent::start(&["--config", file.to_str().unwrap()]);

    ask(&by_port.place, "/generate");
    let named = row(&agent, "ranker");
    assert_eq!(
        (named.version.as_str(), named.server.as_str()),
        ("7", "shop")
    );

    // The path takes precedence over the file.
    ask(&by_port.place, "/v2/models/from-path/versions/2/infer");
    let from_path = row(&agent, "from-path");
    assert_eq!(
        (from_path.version.as_str(), from_path.server.as_str()),
        ("2", "shop")
    );

    ask(&by_exe.place, "/generate");
    let unnamed = agent.rows(1, |row| row.pid == by_exe.pid());
    assert!(unnamed[0].model.contains("reference-serve"), "{unnamed:?}");
    agent.stop();
}

#[test]
fn path_names_model_and_version() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let cases = [
        ("/predictions/m1", "m1", None),
        ("/predictions/m2/1.0", "m2", Some("1.0")),
        ("/predictions/m3?body=5", "m3", None),
        ("/v1/models/m4:predict", "m4", None),
        ("/v2/models/m5/infer", "m5", None),
        ("/v2/models/m6/versions/9/infer?sleep_ms=1", "m6", Some("9")),
    ];
    for (target, model, version) in cases {
        ask(&server.place, target);
        let row = row(&agent, model);
        assert!(
            version.is_none_or(|version| row.version == version),
            "{target}: {row:?}"
        );
    }
    agent.stop();
}

#[test]
fn unwatched_server_is_not_counted() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let watched = Server::start(&[]);
    let unwatched = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &watched.port().to_string()]);
    for _ in 0..20 {
        predict(&unwatched, "unseen");
    }
    predict(&watched, "seen");
    row(&agent, "seen");
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("inferprobe_requests_total", &[]), 1.0);
    assert_eq!(
        metrics.sum("inferprobe_requests_unfinished_total", &[]),
        0.0
    );
    assert_eq!(agent.log().len(), 1);
    agent.stop();
}
