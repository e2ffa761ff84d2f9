//! Runs `inferprobe doctor`: examines the host and prints the report.
//!
//! `crate::doctor` makes the report.
//! Does not depend on: what the report contains.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use crate::doctor::{Options, examine, report::Outcome};

/// Prints the report; returns the outcome, which decides the exit code.
pub fn run(options: &Options) -> Result<Outcome> {
    let (text, outcome) = examine(options).context("write the report as JSON")?;
    write!(io::stdout(), "{text}").context("print the report")?;
    Ok(outcome)
}
