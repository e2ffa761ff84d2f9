//! Compares the agent's times of ten thousand requests with the reference server's own.

use inferprobe_tests::{
    accuracy::{
        assert_stages_add_up, drive, hold_in_one_of_five, holds, outside, ten_thousand_requests,
    },
    agent::{Agent, request_log::Logged},
    check_times::pair,
    require_kernel::require_kernel,
    server::{Server, stamps::Stamp},
};

const MS: u64 = 1_000_000;

#[test]
fn ten_thousand_requests_have_the_times_of_their_server() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    hold_in_one_of_five(|| ten_thousand_requests(|args| Agent::start(args)));
}

#[test]
fn sleep_before_the_read_is_queue_time() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    hold_in_one_of_five(slow_reader);
}

fn slow_reader() -> bool {
    const SLEEP_MS: u64 = 3;
    const COUNT: usize = 800;
    let mut server = Server::start(&["--read-sleep-ms", &SLEEP_MS.to_string()]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let sends = drive(&server.place, COUNT, &["/predictions/slow-reader"]);
    let rows = agent.rows(COUNT, |row| row.model == "slow-reader");
    let pairs = pair(&server.stamps(COUNT), &rows);
    let short = pairs
        .iter()
        .find(|(_, row)| row.queue_ns() < Some(SLEEP_MS * MS));
    assert!(short.is_none(), "{short:?}");
    // From readable, by the server's own poll, to the read. The agent's queue time also has the wake-up of the server.
    let shortest = |stamp: &Stamp| stamp.first_read.call_ns - stamp.readable_ns.unwrap();
    let error = |(stamp, row): &(Stamp, Logged)| {
        let sent = sends[&(row.peer_port, row.seq)];
        let longest = stamp.first_read.return_ns - sent.call_ns;
        outside(row.queue_ns().unwrap(), shortest(stamp), longest)
    };
    let errors_ns = pairs.iter().map(error).collect();
    let queue_holds = holds("error of queue time, slow reader", errors_ns);
    assert_stages_add_up(&agent, &rows);
    agent.stop();
    queue_holds
}
