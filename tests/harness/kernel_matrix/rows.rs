//! Formats the rows of the table of kernels, one for each attach mode, as cells of a Markdown line.

use std::fmt;

use crate::{
    kernel_matrix::{accuracy::Accuracy, records::Compared},
    stats::Spread,
};

/// Outcome of one attach mode.
pub(super) struct Row {
    mode: &'static str,
    cells: [String; 5],
    outcome: String,
    well: bool,
}

impl Row {
    /// An attach mode that the kernel does not have.
    pub(super) fn absent(mode: &'static str, reason: &str) -> Self {
        Self {
            outcome: format!("not on this kernel: {reason}"),
            well: true,
            ..Self::empty(mode)
        }
    }

    /// An attach mode that failed before it could be measured.
    pub(super) fn failed(mode: &'static str, reason: &str) -> Self {
        Self {
            outcome: format!("**failed**: {reason}"),
            ..Self::empty(mode)
        }
    }

    /// An attach mode that was measured.
    pub(super) fn judged(mode: &'static str, accuracy: &Accuracy, compared: &Compared) -> Self {
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
            mode,
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

    /// An attach mode that was measured under load.
    pub(super) fn loaded(
        mode: &'static str,
        requests: usize,
        counted: f64,
        faults: &[String],
    ) -> Self {
        let [_, _, handler, queue, records] = [const { String::new() }; 5].map(|_| "–".to_owned());
        Self {
            mode,
            cells: [
                requests.to_string(),
                counted.to_string(),
                handler,
                queue,
                records,
            ],
            outcome: match faults {
                [] => "passed under load".to_owned(),
                faults => format!("**failed**: {}", faults.join("; ")),
            },
            well: faults.is_empty(),
        }
    }

    /// Returns whether the attach mode passed.
    pub(super) fn is_well(&self) -> bool {
        self.well
    }

    fn empty(mode: &'static str) -> Self {
        Self {
            mode,
            cells: [const { String::new() }; 5].map(|_| "–".to_owned()),
            outcome: String::new(),
            well: false,
        }
    }
}

/// Returns median and p99 of errors, in microseconds.
fn errors(spread_ns: Option<&Spread>) -> String {
    spread_ns.map_or_else(
        || "unknown".to_owned(),
        |spread| format!("{} / {} µs", spread.p50 / 1_000, spread.p99 / 1_000),
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome.replace('|', "/");
        write!(f, "{} | {} | {outcome}", self.mode, self.cells.join(" | "))
    }
}
