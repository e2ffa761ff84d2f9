//! Says how things look: the letters of bars and frames, and their colours.
//!
//! Without colour, each part of a duration still has a letter of its own. Without UTF-8, all letters are ASCII.
//! Does not depend on: what is drawn.

use ratatui::style::{Color, Modifier, Style};

use crate::verdict::component::Component;

/// Letters and colours of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether the terminal shows UTF-8.
    pub utf8: bool,
    /// Whether it shows colours.
    pub color: bool,
}

impl Look {
    /// Returns the look for a locale, the first of `LC_ALL`, `LC_CTYPE` and `LANG` that is set.
    pub fn of_locale(locale: &str, color: bool) -> Self {
        let locale = locale.to_ascii_lowercase();
        Self {
            utf8: locale.contains("utf-8") || locale.contains("utf8"),
            color,
        }
    }

    /// Returns the letter that bars draw a part with.
    pub const fn letter(self, component: Component) -> &'static str {
        match (component, self.utf8) {
            (Component::Accept, true) => "┄",
            (Component::Queue, true) => "▒",
            (Component::Receive, true) => "░",
            (Component::Starved, true) => "▚",
            (Component::InnerQueue, true) => "╳",
            (Component::Worker, true) => "▓",
            (Component::Rest, true) => "█",
            (Component::Stream, true) => "▄",
            (Component::Accept, false) => "a",
            (Component::Queue, false) => "q",
            (Component::Receive, false) => "r",
            (Component::Starved, false) => "c",
            (Component::InnerQueue, false) => "i",
            (Component::Worker, false) => "w",
            (Component::Rest, false) => "h",
            (Component::Stream, false) => "s",
        }
    }

    /// Returns the style of a part.
    pub fn part(self, component: Component) -> Style {
        self.of(match component {
            Component::Accept => Color::Magenta,
            Component::Queue => Color::Yellow,
            Component::Receive => Color::Cyan,
            Component::Starved => Color::Red,
            Component::InnerQueue => Color::LightYellow,
            Component::Worker => Color::Blue,
            Component::Rest => Color::Green,
            Component::Stream => Color::LightBlue,
        })
    }

    /// Returns the style of a status code.
    pub fn status(self, status: u16) -> Style {
        match status {
            500.. => self.bad(),
            400..=499 => self.of(Color::Yellow),
            _ => Style::new(),
        }
    }

    /// Returns the style of what is wrong.
    pub fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Returns the style of what must not be missed.
    pub fn loud(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
    }

    /// Returns the style of what explains.
    pub fn faint(self) -> Style {
        match self.color {
            true => Style::new().add_modifier(Modifier::DIM),
            false => Style::new(),
        }
    }

    /// Returns the style of headings.
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Returns a style with a colour, if there are colours.
    pub fn of(self, color: Color) -> Style {
        match self.color {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    /// Returns one of two texts.
    pub const fn either(self, utf8: &'static str, ascii: &'static str) -> &'static str {
        if self.utf8 { utf8 } else { ascii }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_part_has_a_letter_and_a_colour_of_its_own() {
        for utf8 in [true, false] {
            let look = Look { utf8, color: true };
            let letters: BTreeSet<_> = Component::ALL.map(|part| look.letter(part)).into();
            assert_eq!(letters.len(), Component::ALL.len());
            let colours = Component::ALL.map(|part| look.part(part).fg);
            assert!(
                colours
                    .iter()
                    .all(|colour| { colours.iter().filter(|other| *other == colour).count() == 1 })
            );
        }
    }

    #[test]
    fn locale_decides_on_the_letters() {
        for (locale, utf8) in [
            ("en_US.UTF-8", true),
            ("C.utf8", true),
            ("C", false),
            ("", false),
        ] {
            assert_eq!(Look::of_locale(locale, true).utf8, utf8, "{locale}");
        }
    }
}
