//! Compares the agent's times of thousands of requests with the reference server's own, within a limit.
//!
//! The calling test starts the agent.

use std::{collections::HashMap, thread};

use crate::{
    agent::{Agent, request_log::Logged},
    check_times::{Key, pair, size_mismatches},
    client::{Connection, request},
    server::{
        Place, Server,
        stamps::{Call, Stamp},
    },
    stats::Spread,
};

const CONNECTIONS: u32 = 8;
const REQUESTS: usize = 10_000;
/// Limit for the p99 of an error.
const P99_LIMIT_NS: u64 = 50_000;
/// Why every time of a request is known.
const SEEN: &str = "the agent saw the whole request";

/// Sends `count` requests over concurrent keep-alive connections, and returns the client's send of each.
pub fn drive(place: &Place, count: usize, targets: &'static [&'static str]) -> HashMap<Key, Call> {
    let each = count / usize::try_from(CONNECTIONS).expect("a small number");
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = Connection::open(place).expect("the server listens");
            thread::spawn(move || {
                let mut sends = Vec::with_capacity(each);
                for (index, target) in targets.iter().cycle().take(each).enumerate() {
                    let bytes = request("POST", target, &[], &[b'x'; 200]);
                    let (sent, answer) = client.exchange(&bytes).expect("the server answers");
                    assert_eq!(answer.status, 200);
                    let seq = u32::try_from(index).expect("a small number");
                    sends.push(((client.local_port(), seq), sent));
                }
                sends
            })
        })
        .collect();
    let sends = threads
        .into_iter()
        .flat_map(|t| t.join().expect("every client succeeds"));
    sends.collect()
}

/// Prints the spread of `errors_ns`, and returns whether its p99 is within the limit.
pub fn holds(what: &str, errors_ns: Vec<u64>) -> bool {
    let spread = Spread::of(errors_ns).expect("there was a request");
    println!("{what}, ns: {spread:?}");
    spread.p99 <= P99_LIMIT_NS
}

/// Returns whether the agent's handler times are within the limit of the server's.
fn handler_holds(pairs: &[(Stamp, Logged)]) -> bool {
    let error = |(stamp, row): &(Stamp, Logged)| {
        let handler_ns = row.handler_ns().expect(SEEN);
        handler_ns.abs_diff(stamp.handler_ns())
    };
    holds("error of handler time", pairs.iter().map(error).collect())
}

/// Runs `round` until its errors are within the limit.
///
/// If a server loses its CPU between a system call and its own stamp, the stamp is wrong. On a busy machine that
/// happens to more than one request in a hundred. Counts and sums must be right in every round.
pub fn hold_in_one_of_five(mut round: impl FnMut() -> bool) {
    let held = (1..=5).any(|number| {
        println!("round {number}");
        round()
    });
    assert!(
        held,
        "p99 of an error is over {P99_LIMIT_NS} ns in each of five rounds"
    );
}

/// Returns the distance of `value` from `low..=high`; 0 inside.
pub fn outside(value: u64, low: u64, high: u64) -> u64 {
    low.saturating_sub(value).max(value.saturating_sub(high))
}

fn seconds(total_ns: u64) -> f64 {
    total_ns as f64 / 1e9
}

/// Asserts that the times of each of `rows` are in order, and that the agent's sums are those of the rows.
pub fn assert_stages_add_up(agent: &Agent, rows: &[Logged]) {
    for row in rows {
        let first_write_ns = row.first_write_ns.expect(SEEN);
        let moments = [
            row.arrival_ns.expect(SEEN),
            row.first_read_ns,
            row.last_read_ns,
            first_write_ns,
            row.last_write_ns.expect(SEEN),
        ];
        // Stages are the gaps between these, so they add up to the total when none is negative.
        assert!(moments.is_sorted(), "{row:?}");
    }
    let metrics = agent.metrics();
    for (name, total_ns) in [
        (
            "inferprobe_request_queue_seconds_sum",
            rows.iter().map(|row| row.queue_ns().expect(SEEN)).sum(),
        ),
        (
            "inferprobe_request_handler_seconds_sum",
            rows.iter().map(|row| row.handler_ns().expect(SEEN)).sum(),
        ),
        (
            "inferprobe_request_duration_seconds_sum",
            rows.iter()
                .map(|row| row.last_write_ns.expect(SEEN) - row.arrival_ns.expect(SEEN))
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

/// Sends ten thousand requests to a reference server, which the agent of `start` measures. Returns whether the errors
/// are within the limit.
///
/// # Panics
/// If a count or a sum is wrong.
pub fn ten_thousand_requests(start: impl FnOnce(&[&str]) -> Agent) -> bool {
    let mut server = Server::start(&[]);
    let agent = start(&["--watch-port", &server.port().to_string()]);
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
    let mismatch = pairs
        .iter()
        .find(|(stamp, row)| !size_mismatches(stamp, row).is_empty());
    assert!(mismatch.is_none(), "{mismatch:?}");
    let handler_holds = handler_holds(&pairs);
    // The server cannot observe the arrival: the request became readable during the client's send.
    let error = |(stamp, row): &(Stamp, Logged)| {
        let sent = sends[&(row.peer_port, row.seq)];
        let read_ns = stamp.first_read.return_ns;
        let shortest = read_ns.saturating_sub(sent.return_ns);
        outside(
            row.queue_ns().expect(SEEN),
            shortest,
            read_ns - sent.call_ns,
        )
    };
    let queue_holds = holds("error of queue time", pairs.iter().map(error).collect());
    assert_stages_add_up(&agent, &rows);
    agent.stop();
    handler_holds && queue_holds
}
