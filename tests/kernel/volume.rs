//! Counts a hundred thousand requests exactly, of which clients abort a tenth.

use std::time::{Duration, Instant};

use inferprobe_tests::{
    agent::Agent,
    clock::wait_within,
    loss_counters::{LOST, LossCounters, UNFINISHED},
    require_kernel::require_kernel,
    server::Server,
    volume::{self, Volume},
};

const COUNTED: &str = "inferprobe_requests_total";
const VOLUME: Volume = Volume {
    requests: 100_000,
    connections: 64,
    abort_every: 10,
};
/// Longest wait until the last requests are counted.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn hundred_thousand_requests_are_counted_exactly() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut server = Server::start(&[]);
    let agent = Agent::start_unlogged(&["--watch-port", &server.port().to_string()]);
    let before = LossCounters::of(&agent);
    let start = Instant::now();
    let outcome = volume::run(&server.place, VOLUME);
    let took = start.elapsed();
    println!("{outcome:?} in {took:.1?}");
    let counters = settle(&agent, &before);
    let served = server.codes();
    println!("the server answered {served:?}");
    for family in [UNFINISHED, LOST] {
        println!("{family} {:?}", counters.grown(&before, family));
    }
    assert_eq!(counters.grown(&before, LOST), []);

    // A write to a client that has just closed succeeds. For the server and the kernel it was a response.
    let metrics = agent.metrics();
    let mut counted_sum = 0.0;
    for (code, answered) in &outcome.answered {
        let counted = metrics.sum(COUNTED, &[("code", &code.to_string())]);
        let most = served[code] as f64;
        assert!(
            (*answered as f64..=most).contains(&counted),
            "{counted} of {code}"
        );
        counted_sum += counted;
    }
    assert_eq!(metrics.sum(COUNTED, &[]), counted_sum);
    let answered: u64 = outcome.answered.values().sum();
    let unanswered = (answered + outcome.left) as f64 - counted_sum;
    let unfinished = counters.grown(&before, UNFINISHED);
    let expected = [
        ("incomplete".to_owned(), outcome.cut as f64),
        ("unanswered".to_owned(), unanswered),
    ];
    assert_eq!(unfinished, expected);
    let coverage: Vec<f64> = metrics
        .samples("inferprobe_coverage_ratio", &[])
        .map(|sample| sample.value)
        .collect();
    assert_eq!(coverage, [1.0]);
    agent.stop();
}

/// Waits until the agent has counted the last request, and returns its counters.
fn settle(agent: &Agent, before: &LossCounters) -> LossCounters {
    let mut counters = before.clone();
    let _ = wait_within(SETTLE_LIMIT, || {
        counters = LossCounters::of(agent);
        let counted = agent.metrics().sum(COUNTED, &[]);
        let reported = counted + f64::from(counters.unfinished(before));
        (reported >= f64::from(VOLUME.requests)).then_some(())
    });
    counters
}
