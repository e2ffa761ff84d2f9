//! Defines a finding: something that will be missing from the metrics, why, and the remedy.
//!
//! Each rule of the diagnosis makes findings; the report lists them.
//! Does not depend on: the facts.

use serde::Serialize;

use crate::bpf::attach_mode::AttachMode;

/// Something that will be missing from the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much is missing.
    pub severity: Severity,
    /// What is missing, in terms of the metrics.
    pub what: String,
    /// The cause.
    pub why: String,
    /// How to fix it.
    pub remedy: String,
}

/// How much is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Every request.
    Everything,
    /// Some metrics, or those of some servers.
    Some,
    /// Only what an option would add.
    Option,
}

/// What is missing if the agent does not find the sockets that were listening before it started.
pub(super) const OLDER_LISTENERS: &str = "for sockets that were listening before the agent started: queue time and duration \
                                          of the first request on each connection, and HTTP/2 connections";

/// Returns the remedy for what an attach mode does not report: to leave out the option that forces it, or else `otherwise`.
pub(super) fn remedy(forced: Option<AttachMode>, otherwise: impl FnOnce() -> String) -> String {
    match forced {
        Some(_) => "leave --attach-mode out".into(),
        None => otherwise(),
    }
}
