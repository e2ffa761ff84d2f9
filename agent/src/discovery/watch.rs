//! Describes what to watch: a port or a command line, and the names to give to what it serves.
//!
//! The configuration makes watches, the registry applies them. Does not depend on: any other module.

use regex::Regex;

/// One thing to watch, and the names to give to what it serves.
#[derive(Debug, Clone)]
pub struct Watch {
    /// How it is found.
    pub target: Target,
    /// Model name where the path does not say.
    pub model: Option<String>,
    /// Model version where the path does not say.
    pub version: Option<String>,
    /// Server label instead of the process's name.
    pub server: Option<String>,
}

/// How a watched server is found.
#[derive(Debug, Clone)]
pub enum Target {
    /// Whoever listens on this TCP port.
    Port(u16),
    /// Processes whose command line (arguments joined by a space) matches.
    Exe(Regex),
}

impl Watch {
    /// Watches `target` under the names that it has by itself.
    pub fn unnamed(target: Target) -> Self {
        Self {
            target,
            model: None,
            version: None,
            server: None,
        }
    }
}
