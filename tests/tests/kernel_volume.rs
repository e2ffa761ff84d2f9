//! Needs root: a hundred thousand requests, a tenth of them aborted, and not one too many or too few.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use inferprobe_tests::{
    agent::Agent,
    clock::wait_within,
    gate,
    server::Server,
    tally::{LOST, Tally, UNFINISHED},
    volume::{self, Volume},
};

const COUNTED: &str = "inferprobe_requests_total";
const VOLUME: Volume = Volume {
    requests: 100_000,
    connections: 64,
    threads: 4,
    abort_every: 10,
};
/// How long the last requests may take to be counted.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn a_hundred_thousand_requests_are_counted_to_the_last() {
    let Some(_turn) = gate::kernel() else { return };
    let mut server = Server::start(&[]);
    let agent = Agent::start_unlogged(&["--watch-port", &server.port().to_string()]);
    let before = Tally::of(&agent);
    let start = Instant::now();
    let outcome = volume::run(&server.place, VOLUME);
    let took = start.elapsed();
    println!("{outcome:?} in {took:.1?}");
    // Each request has one end, here and there: the server itself knows which of the aborted it has answered, because the
    // first write after a client's close succeeds.
    let (answered, unanswered, tally) = settle(&agent, &mut server, &before, outcome.left);
    println!("answered {answered:?}, {unanswered} unanswered");
    for family in [UNFINISHED, LOST] {
        println!("{family} {:?}", tally.grown(&before, family));
    }
    let answered_sum: u64 = answered.values().sum();
    assert_eq!(answered_sum + unanswered, outcome.answered + outcome.left);
    assert!(answered_sum >= outcome.answered);

    let metrics = agent.metrics();
    for (code, count) in &answered {
        let counted = metrics.sum(COUNTED, &[("code", &code.to_string())]);
        assert_eq!(counted, *count as f64, "code {code}");
    }
    assert_eq!(metrics.sum(COUNTED, &[]), answered_sum as f64);
    let unfinished: BTreeMap<_, _> = tally.grown(&before, UNFINISHED).into_iter().collect();
    let expected = [
        ("incomplete".to_owned(), outcome.cut as f64),
        ("unanswered".to_owned(), unanswered as f64),
    ];
    assert_eq!(unfinished, BTreeMap::from(expected));
    assert_eq!(tally.grown(&before, LOST), []);
    let coverage: Vec<f64> = metrics
        .samples("inferprobe_coverage_ratio", &[])
        .map(|sample| sample.value)
        .collect();
    assert_eq!(coverage, [1.0]);
    agent.stop();
}

/// Waits until server and agent have told of the last request: answers by code and how many of the `left` have none, by
/// the server; and what the agent counted.
fn settle(
    agent: &Agent,
    server: &mut Server,
    before: &Tally,
    left: u64,
) -> (BTreeMap<u16, u64>, u64, Tally) {
    let mut answered = BTreeMap::new();
    let mut tally = before.clone();
    let _ = wait_within(SETTLE_LIMIT, || {
        answered = server.codes();
        tally = Tally::of(agent);
        let sum: u64 = answered.values().sum();
        let counted = agent.metrics().sum(COUNTED, &[]);
        let told = counted + f64::from(tally.unfinished(before));
        (counted >= sum as f64 && told >= f64::from(VOLUME.requests)).then_some(())
    });
    let aborted = u64::from(VOLUME.requests / VOLUME.abort_every);
    let sum: u64 = answered.values().sum();
    let whole = u64::from(VOLUME.requests) - aborted + left;
    (answered, whole - sum, tally)
}
