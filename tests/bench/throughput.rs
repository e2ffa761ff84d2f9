//! Measures how many requests a busy echo server serves with the agent beside it, and how many without.

use std::time::Duration;

use anyhow::{Context, Result};

use inferprobe_tests::{agent::Agent, server::Server};

use crate::{
    CONNECTIONS, Pace, bpf_stats, load,
    report::{Row, Section},
    watch,
};

/// Length of a round.
const ROUND: Duration = Duration::from_millis(400);
const RATIO_TARGET: f64 = 0.97;

/// Runs `groups` groups of rounds: without, with, with, without the agent, so that drift affects both.
pub(crate) fn measure(groups: u32) -> Result<Section> {
    let server = Server::start(&["--echo"]);
    load(&server, ROUND, Pace::FULL)?;
    let mut with = Vec::new();
    let mut without = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..groups {
        let before = round(&server)?;
        let agent = Agent::start_unlogged(&watch(&server));
        let watched = (round(&server)? + round(&server)?) / 2.0;
        agent.stop();
        let unwatched = (before + round(&server)?) / 2.0;
        with.push(watched);
        without.push(unwatched);
        ratios.push(watched / unwatched);
    }
    let ratio = median(&mut ratios).context("no round")?;
    let lowest = ratios.first().copied().unwrap_or(ratio);
    let highest = ratios.last().copied().unwrap_or(ratio);
    let per_s = |mut rounds: Vec<f64>| {
        median(&mut rounds).map_or_else(String::new, |rate| format!("{rate:.0} /s"))
    };
    let mut rows = vec![
        Row::new("requests, without the agent", per_s(without)),
        Row::new("requests, with the agent", per_s(with)),
        Row::new("ratio", format!("{ratio:.3}"))
            .at_least(ratio, RATIO_TARGET)
            .detail(format!(
                "{lowest:.3} to {highest:.3} over {groups} groups of four rounds"
            )),
    ];
    if bpf_stats::always_on() {
        rows.push(
            Row::new("BPF statistics", "on")
                .detail("kernel.bpf_stats_enabled makes every program slower; the ratio suffers"),
        );
    }
    Ok(Section {
        title: format!(
            "Throughput of a hot echo server, {CONNECTIONS} connections of a client on the same machine (medians)"
        ),
        rows,
    })
}

/// Returns the requests per second of one round.
fn round(server: &Server) -> Result<f64> {
    Ok(load(server, ROUND, Pace::FULL)?.requests_per_s)
}

/// Sorts `values`, and returns their median; the upper one of an even number.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
