//! Needs root: the agent's times of ten thousand requests against the reference server's own.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

use std::{collections::HashMap, thread};

use inferprobe_tests::{
    agent::{Agent, Logged},
    client::{Connection, request},
    fit::{Key, figures, pair},
    gate,
    reference::stamps::{Call, Stamp},
    server::{Place, Server},
    stats::Spread,
};

const CONNECTIONS: u32 = 8;
const REQUESTS: usize = 10_000;
/// Largest error of ninety-nine in a hundred.
const P99_LIMIT_NS: u64 = 50_000;
const MS: u64 = 1_000_000;

/// Sends `count` requests over keep-alive connections at once; the client's send of each.
fn drive(place: &Place, count: usize, targets: &'static [&'static str]) -> HashMap<Key, Call> {
    let each = count / usize::try_from(CONNECTIONS).unwrap();
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = Connection::open(place).unwrap();
            thread::spawn(move || {
                let mut sends = Vec::with_capacity(each);
                for (index, target) in targets.iter().cycle().take(each).enumerate() {
                    let bytes = request("POST", target, &[], &[b'x'; 200]);
                    let (sent, answer) = client.exchange(&bytes).unwrap();
                    assert_eq!(answer.status, 200);
                    let seq = u32::try_from(index).unwrap();
                    sends.push(((client.local_port(), seq), sent));
                }
                sends
            })
        })
        .collect();
    let sends = threads.into_iter().flat_map(|t| t.join().unwrap());
    sends.collect()
}

/// Prints the spread of `errors_ns`, and says whether its p99 holds the limit.
fn holds(what: &str, errors_ns: Vec<u64>) -> bool {
    let spread = Spread::of(errors_ns).unwrap();
    println!("{what}, ns: {spread:?}");
    spread.p99 <= P99_LIMIT_NS
}

/// Whether the agent's handler times hold against the server's.
fn handler_holds(pairs: &[(Stamp, Logged)]) -> bool {
    let error = |(stamp, row): &(Stamp, Logged)| {
        let handler_ns = row.handler_ns().unwrap();
        handler_ns.abs_diff(stamp.handler_ns())
    };
    holds("error of handler time", pairs.iter().map(error).collect())
}

/// Runs `round` until its errors hold the limit: a server that loses its CPU between a system call and its own stamp
/// is in the wrong itself, and on a busy machine that is more than one request in a hundred.
///
/// What a round counts and adds up must be right in each.
fn hold_in_one_of_five(round: fn() -> bool) {
    let held = (1..=5).any(|number| {
        println!("round {number}");
        round()
    });
    assert!(
        held,
        "p99 of an error is over {P99_LIMIT_NS} ns in each of five rounds"
    );
}

/// How far `value` lies outside `low..=high`.
fn outside(value: u64, low: u64, high: u64) -> u64 {
    low.saturating_sub(value).max(value.saturating_sub(high))
}

fn seconds(total_ns: u64) -> f64 {
    total_ns as f64 / 1e9
}

fn assert_stages_add_up(agent: &Agent, rows: &[Logged]) {
    for row in rows {
        let first_write_ns = row.first_write_ns.unwrap();
        let moments = [
            row.arrival_ns.unwrap(),
            row.first_read_ns,
            row.last_read_ns,
            first_write_ns,
            row.last_write_ns.unwrap(),
        ];
        // Stages are the gaps between these, so they add up to the total when none is negative.
        assert!(moments.is_sorted(), "{row:?}");
    }
    let metrics = agent.metrics();
    for (name, total_ns) in [
        (
            "inferprobe_request_queue_seconds_sum",
            rows.iter().map(|row| row.queue_ns().unwrap()).sum(),
        ),
        (
            "inferprobe_request_handler_seconds_sum",
            rows.iter().map(|row| row.handler_ns().unwrap()).sum(),
        ),
        (
            "inferprobe_request_duration_seconds_sum",
            rows.iter()
                .map(|row| row.last_write_ns.unwrap() - row.arrival_ns.unwrap())
                .sum(),
        ),
    ] {
        let (found, expected) = (metrics.sum(name, &[]), seconds(total_ns));
        assert!(
            (found - expected).abs() < 1e-6,
            "{name} {found}, not {expected}"
        );
    }
}

#[test]
fn ten_thousand_requests_are_timed_as_their_server_timed_them() {
    let Some(_turn) = gate::kernel() else { return };
    hold_in_one_of_five(ten_thousand_requests);
}

fn ten_thousand_requests() -> bool {
    let mut server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let targets = &[
        "/predictions/a",
        "/predictions/a?sleep_us=200",
        "/v2/models/c/infer",
        "/v1/models/b:predict?sleep_us=500&body=3000",
        "/v2/models/c/versions/3/infer?split=1",
    ];
    let sends = drive(&server.place, REQUESTS, targets);
    let rows = agent.rows(REQUESTS, |row| row.local_port == Some(server.port()));
    let stamps = server.stamps(REQUESTS);
    assert_eq!((rows.len(), stamps.len()), (REQUESTS, REQUESTS));
    agent.wait_sum("inferprobe_requests_total", &[], REQUESTS as f64);
    let metrics = agent.metrics();
    for (labels, share) in [
        (&[("model", "a"), ("code", "200")][..], 0.4),
        (&[("model", "b"), ("code", "200")], 0.2),
        (&[("model", "c"), ("code", "200")], 0.4),
        (&[("model", "c"), ("version", "3")], 0.2),
        (&[], 1.0),
    ] {
        let counted = metrics.sum("inferprobe_requests_total", labels);
        assert_eq!(counted, share * REQUESTS as f64, "{labels:?}");
    }
    assert_eq!(metrics.sum("inferprobe_records_lost_total", &[]), 0.0);

    let pairs = pair(&stamps, &rows);
    let misfit = pairs
        .iter()
        .find(|(stamp, row)| !figures(stamp, row).is_empty());
    assert!(misfit.is_none(), "{misfit:?}");
    let handler_holds = handler_holds(&pairs);
    // The server cannot see the arrival: the request became readable while the client was in its send.
    let error = |(stamp, row): &(Stamp, Logged)| {
        let sent = sends[&(row.peer_port, row.seq)];
        let read_ns = stamp.first_read.return_ns;
        let shortest = read_ns.saturating_sub(sent.return_ns);
        outside(row.queue_ns().unwrap(), shortest, read_ns - sent.call_ns)
    };
    let queue_holds = holds("error of queue time", pairs.iter().map(error).collect());
    assert_stages_add_up(&agent, &rows);
    agent.stop();
    handler_holds && queue_holds
}

#[test]
fn a_sleep_before_the_read_is_queue_time() {
    let Some(_turn) = gate::kernel() else { return };
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
    // From readable, by the server's own poll, to the read: what the agent adds is the time to wake the server up.
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
