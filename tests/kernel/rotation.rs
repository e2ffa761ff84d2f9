//! Renames the request log of a running agent, as logrotate does, with and without SIGHUP.

use std::{fs, path::Path, time::Duration};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    require_kernel::require_kernel,
    server::Server,
};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a new file: the agent checks once a second.
const PATIENCE: Duration = Duration::from_secs(5);

fn ask(server: &Server) {
    let mut client = Connection::open(&server.place).unwrap();
    let bytes = request("POST", "/predictions/rotated", &[], b"{}");
    client.exchange(&bytes).unwrap();
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn request_log_continues_in_a_new_file_after_a_rename() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let log = agent.request_log();
    ask(&server);
    agent.rows(1, |_| true);
    for (round, hang_up) in [(1, true), (2, false)] {
        let old = log.with_extension(format!("jsonl.{round}"));
        fs::rename(&log, &old).unwrap();
        if hang_up {
            let pid = Pid::from_raw(agent.pid().try_into().unwrap()).unwrap();
            kill_process(pid, Signal::HUP).unwrap();
        }
        wait_for("a new request log", PATIENCE, || log.exists().then_some(()));
        ask(&server);
        agent.rows(1, |_| true);
        assert_eq!((lines(&old), lines(&log)), (1, 1), "round {round}");
    }
    let counted = agent
        .metrics()
        .sum("inferprobe_requests_total", &[("model", "rotated")]);
    assert_eq!(counted, 3.0);
    agent.stop();
}
