//! Measures what it costs a FastAPI server on uvicorn to be measured: by the agent, by prometheus-fastapi-instrumentator, and by
//! OpenTelemetry's SDK.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};

use inferprobe_tests::agent::Agent;

use crate::{
    CONNECTIONS, Pace,
    extremes::Extremes,
    fastapi::FastApi,
    load_at,
    placement::Placement,
    report::{Row, Section},
    watch_port,
};

/// Length of a round.
const ROUND: Duration = Duration::from_millis(1_500);
const RATIO_TARGET: f64 = 0.985;

/// Runs `groups` groups of rounds with the parties in each place. `folder` has the Python environment `venv`.
pub(crate) fn measure(folder: Option<&Path>, groups: u32) -> Result<Vec<Section>> {
    let Some(folder) = folder else {
        let row = Row::new("not measured", "-").detail("--frameworks names no folder");
        return Ok(vec![section("FastAPI on uvicorn", vec![row])]);
    };
    let of_placement = |placement| of_placement(folder, placement, groups);
    Placement::ALL.into_iter().map(of_placement).collect()
}

fn section(title: &str, rows: Vec<Row>) -> Section {
    Section {
        title: title.to_owned(),
        rows,
    }
}

/// Each group: bare, with the agent, by each library, with the agent, bare. So drift affects all.
fn of_placement(folder: &Path, placement: Placement, groups: u32) -> Result<Section> {
    let [bare, prometheus, opentelemetry] = ["none", "prometheus", "opentelemetry"]
        .map(|by| placement.of_server(|| FastApi::start(folder, by, false))?);
    let [bare, prometheus, opentelemetry] = [bare?, prometheus?, opentelemetry?];
    let round = |server: &FastApi| {
        placement.of_others(|| Ok(load_at(server.port, ROUND, Pace::FULL)?.requests_per_s))?
    };
    let watched_round = || -> Result<f64> {
        let options = watch_port(bare.port);
        let agent = placement.of_others(|| Agent::start_unlogged(&options))?;
        let rate = round(&bare);
        agent.stop();
        rate
    };
    for server in [&bare, &prometheus, &opentelemetry] {
        round(server)?;
    }
    let mut rates = Vec::new();
    let mut ratios: [Vec<f64>; 4] = Default::default();
    for _ in 0..groups {
        let first = round(&bare)?;
        let early = watched_round()?;
        let libraries = [round(&prometheus)?, round(&opentelemetry)?];
        let late = watched_round()?;
        let last = round(&bare)?;
        let without = (first + last) / 2.0;
        rates.push(without);
        let watched = (early + late) / 2.0;
        for (ratios, rate) in ratios.iter_mut().zip([watched, libraries[0], libraries[1]]) {
            ratios.push(rate / without);
        }
        ratios[3].push(last / first);
    }
    let rate = Extremes::of(rates).context("no round")?.median;
    let mut rows = vec![Row::new("requests, bare", format!("{rate:.0} /s"))];
    let names = [
        "with the agent",
        "with prometheus-fastapi-instrumentator",
        "with OpenTelemetry's SDK, which exports nothing",
        "bare, the last round to the first",
    ];
    for (at, (name, ratios)) in names.into_iter().zip(ratios).enumerate() {
        let extremes = Extremes::of(ratios).context("no round")?;
        let (ratio, spread) = extremes.in_words();
        let row = Row::new(name, ratio).detail(format!("{spread} over {groups} groups"));
        rows.push(match at {
            0 => row.at_least(extremes.median, RATIO_TARGET),
            _ => row,
        });
    }
    let title = format!(
        "Throughput of FastAPI on uvicorn, {CONNECTIONS} connections, {}, as a ratio to bare (medians)",
        placement.name()
    );
    Ok(section(&title, rows))
}
