//! Checks that what the programs in the kernel lose counts at the server whose it is.

use std::time::Duration;

use inferprobe_tests::{
    agent::Agent, client, clock::wait_for, loss_counters::LOST, require_kernel::require_kernel,
    server::Server, volume,
};
use rustix::process::{Pid, Signal, kill_process};

/// More requests than the ring of records has room for.
const VOLUME: volume::Volume = volume::Volume {
    requests: 20_000,
    connections: 32,
    abort_every: u32::MAX,
};

#[test]
fn records_that_a_full_ring_drops_count_at_their_server() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let port = server.port().to_string();
    let agent = Agent::start_unlogged(&["--watch-port", &port]);
    let lost = |labels: &[(&str, &str)]| agent.metrics().sum(LOST, labels);
    let at_server = [("reason", "ring_full"), ("port", port.as_str())];
    let at_none = [("reason", "ring_full"), ("server", "unknown")];
    assert_eq!(client::get(server.port(), "/ping").unwrap().0, 200);
    wait_for("the server's counters", Duration::from_secs(5), || {
        let exported = agent.metrics().samples(LOST, &at_server).count();
        (exported == 1).then_some(())
    });

    let pid = Pid::from_raw(agent.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    volume::run(&server.place, VOLUME);
    kill_process(pid, Signal::CONT).unwrap();
    wait_for("losses of the server", Duration::from_secs(10), || {
        (lost(&at_server) > 0.0).then_some(())
    });
    // Of two losses on two CPUs at once, one may have no server.
    assert!(lost(&at_none) <= lost(&at_server) / 100.0);
    agent.stop();
}
