//! Draws a row for each of the latest requests, with the parts of its duration.
//!
//! Does not depend on: the rest of the screen.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use crate::{
    api::{Source, requests::Request},
    screen::{
        bar,
        columns::{self, Column},
        look::Look,
        moments, place,
        state::State,
        text,
    },
};

#[derive(Debug, Clone, Copy)]
enum What {
    Ended,
    Model,
    Server,
    Place,
    Status,
    Total,
    FirstToken,
    Tokens,
    Because,
}

const COLUMNS: [Column<What>; 9] = [
    Column::new(What::Ended, "ENDED", 8, false, 0),
    Column::new(What::Model, "MODEL", 16, false, 0),
    Column::new(What::Server, "SERVER", 10, false, 110),
    Column::new(What::Place, "REPLICA", 12, false, 0),
    Column::new(What::Status, "STATUS", 6, true, 0),
    Column::new(What::Total, "TOTAL", 7, true, 0),
    Column::new(What::FirstToken, "FIRST", 7, true, 100),
    Column::new(What::Tokens, "TOKENS", 6, true, 130),
    Column::new(What::Because, "SLOW BY", 11, false, 0),
];

/// Returns the headings and at most `height` requests.
pub(super) fn lines(state: &State, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let listed = state.listed();
    let models = state.live.as_ref().map_or(&[][..], |live| &live.models);
    let apart = |request: &Request| place::apart(&request.served, &request.labels, models);
    let drawn: Vec<(&Request, Option<String>)> = listed
        .iter()
        .take(height.saturating_sub(1))
        .map(|request| (*request, apart(request)))
        .collect();
    let is_replicated = drawn.iter().any(|(_, apart)| apart.is_some());
    let columns: Vec<Column<What>> = COLUMNS
        .into_iter()
        .filter(|column| is_replicated || !matches!(column.what, What::Place))
        .collect();
    let (shown, rest) = columns::shown(&columns, width);
    let mut headings = columns::headings(&shown, look);
    let order = if state.slowest_first {
        "slowest first"
    } else {
        "latest first"
    };
    let missed = match state.missed {
        0 => String::new(),
        missed => format!(", {missed} missed"),
    };
    let summary = format!(
        "{order}, {} of {}{missed}",
        listed.len(),
        state.requests.len()
    );
    headings.push(Span::styled(text::left(&summary, rest, look), look.faint()));
    let mut lines = vec![Line::from(headings)];
    let Some(live) = &state.live else {
        return lines;
    };
    let longest = drawn
        .iter()
        .filter_map(|(request, _)| moments::duration_ns(request))
        .max();
    let rows = drawn.iter().map(|(request, apart)| {
        let cells = shown.iter().map(|column| {
            let style = match column.what {
                What::Status => look.status(request.status),
                What::Because => look.heading(),
                _ => Style::new(),
            };
            let value = value(column.what, request, apart.as_deref(), &live.source);
            let cell = match column.what {
                What::Place => text::left_end(&value, column.width, look) + " ",
                _ => columns::cell(column, &value, look),
            };
            Span::styled(cell, style)
        });
        let mut spans: Vec<Span> = cells.collect();
        spans.extend(bar_of(request, longest.unwrap_or_default(), rest, look));
        Line::from(spans)
    });
    lines.extend(rows);
    if drawn.is_empty() {
        let none = match state.requests.is_empty() {
            true => "no request has ended since this agent started",
            false => "no request matches the filter",
        };
        lines.push(Line::styled(none, look.faint()));
    }
    lines
}

/// Draws the parts of a request, as long as it took of `longest_ns`; if they are unknown, only how long it took.
pub(super) fn bar_of(
    request: &Request,
    longest_ns: u64,
    width: usize,
    look: Look,
) -> Vec<Span<'static>> {
    match (&request.stages_ns, moments::duration_ns(request)) {
        (Some(stages), _) => bar::stacked(stages, longest_ns, width, look),
        (None, Some(ns)) if longest_ns > 0 => {
            let full = (ns as f64 / longest_ns as f64 * width as f64).round() as usize;
            let full = full.min(width);
            let unknown = look.either("─", "-").repeat(full);
            vec![
                Span::styled(unknown, look.faint()),
                Span::raw(" ".repeat(width - full)),
            ]
        }
        (None, _) => vec![Span::raw(" ".repeat(width))],
    }
}

fn value(what: What, request: &Request, apart: Option<&str>, source: &Source) -> String {
    match what {
        What::Ended => ended(request, source),
        What::Model => request.served.model.clone(),
        What::Server => request.served.server.clone(),
        What::Place => apart.unwrap_or_default().to_owned(),
        What::Status => status(request),
        What::Total => text::known(moments::duration_ns(request)),
        What::FirstToken => moments::first_ns(request)
            .map(text::duration)
            .unwrap_or_default(),
        What::Tokens => {
            let output = request.tokens.as_ref().and_then(|tokens| tokens.output);
            output.map(text::count).unwrap_or_default()
        }
        What::Because => request
            .because
            .clone()
            .unwrap_or_default()
            .replace('_', " "),
    }
}

/// Returns the status of a request; of gRPC its own.
pub(super) fn status(request: &Request) -> String {
    match (request.grpc_status, request.status) {
        (Some(status), _) => format!("grpc{status}"),
        (None, 0) => text::UNKNOWN.into(),
        (None, status) => status.to_string(),
    }
}

/// Returns when a request ended, as time of day.
pub(super) fn ended(request: &Request, source: &Source) -> String {
    let ago_ms = source.now_ns.saturating_sub(moments::end_ns(request)) / 1_000_000;
    text::time_of_day(source.unix_ms.saturating_sub(ago_ms))
}
