//! Checks the options that `top` and `view` share.
//!
//! Does not depend on: where news come from.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use crate::{
    cli::ScreenArgs,
    commands::print,
    screen::{look::Look, state::State},
};

/// What is shown, and how.
#[derive(Debug)]
pub struct Screen {
    args: ScreenArgs,
    /// Whether there is a terminal to draw on and to read keys from.
    is_terminal: bool,
    /// What it can show.
    pub(crate) look: Look,
}

impl Screen {
    /// Checks the command line, and looks at the terminal.
    pub fn check(args: &ScreenArgs) -> Self {
        let is_dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self {
            args: args.clone(),
            is_terminal: !is_dumb && io::stdout().is_terminal() && io::stdin().is_terminal(),
            look: print::look(args.no_color),
        }
    }

    /// Returns whether to print once instead of drawing on the terminal.
    pub(crate) fn is_once(&self) -> bool {
        self.args.once || self.args.json || !self.is_terminal
    }

    /// Returns whether to print JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.args.json
    }

    /// Returns whether the command line asks to print once.
    pub(crate) fn asks_for_once(&self) -> bool {
        self.args.once || self.args.json
    }

    /// Returns the state that a screen begins with.
    pub(crate) fn state(&self) -> State {
        State {
            view: self.args.view,
            sort: self.args.sort,
            filter: self.args.filter.clone().unwrap_or_default(),
            ..State::default()
        }
    }
}
