//! Joins the facts with the findings that follow from them, and concludes the outcome.
//!
//! This is the JSON output; `render` prints the same as a table.
//! Does not depend on: how facts are collected.

use std::fmt;

use serde::Serialize;

use crate::doctor::{
    diagnosis,
    facts::Facts,
    finding::{Finding, Severity},
};

/// Facts, findings and outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the agent.
    pub version: &'static str,
    /// The facts.
    #[serde(flatten)]
    pub facts: Facts,
    /// What will be missing from the metrics, the most severe first.
    pub missing: Vec<Finding>,
    /// The outcome.
    pub outcome: Outcome,
}

/// How much the agent can measure on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything.
    All,
    /// Not everything.
    Some,
    /// No request.
    Nothing,
}

impl Outcome {
    fn of(findings: &[Finding]) -> Self {
        match findings.iter().map(|finding| finding.severity).min() {
            Some(Severity::Everything) => Self::Nothing,
            Some(Severity::Some) => Self::Some,
            Some(Severity::Option) | None => Self::All,
        }
    }

    /// Exit code of the command.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::All => 0,
            Self::Some => 1,
            Self::Nothing => 2,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All is measured (exit code 0).",
            Self::Some => "Some metrics will be missing (exit code 1).",
            Self::Nothing => "No request can be measured (exit code 2).",
        })
    }
}

impl Report {
    /// Draws the conclusions from `facts`.
    pub fn conclude(facts: Facts) -> Self {
        let missing = diagnosis::findings(&facts);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            outcome: Outcome::of(&missing),
            missing,
            facts,
        }
    }
}
