//! Draws how long requests took over the last minutes: a column for each window, a row for each range of durations.
//!
//! Does not depend on: the rest of the screen.

use std::collections::BTreeMap;

use ratatui::{
    style::Color,
    text::{Line, Span},
};

use crate::{
    api::history::{History, bound_ns},
    screen::{look::Look, place, state::State, text},
};

/// Width of the durations on the left.
const LABEL: usize = 8;
/// Letters for few to many requests.
const LETTERS: [&str; 4] = ["░", "▒", "▓", "█"];
const ASCII_LETTERS: [&str; 4] = [".", "+", "x", "#"];
const COLOURS: [Color; 4] = [Color::Blue, Color::Cyan, Color::Yellow, Color::Red];

/// Returns `height` lines at most.
pub(super) fn lines(state: &State, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let Some(history) = &state.history else {
        return vec![Line::styled("waiting for the history", look.faint())];
    };
    let whose = match history.served.as_slice() {
        [] => "all models".to_owned(),
        [served, ..] => {
            let labels = match history.labels.as_slice() {
                [one] => place::all(one),
                _ => Vec::new(),
            };
            let names: Vec<String> = std::iter::once(served.model.clone())
                .chain(labels)
                .collect();
            text::clean(&names.join(" "))
        }
    };
    let mut lines = vec![Line::from(vec![
        Span::styled("LATENCY  ", look.heading()),
        Span::raw(format!(
            "{whose}, a column each {} s, ",
            history.window_ms / 1000
        )),
        Span::styled("few ", look.faint()),
        Span::raw(legend(look)),
        Span::styled(" many requests", look.faint()),
    ])];
    let columns = width.saturating_sub(LABEL + 2);
    let newest = history.source.now_ns / 1_000_000 / history.window_ms.max(1);
    let oldest = (newest + 1).saturating_sub(columns as u64);
    let grid = Grid::new(history, oldest, height.saturating_sub(3).max(1));
    if grid.counts.is_empty() {
        lines.push(Line::styled(
            "no request with a known duration in this time",
            look.faint(),
        ));
        return lines;
    }
    for row in (grid.lowest..=grid.highest).rev() {
        let highest = u8::try_from((row + 1) * grid.buckets - 1).unwrap_or(u8::MAX);
        let label = text::right(&text::duration(bound_ns(highest)), LABEL, look);
        let mut spans = vec![
            Span::styled(label, look.faint()),
            Span::styled(look.either(" │", " |"), look.faint()),
        ];
        spans.extend((oldest..=newest).map(|window| {
            let count = grid.counts.get(&(window, row)).copied().unwrap_or(0);
            match heat(count, grid.most) {
                None => Span::raw(" "),
                Some(heat) => Span::styled(letter(heat, look), look.of(COLOURS[heat])),
            }
        }));
        lines.push(Line::from(spans));
    }
    let ago_s = (newest - oldest) * history.window_ms / 1000;
    let ago = format!("{} min {} s ago", ago_s / 60, ago_s % 60);
    let axis = text::left(&ago, columns.saturating_sub(3), look) + "now";
    lines.push(Line::styled(" ".repeat(LABEL + 2) + &axis, look.faint()));
    lines
}

/// Requests by window and row.
struct Grid {
    counts: BTreeMap<(u64, i64), u64>,
    most: u64,
    lowest: i64,
    highest: i64,
    /// Buckets in a row.
    buckets: i64,
}

impl Grid {
    /// Counts the windows from number `oldest` on, in at most `rows` rows.
    fn new(history: &History, oldest: u64, rows: usize) -> Self {
        let windows = history
            .windows
            .iter()
            .filter(|window| window.index >= oldest);
        let cells: Vec<(u64, i64, u64)> = windows
            .flat_map(|window| {
                let buckets = window.durations.iter();
                buckets.map(|&(bucket, count)| (window.index, i64::from(bucket), count))
            })
            .collect();
        let bounds = || cells.iter().map(|(_, bucket, _)| *bucket);
        let (first, last) = (bounds().min().unwrap_or(0), bounds().max().unwrap_or(0));
        let rows = rows as i64;
        let mut buckets = 1;
        while last.div_euclid(buckets) - first.div_euclid(buckets) >= rows {
            buckets += 1;
        }
        let mut counts = BTreeMap::new();
        for (window, bucket, count) in cells {
            *counts
                .entry((window, bucket.div_euclid(buckets)))
                .or_default() += count;
        }
        Self {
            most: counts.values().copied().max().unwrap_or(0),
            counts,
            lowest: first.div_euclid(buckets),
            highest: last.div_euclid(buckets),
            buckets,
        }
    }
}

/// Returns how many `count` is of `most`, from 0 to 3, on a logarithmic scale; `None` if it is none.
fn heat(count: u64, most: u64) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let share = (count as f64).ln_1p() / (most as f64).ln_1p();
    Some(((share * 4.0).ceil() as usize).clamp(1, 4) - 1)
}

fn letter(heat: usize, look: Look) -> &'static str {
    match look.utf8 {
        true => LETTERS[heat],
        false => ASCII_LETTERS[heat],
    }
}

fn legend(look: Look) -> String {
    (0..4).map(|heat| letter(heat, look)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Source, history::Window};

    fn state(windows: Vec<Window>) -> State {
        State {
            history: Some(History {
                source: Source {
                    now_ns: 102_000_000_000,
                    ..Source::default()
                },
                window_ms: 5000,
                windows,
                ..History::default()
            }),
            ..State::default()
        }
    }

    fn drawn(state: &State) -> Vec<String> {
        let look = Look {
            utf8: false,
            color: false,
        };
        let lines = lines(state, look, 20, 10);
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn windows_are_columns_and_durations_rows() {
        let window = |index, durations: &[(u8, u64)]| Window {
            index,
            durations: durations.to_vec(),
            ..Window::default()
        };
        let windows = vec![
            window(3, &[(56, 7)]),
            window(19, &[(56, 100), (60, 1)]),
            window(20, &[(56, 10)]),
        ];
        let lines = drawn(&state(windows));
        assert_eq!(lines[1], " 32.8 ms |        . ");
        assert_eq!(lines[5], " 16.4 ms |        #x");
        assert_eq!(lines.len(), 7);
        assert!(lines[6].ends_with("now"), "{lines:?}");
    }

    #[test]
    fn a_wide_range_of_durations_fits_the_height() {
        let durations = (0..120).map(|bucket| (bucket, 1)).collect();
        let lines = drawn(&state(vec![Window {
            index: 20,
            durations,
            ..Window::default()
        }]));
        assert!(lines.len() <= 10, "{lines:?}");
        let filled = lines.iter().filter(|line| line.ends_with('#'));
        assert!(filled.count() >= 6, "{lines:?}");
        assert_eq!(drawn(&state(Vec::new())).len(), 2);
    }
}
