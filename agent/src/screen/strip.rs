//! Draws the lines at the top: what runs here, how it does, and what must not be missed.
//!
//! Does not depend on: the rest of the screen.

use ratatui::text::{Line, Span};

use crate::{
    api::live::{Live, ProbeState},
    screen::{columns, look::Look, state::State, text},
};

/// Coverage below this is said aloud.
const COVERED: f64 = 0.999;

/// Returns the lines.
pub(super) fn lines(state: &State, look: Look, width: usize) -> Vec<Line<'static>> {
    let Some(live) = &state.live else {
        let mut lines = vec![title(state, None, look, width)];
        let fault = state
            .fault
            .as_deref()
            .unwrap_or("waiting for the first answer");
        lines.extend(loud(fault, look, width));
        return lines;
    };
    let mut lines = vec![
        title(state, Some(live), look, width),
        trust(state, live, look, width),
    ];
    for warning in warnings(state, live) {
        lines.extend(loud(&warning, look, width));
    }
    lines
}

fn title(state: &State, live: Option<&Live>, look: Look, width: usize) -> Line<'static> {
    let mut facts = Vec::new();
    let mut name = state.target.clone();
    if let Some(live) = live {
        name.clone_from(&live.source.hostname);
        let figures = &live.totals;
        let models = live.models.len() as u64 + live.models_omitted;
        let errors = figures.client_errors + figures.server_errors;
        facts.extend([
            format!("{} req/s", text::rate(figures.per_second)),
            format!("{} % errors", text::percent_of(errors, figures.requests)),
            format!("p99 {}", text::known(figures.p99_ns)),
            plural(live.servers.len() as u64, "server"),
            plural(models, "model"),
        ]);
    }
    let right = right_corner(state, live);
    let gap = width.saturating_sub(right.len() + 1);
    let name = format!("inferprobe  {}", text::cut(&name, 24, look));
    let left = joined(name, facts, gap);
    Line::from(vec![
        Span::styled(text::left(&left, gap, look), look.heading()),
        Span::raw(" "),
        Span::styled(
            right,
            if state.frozen {
                look.loud()
            } else {
                look.faint()
            },
        ),
    ])
}

fn right_corner(state: &State, live: Option<&Live>) -> String {
    let time = live.map(|live| text::time_of_day(live.source.unix_ms) + " UTC");
    let time = time.unwrap_or_default();
    let minutes = |ms: u64| format!("{}:{:02}", ms / 60_000, ms / 1000 % 60);
    let playback = state.playback.map(|playback| {
        format!(
            "recording {}/{} ",
            minutes(playback.at_ms),
            minutes(playback.length_ms)
        )
    });
    let frozen = if state.frozen { "FROZEN " } else { "" };
    format!("{frozen}{}{time}", playback.unwrap_or_default())
}

fn trust(state: &State, live: &Live, look: Look, width: usize) -> Line<'static> {
    let coverage = live.coverage.ratio.map_or_else(
        || "coverage ?".to_owned(),
        |ratio| format!("coverage {} %", covered(ratio)),
    );
    let lost: u64 = live.losses.iter().map(|loss| loss.count).sum();
    let cost = match (live.cost.cpus, live.cost.memory_bytes) {
        (None, None) => "costs ?".to_owned(),
        (cpus, memory) => {
            let cpus =
                cpus.map_or_else(|| "? %".into(), |cpus| format!("{} %", text::percent(cpus)));
            let memory = memory.map(|memory| format!(", {}", text::bytes(memory)));
            format!("costs {cpus} of a core{}", memory.unwrap_or_default())
        }
    };
    let most = live
        .losses
        .first()
        .map(|loss| format!(" ({})", loss.reason));
    let lost = format!("lost {}{}", text::count(lost), most.unwrap_or_default());
    let mut facts = vec![coverage, lost, cost];
    facts.extend(state.page.as_ref().map(|page| format!("page {page}")));
    let host = |name: &str, ratio: Option<f64>| {
        ratio.map(|ratio| format!("{name} {} %", text::percent(ratio)))
    };
    facts.extend(host("CPU", live.host.cpu_ratio));
    facts.extend(host("memory", live.host.memory_ratio));
    let busiest = live.gpus.devices.iter().filter_map(|gpu| gpu.busy_ratio);
    facts.extend(host("GPU", busiest.reduce(f64::max)));
    let mut facts = facts.into_iter();
    let first = facts.next().unwrap_or_default();
    let line = joined(first, facts, width);
    Line::styled(text::cut(&line, width, look), look.faint())
}

/// Joins facts, as many as fit.
fn joined(first: String, facts: impl IntoIterator<Item = String>, width: usize) -> String {
    facts.into_iter().fold(first, |line, fact| {
        let longer = format!("{line}  {fact}");
        match longer.chars().count() > width {
            true => line,
            false => longer,
        }
    })
}

fn warnings(state: &State, live: &Live) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(fault) = &state.fault {
        let since = text::time_of_day(live.source.unix_ms);
        warnings.push(format!("no answer since {since} UTC: {fault}"));
    }
    match live.probes.state {
        ProbeState::Attached => {}
        ProbeState::Off => warnings.push(
            "the probes are switched off: no request is measured; start the agent without --no-probes".into(),
        ),
        ProbeState::Failed => warnings.push(format!(
            "the probes are not attached: {}; run `inferprobe doctor` on that host",
            live.probes.reason.as_deref().unwrap_or("the reason is unknown"),
        )),
    }
    if let Some(ratio) = live.coverage.ratio.filter(|ratio| *ratio < COVERED) {
        warnings.push(format!(
            "coverage {} %: the rest of the bytes belongs to no counted request; the metric inferprobe_missed_bytes_total has the server, and docs/limits.md the reasons",
            covered(ratio)
        ));
    }
    warnings
}

/// Returns a share in percent, never rounded up to 100.
fn covered(ratio: f64) -> String {
    format!("{:.2}", (ratio * 1e4).floor() / 100.0)
}

fn loud(warning: &str, look: Look, width: usize) -> Vec<Line<'static>> {
    let lines = columns::wrap(warning, width, look);
    let lines = lines
        .into_iter()
        .map(|line| Line::styled(line, look.loud()));
    lines.collect()
}

fn plural(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{} {noun}s", text::count(number)),
    }
}
