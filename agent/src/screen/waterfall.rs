//! Draws a row for each model: its figures, where its requests waited, and why they are slow.
//!
//! Does not depend on: the rest of the screen.

use ratatui::text::{Line, Span};

use crate::{
    api::live::Model,
    screen::{
        bar,
        columns::{self, Column},
        look::Look,
        place,
        state::State,
        text,
    },
    verdict::component::Component,
};

/// Width of the screen from which the verdict is beside the bar instead of below it.
const WIDE: usize = 120;
/// Longest bar beside a verdict.
const MAX_BAR: usize = 48;
/// Width of the screen from which a column says where a server runs.
const WITH_PLACE: usize = 150;

#[derive(Debug, Clone, Copy)]
enum What {
    Model,
    Server,
    Place,
    Rate,
    Errors,
    P50,
    P99,
    InFlight,
    Tokens,
}

const COLUMNS: [Column<What>; 9] = [
    Column::new(What::Model, "MODEL", 16, false, 0),
    Column::new(What::Server, "SERVER", 10, false, 96),
    Column::new(What::Place, "PLACE", 16, false, WITH_PLACE),
    Column::new(What::Rate, "REQ/S", 6, true, 0),
    Column::new(What::Errors, "ERR %", 5, true, 0),
    Column::new(What::P50, "P50", 7, true, 0),
    Column::new(What::P99, "P99", 7, true, 0),
    Column::new(What::InFlight, "OPEN", 4, true, 104),
    Column::new(What::Tokens, "TOK/S", 6, true, 136),
];

/// A row of the screen, and the model that it belongs to.
pub(super) struct Drawn {
    /// The lines.
    pub(super) lines: Vec<Line<'static>>,
    /// Whether it is the chosen one.
    pub(super) is_chosen: bool,
}

/// Returns the line of headings.
pub(super) fn headings(look: Look, width: usize) -> Line<'static> {
    let (shown, rest) = columns::shown(&COLUMNS, width);
    let mut spans = columns::headings(&shown, look);
    let bar = bar_width(width, rest);
    let heading =
        |heading: &str, width| Span::styled(text::left(heading, width, look), look.heading());
    spans.push(heading("WHERE A REQUEST WAITED", bar));
    if width >= WIDE {
        spans.push(Span::raw(" "));
        spans.push(heading("SLOW BECAUSE", rest - bar - 1));
    }
    Line::from(spans)
}

/// Returns a row for each model.
pub(super) fn rows(state: &State, look: Look, width: usize) -> Vec<Drawn> {
    let chosen = state.chosen_model();
    let models = state.models();
    let all = state.live.as_ref().map_or(&[][..], |live| &live.models);
    let place_of = |model: &Model| place::apart(&model.served, &model.labels, all);
    let rows = models.iter().map(|model| {
        let is_chosen = chosen.is_some_and(|chosen| std::ptr::eq(chosen, *model));
        Drawn {
            lines: row(model, place_of(model), look, width),
            is_chosen,
        }
    });
    rows.collect()
}

fn row(model: &Model, apart: Option<String>, look: Look, width: usize) -> Vec<Line<'static>> {
    let (shown, rest) = columns::shown(&COLUMNS, width);
    let mut spans: Vec<Span> = shown
        .iter()
        .map(|column| {
            let style = match column.what {
                What::Errors if model.figures.server_errors > 0 => look.bad(),
                _ => ratatui::style::Style::new(),
            };
            Span::styled(
                columns::cell(column, &value(column.what, model, apart.as_deref()), look),
                style,
            )
        })
        .collect();
    let width_of_bar = bar_width(width, rest);
    let stages = &model.now.sums_ns;
    match model.now.complete {
        0 => spans.push(Span::raw(" ".repeat(width_of_bar))),
        _ => spans.extend(bar::stacked(stages, stages.total_ns(), width_of_bar, look)),
    }
    if width >= WIDE {
        spans.push(Span::raw(" "));
        let apart = apart.filter(|_| width < WITH_PLACE);
        spans.push(headline(model, apart, rest - width_of_bar - 1, look));
        return vec![Line::from(spans)];
    }
    vec![
        Line::from(spans),
        Line::from(vec![
            Span::raw("  "),
            headline(model, apart, width.saturating_sub(2), look),
        ]),
    ]
}

fn bar_width(width: usize, rest: usize) -> usize {
    match width >= WIDE {
        true => (rest * 45 / 100).min(MAX_BAR),
        false => rest,
    }
}

/// Returns the verdict, after what tells the replica apart.
fn headline(model: &Model, apart: Option<String>, width: usize, look: Look) -> Span<'static> {
    let verdict = &model.verdict;
    let style = match verdict.cause.as_str() {
        _ if !verdict.fails.is_empty() => look.bad(),
        "idle" | "fine" => look.faint(),
        _ => look.heading(),
    };
    let place = apart.map(|apart| apart + ": ").unwrap_or_default();
    let headline = place + &verdict.headline;
    Span::styled(text::cut(&headline, width, look), style)
}

fn value(what: What, model: &Model, apart: Option<&str>) -> String {
    let figures = &model.figures;
    match what {
        What::Model => model.served.model.clone(),
        What::Server => model.served.server.clone(),
        What::Place => apart.map_or_else(|| place::short(&model.labels), str::to_owned),
        What::Rate => text::rate(figures.per_second),
        What::Errors => text::percent_of(
            figures.client_errors + figures.server_errors,
            figures.requests,
        ),
        What::P50 => text::known(figures.p50_ns),
        What::P99 => text::known(figures.p99_ns),
        What::InFlight => figures
            .in_flight
            .map_or_else(|| text::UNKNOWN.into(), |in_flight| in_flight.to_string()),
        What::Tokens => figures
            .tokens
            .as_ref()
            .map(|tokens| text::rate(tokens.output_per_second))
            .unwrap_or_default(),
    }
}

/// Returns what the letters of bars mean: only the parts that some model has.
pub(super) fn legend(state: &State, look: Look, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Vec<Span>> = vec![Vec::new()];
    let mut column = 0;
    for component in Component::ALL {
        let has_it = |model: &&Model| {
            let mut parts = bar::parts(&model.now.sums_ns).into_iter();
            parts.any(|(part, ns)| part == component && ns > 0)
        };
        if !state.models().iter().any(has_it) {
            continue;
        }
        let name = format!(" {}  ", component.name().replace('_', " "));
        if column + name.len() + 2 > width && column > 0 {
            lines.push(Vec::new());
            column = 0;
        }
        column += name.len() + 2;
        let line = lines.last_mut().expect("there is a first line");
        let letter = look.letter(component).repeat(2);
        line.push(Span::styled(letter, look.part(component)));
        line.push(Span::styled(name, look.faint()));
    }
    lines.into_iter().map(Line::from).collect()
}
