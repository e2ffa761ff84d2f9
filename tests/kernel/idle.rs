//! What an agent takes that has nothing to measure.

use std::{fs, time::Duration};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    report::row,
    require_kernel::require_kernel,
    server::Server,
};

/// Most resident memory, bytes; the docs state less.
const RESIDENT_BYTES: u64 = 20_000_000;
/// Until they are attached, after a server's start.
const ATTACH_LIMIT: Duration = Duration::from_secs(2);
/// Until the hooks of sockets are detached, after the last need for them.
const DETACH_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn an_idle_agent_is_small() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start::<&str>(&[]);
    agent.metrics();
    let resident_bytes = agent.rss_bytes();
    row(
        "idle agent",
        "resident memory, MB",
        "-",
        &format!("{:.1}", resident_bytes as f64 / 1e6),
        "20",
    );
    assert!(resident_bytes <= RESIDENT_BYTES, "{resident_bytes}");
    agent.stop();
}

#[test]
fn the_kernel_makes_no_huge_pages_of_the_agents_memory() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start::<&str>(&[]);
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    // Since Linux 5.0; 0 also where the kernel has none.
    assert!(status.contains("THP_enabled:\t0"), "{status}");
    agent.stop();
}

#[test]
fn no_socket_of_the_host_pays_while_nothing_is_watched() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let attached = |agent: &Agent| agent.metrics().sum("inferprobe_socket_hooks_attached", &[]);
    let agent = Agent::start(&["--watch-exe", "only-here"]);
    assert_eq!(attached(&agent), 1.0);
    for model in ["first", "second"] {
        wait_for("the hooks to be detached", DETACH_LIMIT, || {
            (attached(&agent) == 0.0).then_some(())
        });
        let server = Server::start(&["--tag", "only-here"]);
        wait_for("the hooks to be attached", ATTACH_LIMIT, || {
            (attached(&agent) == 1.0).then_some(())
        });
        for _ in 0..20 {
            let mut client = Connection::open(&server.place).unwrap();
            let target = format!("/predictions/{model}");
            client
                .exchange(&request("POST", &target, &[], b"{}"))
                .unwrap();
        }
        let rows = agent.rows(20, |row| row.model == model);
        assert_eq!(rows.len(), 20, "{rows:?}");
        assert!(rows.iter().all(|row| row.arrival_ns.is_some()), "{rows:?}");
    }
    agent.stop();
}
