//! Chooses the columns of a table by the width of the screen.
//!
//! Does not depend on: what is in a column.

use ratatui::text::{Line, Span};

use crate::screen::{look::Look, text};

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column<T> {
    /// What it shows.
    pub(super) what: T,
    /// Its heading.
    pub(super) heading: &'static str,
    /// Its width.
    pub(super) width: usize,
    /// Whether its values are numbers, which end below each other.
    pub(super) is_number: bool,
    /// Width of the screen from which it is shown.
    pub(super) from: usize,
}

impl<T> Column<T> {
    /// Describes a column, in the order of its fields.
    pub(super) const fn new(
        what: T,
        heading: &'static str,
        width: usize,
        is_number: bool,
        from: usize,
    ) -> Self
    where
        T: Copy,
    {
        Self {
            what,
            heading,
            width,
            is_number,
            from,
        }
    }
}

/// Returns the columns of `all` that a screen of `width` columns shows, and the width that is left.
pub(super) fn shown<T: Copy>(all: &[Column<T>], width: usize) -> (Vec<Column<T>>, usize) {
    let shown: Vec<Column<T>> = all
        .iter()
        .copied()
        .filter(|column| width >= column.from)
        .collect();
    let used: usize = shown.iter().map(|column| column.width + 1).sum();
    (shown, width.saturating_sub(used))
}

/// Returns the headings.
pub(super) fn headings<T>(columns: &[Column<T>], look: Look) -> Vec<Span<'static>> {
    let headings = columns
        .iter()
        .map(|column| Span::styled(cell(column, column.heading, look), look.heading()));
    headings.collect()
}

/// Returns a value of a column, with the space after it.
pub(super) fn cell<T>(column: &Column<T>, value: &str, look: Look) -> String {
    let value = match column.is_number {
        true => text::right(value, column.width, look),
        false => text::left(value, column.width, look),
    };
    value + " "
}

/// Cuts what is beyond `width` columns.
pub(super) fn clip(line: Line<'static>, width: usize, look: Look) -> Line<'static> {
    if line.width() <= width {
        return line;
    }
    let mut left = width;
    let mut spans = Vec::new();
    for span in line.spans {
        let columns = span.width();
        if columns > left {
            spans.push(Span::styled(
                text::cut(&span.content, left, look),
                span.style,
            ));
            break;
        }
        left -= columns;
        spans.push(span);
    }
    Line { spans, ..line }
}

/// Says why there is nothing to show, in as many lines as that needs.
pub(super) fn note(sentence: &str, width: usize, look: Look) -> Vec<Line<'static>> {
    let lines = wrap(sentence, width, look).into_iter();
    lines.map(|line| Line::styled(line, look.faint())).collect()
}

/// Breaks a text into lines of at most `width` columns, between words.
pub(super) fn wrap(sentence: &str, width: usize, look: Look) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in sentence.split_whitespace() {
        let word = text::cut(word, width, look);
        let last = lines.last_mut().expect("there is a first line");
        let columns = |text: &str| Line::raw(text.to_owned()).width();
        if last.is_empty() {
            last.push_str(&word);
        } else if columns(last) + 1 + columns(&word) <= width {
            last.push(' ');
            last.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_between_words() {
        let look = Look {
            utf8: true,
            color: false,
        };
        assert_eq!(wrap("one two three", 7, look), ["one two", "three"]);
        assert_eq!(wrap("extraordinary x", 6, look), ["extra…", "x"]);
        assert_eq!(wrap("", 6, look), [""]);
    }
}
