//! Rows of the table of kernels: one for each rung, as the cells of a line of Markdown.

use std::fmt;

use crate::{
    kernel_matrix::{accuracy::Accuracy, records::Compared},
    stats::Spread,
};

/// What came of one rung.
pub(super) struct Row {
    rung: &'static str,
    cells: [String; 5],
    outcome: String,
    well: bool,
}

impl Row {
    /// A rung that the kernel has not got.
    pub(super) fn absent(rung: &'static str, reason: &str) -> Self {
        Self {
            outcome: format!("not on this kernel: {reason}"),
            well: true,
            ..Self::empty(rung)
        }
    }

    /// A rung that did not get as far as figures.
    pub(super) fn failed(rung: &'static str, reason: &str) -> Self {
        Self {
            outcome: format!("**failed**: {reason}"),
            ..Self::empty(rung)
        }
    }

    /// A rung that was tried.
    pub(super) fn judged(rung: &'static str, accuracy: &Accuracy, compared: &Compared) -> Self {
        let differing = compared.differences.len();
        let mut faults = accuracy.faults.clone();
        if differing > 0 {
            faults.push(format!("{differing} records differ"));
        }
        let outcome = if !faults.is_empty() {
            format!("**failed**: {}", faults.join("; "))
        } else if accuracy.vague {
            "passed; the machine was too busy to judge the p99".to_owned()
        } else {
            "passed".to_owned()
        };
        Self {
            rung,
            cells: [
                accuracy.requests.to_string(),
                accuracy.counted.to_string(),
                errors(accuracy.handler.as_ref()),
                errors(accuracy.queue.as_ref()),
                format!("{}, {differing} differ", compared.rows),
            ],
            outcome,
            well: faults.is_empty(),
        }
    }

    /// Whether it is as it must be.
    pub(super) fn is_well(&self) -> bool {
        self.well
    }

    fn empty(rung: &'static str) -> Self {
        Self {
            rung,
            cells: [const { String::new() }; 5].map(|_| "–".to_owned()),
            outcome: String::new(),
            well: false,
        }
    }
}

/// Median and tail of errors, in microseconds.
fn errors(spread_ns: Option<&Spread>) -> String {
    spread_ns.map_or_else(
        || "unknown".to_owned(),
        |spread| format!("{} / {} µs", spread.p50 / 1_000, spread.p99 / 1_000),
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome.replace('|', "/");
        write!(f, "{} | {} | {outcome}", self.rung, self.cells.join(" | "))
    }
}
