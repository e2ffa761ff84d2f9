//! Describes what to watch: a port or a command line, and the labels of what it serves.
//!
//! The configuration makes watches, the registry applies them. Does not depend on: any other module.

use regex_lite::Regex;

/// One port or command line to watch, and the labels of what it serves.
#[derive(Debug, Clone)]
pub struct Watch {
    /// How the server is found.
    pub target: Target,
    /// Label `model` if the request names none; `None`: as the catalogue has it.
    pub model: Option<String>,
    /// Label `version` if the request names none; `None`: `default`.
    pub version: Option<String>,
    /// Label `server`; `None`: the catalogue entry's name, else the process's.
    pub server: Option<String>,
}

/// How a watched server is found.
#[derive(Debug, Clone)]
pub enum Target {
    /// The process that listens on this TCP port.
    Port(u16),
    /// Processes whose command line (arguments joined by a space) matches.
    Exe(Regex),
}

impl Watch {
    /// Makes a watch that sets no labels.
    pub fn unnamed(target: Target) -> Self {
        Self {
            target,
            model: None,
            version: None,
            server: None,
        }
    }
}
