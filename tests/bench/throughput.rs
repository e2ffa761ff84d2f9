//! Measures how many requests a busy echo server serves with the agent beside it, and how many without.

use std::time::Duration;

use anyhow::{Context, Result};

use inferprobe_tests::{agent::Agent, server::Server};

use crate::{
    CONNECTIONS, Pace, bpf_stats,
    extremes::Extremes,
    load,
    placement::Placement,
    report::{Row, Section},
    watch,
};

/// Length of a round.
const ROUND: Duration = Duration::from_millis(400);
const ADDED_TARGET_NS: f64 = 2600.0;

/// Measures with the parties in each place.
pub(crate) fn measure(groups: u32) -> Result<Vec<Section>> {
    let measure = |placement| of_placement(placement, groups);
    Placement::ALL.into_iter().map(measure).collect()
}

/// Runs `groups` groups of rounds: without, with, with, without the agent, so that drift affects both.
fn of_placement(placement: Placement, groups: u32) -> Result<Section> {
    let server = placement.of_server(|| Server::start(&["--echo"]))?;
    let round = || placement.of_others(|| round(&server))?;
    round()?;
    let mut with = Vec::new();
    let mut without = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..groups {
        let before = round()?;
        let agent = placement.of_others(|| Agent::start_unlogged(&watch(&server)))?;
        let watched = (round()? + round()?) / 2.0;
        agent.stop();
        let unwatched = (before + round()?) / 2.0;
        with.push(watched);
        without.push(unwatched);
        ratios.push(watched / unwatched);
    }
    let (ratio, spread) = Extremes::of(ratios).context("no round")?.in_words();
    let rate = |rounds| Extremes::of(rounds).map_or(0.0, |rounds| rounds.median);
    let (without, with) = (rate(without), rate(with));
    let mut rows = vec![
        Row::new("requests, without the agent", format!("{without:.0} /s")),
        Row::new("requests, with the agent", format!("{with:.0} /s")),
        Row::new("ratio", ratio).detail(format!("{spread} over {groups} groups of four rounds")),
    ];
    if placement == Placement::Together {
        let added_ns = 1e9 / with - 1e9 / without;
        let added = Row::new(
            "CPU time that the agent adds to a request",
            format!("{added_ns:.0} ns"),
        );
        rows.push(added.at_most(added_ns, ADDED_TARGET_NS, "ns"));
    }
    if bpf_stats::always_on() {
        rows.push(
            Row::new("BPF statistics", "on")
                .detail("kernel.bpf_stats_enabled makes every program slower; the ratio suffers"),
        );
    }
    Ok(Section {
        title: format!(
            "Throughput of a hot echo server, {CONNECTIONS} connections, {} (medians)",
            placement.name()
        ),
        rows,
    })
}

/// Returns the requests per second of one round.
fn round(server: &Server) -> Result<f64> {
    Ok(load(server, ROUND, Pace::FULL)?.requests_per_s)
}
