//! Starts the program under test: directly or by another program, and with or without tracefs.
//!
//! Does not depend on: what the agent is started for.

use std::{
    path::PathBuf,
    process::{Child, Command},
};

use crate::{
    process::binary,
    tracefs::{self, Tracefs},
};

/// A command that becomes the agent once its arguments are added, and the tracefs that it finds.
pub struct Launcher {
    command: Command,
    /// `None`: what is mounted on this machine.
    tracefs: Option<Tracefs>,
}

impl Launcher {
    /// Returns the agent itself, started as the user of the test.
    pub fn agent() -> Self {
        Command::new(agent_binary()).into()
    }

    /// Has the agent find tracefs there, and nowhere else. Needs root.
    pub fn with_tracefs(self, tracefs: Tracefs) -> Self {
        Self {
            tracefs: Some(tracefs),
            ..self
        }
    }

    /// As [`Self::with_tracefs`], unless that was chosen already.
    pub(super) fn or_tracefs(self, tracefs: Tracefs) -> Self {
        Self {
            tracefs: self.tracefs.or(Some(tracefs)),
            ..self
        }
    }

    /// Returns the command, to which arguments may be added.
    pub(super) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it.
    pub(super) fn spawn(mut self) -> Child {
        let child = match self.tracefs {
            None => self.command.spawn(),
            Some(tracefs) => tracefs::spawn(&mut self.command, tracefs),
        };
        child.expect("the agent can be started")
    }
}

impl From<Command> for Launcher {
    fn from(command: Command) -> Self {
        Self {
            command,
            tracefs: None,
        }
    }
}

/// Returns the path of the program under test.
pub fn agent_binary() -> PathBuf {
    binary("inferprobe", Some("INFERPROBE_BIN"))
}
