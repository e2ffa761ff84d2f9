//! Describes one thing that will be missing from the metrics: how much, why, and what brings it back.
//!
//! Every rule of the diagnosis makes these. Does not depend on: the facts.

use serde::Serialize;

use crate::bpf::attach_mode::AttachMode;

/// Something that will be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it is.
    pub severity: Severity,
    /// What it is, in terms of the metrics.
    pub what: String,
    /// What is in the way.
    pub why: String,
    /// What would bring it back.
    pub remedy: String,
}

/// How much is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Every request.
    Everything,
    /// Some figures, or those of some servers.
    Some,
    /// Nothing but what an option would add.
    Option,
}

/// What is lost where listeners that were there before the agent are not found.
pub(super) const OLDER_LISTENERS: &str = "queue and duration of the first request on each connection of a listener that \
                                          is older than the agent, and HTTP/2 connections of such a listener";

/// What brings back what a rung loses: to leave the option out that holds the hooks to it, or else what `otherwise` says.
pub(super) fn remedy(rung: Option<AttachMode>, otherwise: impl FnOnce() -> String) -> String {
    match rung {
        Some(_) => "leave --rung out".into(),
        None => otherwise(),
    }
}
