//! Joins facts with the findings that follow from them, and says what it comes to.
//!
//! This is the JSON output; `table` prints the same for a person. Does not depend on: how facts are gathered.

use std::fmt;

use serde::Serialize;

use crate::doctor::{
    diagnosis,
    facts::Facts,
    finding::{Finding, Severity},
};

/// Facts and what follows from them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the agent.
    pub version: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub facts: Facts,
    /// What will be missing from the metrics, the heaviest first.
    pub missing: Vec<Finding>,
    /// What it comes to.
    pub outcome: Outcome,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All is measured.
    All,
    /// Some is lost.
    Some,
    /// No request is measured.
    Nothing,
}

impl Outcome {
    fn of(losses: &[Finding]) -> Self {
        match losses.iter().map(|loss| loss.severity).min() {
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
            Self::Some => "Some is lost (exit code 1).",
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
