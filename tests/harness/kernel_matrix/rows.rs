//! Formats the rows of the table of kernels, one for each attach mode, as cells of a Markdown line.

use std::{collections::BTreeSet, fmt};

use crate::{
    kernel_matrix::{accuracy::Accuracy, records::Compared},
    stats::Spread,
};

/// What was measured in one run.
pub(super) struct Judged {
    pub(super) accuracy: Accuracy,
    pub(super) compared: Compared,
}

impl Judged {
    /// Returns whether nothing is wrong.
    pub(super) fn is_well(&self) -> bool {
        self.faults().is_empty()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = self.accuracy.faults.clone();
        match self.compared.differences.len() {
            0 => {}
            differing => faults.push(format!("{differing} records differ")),
        }
        faults
    }
}

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

    /// An attach mode of which only instructions were counted.
    pub(super) fn counted(mode: &'static str) -> Self {
        Self {
            outcome: "instructions were counted".to_owned(),
            well: true,
            ..Self::empty(mode)
        }
    }

    /// An attach mode that was measured, in one or more runs. Errors are the largest of all runs.
    pub(super) fn judged(mode: &'static str, runs: &[Judged]) -> Self {
        let times = |text: String| match runs.len() {
            1 => text,
            times => format!("{times} × {text}"),
        };
        let each: BTreeSet<usize> = runs.iter().map(|run| run.compared.rows).collect();
        let rows: Vec<_> = each.iter().map(usize::to_string).collect();
        let differing: usize = runs.iter().map(|run| run.compared.differences.len()).sum();
        let failed: Vec<_> = runs.iter().filter(|run| !run.is_well()).collect();
        let faults: Vec<_> = failed.iter().flat_map(|run| run.faults()).collect();
        let vague = runs.iter().filter(|run| run.accuracy.vague).count();
        let mut outcome = match (failed.len(), runs.len()) {
            (0, 1) => "passed".to_owned(),
            (_, 1) => format!("**failed**: {}", faults.join("; ")),
            (0, runs) => format!("passed {runs} of {runs} times"),
            (failed, runs) => {
                format!("**failed** {failed} of {runs} times: {}", faults.join("; "))
            }
        };
        if failed.is_empty() && vague > 0 {
            outcome += "; the machine was too busy to judge the p99";
            if runs.len() > 1 {
                outcome += &format!(" {vague} times");
            }
        }
        let largest = |of: fn(&Accuracy) -> Option<&Spread>| {
            let spreads = || runs.iter().filter_map(|run| of(&run.accuracy));
            let p50 = spreads().map(|spread| spread.p50).max();
            let p99 = spreads().map(|spread| spread.p99).max();
            errors(p50.zip(p99))
        };
        let counted: f64 = runs.iter().map(|run| run.accuracy.counted).sum();
        Self {
            mode,
            cells: [
                runs.iter()
                    .map(|run| run.accuracy.requests)
                    .sum::<usize>()
                    .to_string(),
                counted.to_string(),
                largest(|accuracy| accuracy.handler.as_ref()),
                largest(|accuracy| accuracy.queue.as_ref()),
                format!("{}, {differing} differ", times(rows.join(" or "))),
            ],
            outcome,
            well: failed.is_empty(),
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
fn errors(spread_ns: Option<(u64, u64)>) -> String {
    spread_ns.map_or_else(
        || "unknown".to_owned(),
        |(p50_ns, p99_ns)| format!("{} / {} µs", p50_ns / 1_000, p99_ns / 1_000),
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome.replace('|', "/");
        write!(f, "{} | {} | {outcome}", self.mode, self.cells.join(" | "))
    }
}
