//! Prints lines on standard output, with their colours if it shows any.
//!
//! Does not depend on: what they say.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use anyhow::{Context as _, Result};
use ratatui::{
    backend::IntoCrossterm as _,
    crossterm::{style::ContentStyle, terminal},
    text::Line,
};

use crate::screen::look::Look;

/// Width of the lines if standard output is no terminal.
const WIDTH: u16 = 120;
/// Narrowest screen that lines are made for.
const MIN_WIDTH: usize = 40;

/// Returns what the terminal can show, as the environment says; `no_color`: the user wants no colours.
pub(super) fn look(no_color: bool) -> Look {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| set(name));
    let is_dumb = set("TERM").is_none_or(|term| term == "dumb");
    let color = !no_color && set("NO_COLOR").is_none() && !is_dumb;
    Look::of_locale(
        &locale.unwrap_or_default(),
        color && io::stdout().is_terminal(),
    )
}

/// Returns the width of the terminal, of `COLUMNS` if there is none.
pub(super) fn width() -> usize {
    let columns = || env::var("COLUMNS").ok()?.parse().ok();
    let terminal = || match io::stdout().is_terminal() {
        true => terminal::size().ok().map(|(width, _)| width),
        false => None,
    };
    let width = terminal().or_else(columns).unwrap_or(WIDTH);
    usize::from(width).max(MIN_WIDTH)
}

/// Prints lines.
pub(super) fn lines(lines: &[Line], look: Look) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        let mut of_line = String::new();
        for span in line {
            let style = line.style.patch(span.style);
            match look.color && style != ratatui::style::Style::new() {
                true => {
                    let style: ContentStyle = style.into_crossterm();
                    of_line.push_str(&style.apply(span.content.as_ref()).to_string());
                }
                false => of_line.push_str(&span.content),
            }
        }
        text.push_str(of_line.trim_end());
        text.push('\n');
    }
    self::text(&text)
}

/// Prints a text. A reader that has ended, such as `head`, is no error.
pub(super) fn text(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let printed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match printed {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("print"),
    }
}
