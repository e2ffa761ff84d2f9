//! Puts a screen together: the strip, one view, and the keys.
//!
//! Does not depend on: how a view is drawn, terminals.

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use crate::{
    cli::View,
    screen::{
        columns, gpu, heat,
        look::Look,
        requests,
        state::State,
        strip, text,
        waterfall::{self, Drawn},
        why,
    },
};

/// Height of a heat map that is not bounded by a screen.
const HEAT_HEIGHT: usize = 20;
/// Requests that are listed if no screen bounds them.
const LISTED: usize = 50;
/// Lines that must be left below the models for something else to be shown there.
const SECOND_PART: usize = 8;

/// Width from which the last line has all keys.
const WIDE: usize = 110;
const ALL_KEYS: &str = "[w]aterfall [r]equests [h]eat map [g]pu [Enter] why [/]filter [space] freeze [?] keys [q]uit [s]orted";
/// The keys, and what they do.
const KEYS: [(&str, &str); 12] = [
    ("w", "where the requests of each model waited"),
    ("r", "the latest requests; again: the slowest first"),
    (
        "h",
        "heat map: how long requests took, over the last minutes",
    ),
    ("g", "GPUs, and who uses them"),
    ("up, down, j, k", "choose a model"),
    ("Enter", "explain the chosen model; again, or Esc: back"),
    (
        "/",
        "filter by model, server, status, reason; Enter keeps it, Esc clears it",
    ),
    ("s", "sort models by rate, errors, p50, p99 or name"),
    ("space", "freeze the screen; again: go on"),
    ("left, right", "10 s back or forward, in a recording"),
    ("?", "these keys"),
    ("q, Ctrl-C", "quit"),
];

/// Returns the whole screen: `height` lines of at most `width` columns.
pub fn screen(state: &State, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = strip::lines(state, look, width);
    let room = height.saturating_sub(lines.len() + 1);
    let mut body = match state.help {
        true => help(look),
        false if state.live.is_none() => Vec::new(),
        false => view(state, look, width, Some(room)),
    };
    body.truncate(room);
    body.resize(room, Line::default());
    lines.extend(body);
    lines.truncate(height.saturating_sub(1));
    lines.push(footer(state, look, width));
    let lines = lines
        .into_iter()
        .map(|line| columns::clip(line, width, look));
    lines.collect()
}

/// Returns all of what a view has to show, however long.
pub fn whole(state: &State, look: Look, width: usize) -> Vec<Line<'static>> {
    let mut lines = strip::lines(state, look, width);
    lines.extend(view(state, look, width, None));
    lines
}

/// Returns a view of at most `room` lines.
fn view(state: &State, look: Look, width: usize, room: Option<usize>) -> Vec<Line<'static>> {
    match state.view {
        View::Waterfall => models(state, look, width, room),
        View::Requests => requests::lines(state, look, width, room.unwrap_or(LISTED)),
        View::Heat => heat::lines(state, look, width, room.unwrap_or(HEAT_HEIGHT)),
        View::Gpu => gpu::lines(state, look, width),
    }
}

/// Returns the models, and in what is left of the room the chosen one, and the latest requests.
fn models(state: &State, look: Look, width: usize, room: Option<usize>) -> Vec<Line<'static>> {
    if state.detail
        && room.is_some()
        && let Some(model) = state.chosen_model()
    {
        return why::model(model, look, width);
    }
    let mut rows = waterfall::rows(state, look, width);
    if rows.is_empty() {
        return columns::note(nothing(state), width, look);
    }
    let mut lines = vec![waterfall::headings(look, width)];
    let legend = waterfall::legend(state, look, width);
    let Some(room) = room else {
        lines.extend(rows.into_iter().flat_map(|row| row.lines));
        lines.extend(legend);
        return lines;
    };
    for row in rows.iter_mut().filter(|row| row.is_chosen) {
        for line in &mut row.lines {
            mark(line, width);
        }
    }
    lines.extend(around_chosen(
        &rows,
        room.saturating_sub(1 + legend.len()),
        look,
    ));
    lines.extend(legend);
    let left = room.saturating_sub(lines.len() + 1);
    if left >= SECOND_PART
        && let Some(model) = state.chosen_model()
    {
        lines.push(Line::default());
        lines.extend(why::model(model, look, width));
    }
    let left = room.saturating_sub(lines.len() + 1);
    if left >= SECOND_PART && !state.requests.is_empty() {
        lines.push(Line::default());
        lines.extend(requests::lines(state, look, width, left));
    }
    lines
}

fn nothing(state: &State) -> &'static str {
    match &state.live {
        Some(live) if live.models.is_empty() && live.servers.is_empty() => {
            "no inference server is watched; `inferprobe servers` on that host lists what listens there"
        }
        Some(live) if live.models.is_empty() => "no inference request has ended yet",
        _ => "no model matches the filter",
    }
}

/// Returns the lines of as many rows as fit, the chosen one among them.
fn around_chosen(rows: &[Drawn], room: usize, look: Look) -> Vec<Line<'static>> {
    let total: usize = rows.iter().map(|row| row.lines.len()).sum();
    if total <= room {
        return rows.iter().flat_map(|row| row.lines.clone()).collect();
    }
    let room = room.saturating_sub(1);
    let height = rows.first().map_or(1, |row| row.lines.len());
    let fit = (room / height).max(1);
    let chosen = rows.iter().position(|row| row.is_chosen).unwrap_or(0);
    let first = (chosen + 1).saturating_sub(fit).min(rows.len() - fit);
    let shown = &rows[first..first + fit];
    let mut lines: Vec<Line> = shown.iter().flat_map(|row| row.lines.clone()).collect();
    let more = rows.len() - fit;
    let more = format!("{} {more} more", look.either("…", "..."));
    lines.push(Line::styled(more, look.faint()));
    lines
}

/// Marks a line of the chosen row, to the edge of the screen.
fn mark(line: &mut Line<'static>, width: usize) {
    let gap = width.saturating_sub(line.width());
    line.spans.push(Span::raw(" ".repeat(gap)));
    // Only the name: a reversed bar would read wrongly.
    if let Some(first) = line.spans.first_mut() {
        first.style = first.style.add_modifier(Modifier::REVERSED);
    }
}

fn help(look: Look) -> Vec<Line<'static>> {
    let mut lines = vec![Line::default()];
    lines.extend(KEYS.iter().map(|(key, what)| {
        Line::from(vec![
            Span::styled(format!("  {key:<16}"), look.heading()),
            Span::raw(*what),
        ])
    }));
    lines
}

fn footer(state: &State, look: Look, width: usize) -> Line<'static> {
    if state.typing {
        let filter = format!("/{}{}", state.filter, look.either("▏", "_"));
        return Line::styled(text::left(&filter, width, look), look.heading());
    }
    let mut keys = match width < WIDE {
        true => "[w]aterfall [r]equests [h]eat [g]pu [Enter] why [/]filter [space] freeze [?]"
            .to_owned(),
        false => format!("{ALL_KEYS} by {}", state.sort.noun()),
    };
    if !state.filter.is_empty() {
        keys = format!(
            "filter {:?}, [/] changes it  {keys}",
            text::clean(&state.filter)
        );
    }
    Line::styled(
        text::left(&keys, width, look),
        Style::new().add_modifier(Modifier::REVERSED),
    )
}
