//! Draws the content of a terminal, with its colours, as an SVG.
//!
//! Does not depend on: where the content comes from.

use std::fmt::Write as _;

/// Size of a cell, px.
const CELL: (f64, f64) = (8.4, 18.0);
/// Space around, px.
const MARGIN: f64 = 10.0;
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d7dae0";
/// The colours 30 to 37, and 90 to 97.
const COLOURS: [&str; 16] = [
    "#3b4048", "#f07178", "#8fd17c", "#f2c46d", "#6aa9f7", "#c792ea", "#62cfd6", "#d7dae0",
    "#6b7280", "#ff8b92", "#b5e8a5", "#ffe08a", "#93c5fd", "#ddb6f2", "#8be9ef", "#ffffff",
];

/// How letters are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    colour: Option<usize>,
    bold: bool,
    dim: bool,
    reversed: bool,
}

/// Returns the picture of `text`, lines with escape sequences for colours, on a terminal of this size.
pub(super) fn of_terminal(text: &str, (columns, rows): (usize, usize)) -> String {
    let width = columns as f64 * CELL.0 + 2.0 * MARGIN;
    let height = rows as f64 * CELL.1 + 2.0 * MARGIN;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, \
         'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\" style=\"white-space: pre\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>"
    );
    let mut style = Style::default();
    for (row, line) in text.lines().take(rows).enumerate() {
        let mut column = 0;
        for (run_style, run) in runs(line, &mut style) {
            draw(&mut svg, (column, row), run_style, &run);
            column += run.chars().count();
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Splits a line into runs of one style; `style` is that of its begin, and afterwards that of its end.
fn runs(line: &str, style: &mut Style) -> Vec<(Style, String)> {
    let mut runs: Vec<(Style, String)> = Vec::new();
    let mut rest = line;
    while let Some(begin) = rest.find("\u{1b}[") {
        if begin > 0 {
            runs.push((*style, rest[..begin].to_owned()));
        }
        let sequence = &rest[begin + 2..];
        let end = sequence
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(sequence.len());
        if sequence[end..].starts_with('m') {
            apply(&sequence[..end], style);
        }
        rest = sequence.get(end + 1..).unwrap_or_default();
    }
    if !rest.is_empty() {
        runs.push((*style, rest.to_owned()));
    }
    runs
}

/// Applies the numbers of a sequence that sets colours.
fn apply(sequence: &str, style: &mut Style) {
    let numbers = sequence.split([';', ':']);
    let mut numbers = numbers.map(|number| number.parse::<usize>().unwrap_or(0));
    while let Some(number) = numbers.next() {
        match number {
            0 => *style = Style::default(),
            1 => style.bold = true,
            2 => style.dim = true,
            7 => style.reversed = true,
            22 => (style.bold, style.dim) = (false, false),
            27 => style.reversed = false,
            30..=37 => style.colour = Some(number - 30),
            90..=97 => style.colour = Some(number - 90 + 8),
            // `38;5;N` is colour N of a palette that begins with these sixteen.
            38 if numbers.next() == Some(5) => {
                style.colour = numbers.next().filter(|colour| *colour < COLOURS.len());
            }
            39 => style.colour = None,
            _ => {}
        }
    }
}

fn draw(svg: &mut String, (column, row): (usize, usize), style: Style, run: &str) {
    let columns = run.chars().count();
    let (x, y) = (
        MARGIN + column as f64 * CELL.0,
        MARGIN + row as f64 * CELL.1,
    );
    let width = columns as f64 * CELL.0;
    let colour = style.colour.map_or(FOREGROUND, |colour| COLOURS[colour]);
    let (ink, paper) = match style.reversed {
        true => (BACKGROUND, Some(colour)),
        false => (colour, None),
    };
    if let Some(paper) = paper {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{paper}\"/>",
            CELL.1
        );
    }
    if run.trim().is_empty() {
        return;
    }
    let weight = if style.bold {
        " font-weight=\"bold\""
    } else {
        ""
    };
    let opacity = if style.dim { " opacity=\"0.65\"" } else { "" };
    let text = run
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\" \
         fill=\"{ink}\"{weight}{opacity}>{text}</text>",
        y + 0.75 * CELL.1
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_its_place_colour_and_weight() {
        let svg = of_terminal(
            "ab\u{1b}[1;33m<c\u{1b}[0m\n\u{1b}[7mx\u{1b}[39;49m",
            (10, 2),
        );
        assert!(svg.contains(">ab</text>"), "{svg}");
        assert!(
            svg.contains("x=\"26.8\" y=\"23.5\"") && svg.contains("font-weight=\"bold\">&lt;c<"),
            "{svg}"
        );
        assert!(svg.contains("fill=\"#f2c46d\""), "{svg}");
        assert!(
            svg.contains("<rect x=\"10.0\" y=\"28.0\" width=\"8.4\""),
            "{svg}"
        );
        assert!(svg.contains("fill=\"#16181d\">x<"), "{svg}");
    }

    #[test]
    fn a_style_goes_on_in_the_next_line() {
        let mut style = Style::default();
        let first = runs("a\u{1b}[34mb", &mut style);
        assert_eq!(first.len(), 2);
        let second = runs("c\u{1b}[38;5;2;1md\u{1b}[38;5;200me", &mut style);
        let colours: Vec<_> = second.iter().map(|(style, _)| style.colour).collect();
        assert_eq!(colours, [Some(4), Some(2), None]);
        assert!(second[1].0.bold && !second[1].0.dim);
    }
}
