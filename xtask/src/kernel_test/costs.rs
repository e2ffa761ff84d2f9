//! Instructions that the agent adds to a request: what the guests counted, what is expected, and the table of both.
//!
//! Expected costs are in a golden file; `UPDATE_GOLDEN=1` writes what was counted into it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::kernel_test::cases::Case;
use crate::workspace;

/// Start of a line with a cost: the attach mode, and the numbers of a [`Cost`].
const COST: &str = "cost: ";
/// If set to `1`, the golden file is rewritten.
const UPDATE_ENV: &str = "UPDATE_GOLDEN";
/// By how much a cost may exceed the expected one, percent.
const TOLERANCE_PCT: u64 = 10;
/// Preemption model of a kernel that was booted without a choice.
const OWN_MODEL: &str = "own";
const HEAD: &str = "| kernel, preemption model, attach mode | instructions of a request without the agent | \
    programs, expected | programs and agent, expected | outcome |\n|---|---|---|---|---|";

/// Where a cost was counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The numbers of the kernel's series.
    series: Vec<u32>,
    model: String,
    mode: String,
}

/// Instructions of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    /// Without the agent.
    without: u64,
    /// Added in programs, and in the kernel to run them.
    kernel: u64,
    /// Added by the agent's threads.
    agent: u64,
}

type Costs = BTreeMap<Place, Cost>;

/// What the guests counted.
#[derive(Debug, Default)]
pub(crate) struct Counted(Costs);

impl Counted {
    /// Handles a line of the program on a kernel; ignores one without a cost.
    pub(crate) fn on_line(&mut self, line: &str, release: &str, case: &Case) -> Result<()> {
        if let Some(cost) = line.strip_prefix(COST) {
            let series: Vec<_> = release.split('.').take(2).collect();
            let model = case.preempt.as_deref().unwrap_or(OWN_MODEL);
            let row = format!("{} {model} {cost}", series.join("."));
            self.0.extend([parse(&row)?]);
        }
        Ok(())
    }

    /// Prints the table; fails if a cost is too high.
    pub(crate) fn judge(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let path = golden_path();
        let mut golden = read(&fs::read_to_string(&path).unwrap_or_default())?;
        if env::var(UPDATE_ENV).as_deref() == Ok("1") {
            golden.extend(self.0.clone());
            fs::write(&path, write(&golden))
                .with_context(|| format!("write {}", path.display()))?;
        }
        let (table, excess) = compare(&self.0, &golden);
        println!("{table}");
        ensure!(
            excess.is_empty(),
            "more instructions than expected: {}; {UPDATE_ENV}=1 accepts them",
            excess.join("; ")
        );
        Ok(())
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            series,
            model,
            mode,
        } = self;
        let series: Vec<_> = series.iter().map(u32::to_string).collect();
        write!(f, "{} {model} {mode}", series.join("."))
    }
}

impl Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.without, self.kernel, self.agent)
    }
}

impl Cost {
    /// Returns what is judged: what programs add, and all that is added.
    fn parts(&self) -> [u64; 2] {
        [self.kernel, self.kernel + self.agent]
    }
}

/// Returns the table, and the costs that are too high.
fn compare(counted: &Costs, golden: &Costs) -> (String, Vec<String>) {
    let (mut rows, mut excess) = (vec![HEAD.to_owned()], Vec::new());
    for (place, cost) in counted {
        let expected = expected(golden, place);
        let parts = cost.parts().into_iter().enumerate().map(|(part, count)| {
            let wanted = expected.map(|cost| cost.parts()[part]);
            let is_excess = wanted.is_some_and(|wanted| exceeds(count, wanted));
            let wanted = wanted.map_or_else(|| "–".to_owned(), |wanted| wanted.to_string());
            (format!("{count}, {wanted}"), is_excess)
        });
        let parts: Vec<_> = parts.collect();
        let cells: Vec<_> = parts.iter().map(|(cell, _)| cell.as_str()).collect();
        let outcome = if parts.iter().any(|(_, is_excess)| *is_excess) {
            excess.push(format!("{place}: {}", cells.join("; ")));
            "**failed**"
        } else if expected.is_some() {
            "passed"
        } else {
            "not judged"
        };
        let (without, cells) = (cost.without, cells.join(" | "));
        rows.push(format!("| {place} | {without} | {cells} | {outcome} |"));
    }
    (rows.join("\n"), excess)
}

fn exceeds(count: u64, expected: u64) -> bool {
    count > expected + expected * TOLERANCE_PCT / 100
}

/// Returns the cost that is expected: on a series that has none yet, that of the newest one before it.
fn expected(golden: &Costs, place: &Place) -> Option<Cost> {
    // Costs are in the order of series first.
    let mut older = golden.range(..=place).rev();
    let alike = |known: &Place| (&known.model, &known.mode) == (&place.model, &place.mode);
    let found = older.find(|(known, _)| alike(known));
    found.map(|(_, cost)| *cost)
}

fn golden_path() -> PathBuf {
    workspace::root().join("tests/golden/instructions.txt")
}

fn read(text: &str) -> Result<Costs> {
    text.lines().map(parse).collect()
}

fn write(costs: &Costs) -> String {
    let line = |(place, cost): (&Place, &Cost)| format!("{place} {cost}\n");
    costs.iter().map(line).collect()
}

/// Reads a line: series, preemption model, attach mode, and three numbers of instructions.
fn parse(line: &str) -> Result<(Place, Cost)> {
    let words: Vec<_> = line.split(' ').collect();
    let parsed = match words[..] {
        [series, model, mode, without, kernel, agent] => {
            place(series, model, mode).zip(cost(without, kernel, agent))
        }
        _ => None,
    };
    parsed.with_context(|| format!("no cost: {line}"))
}

fn place(series: &str, model: &str, mode: &str) -> Option<Place> {
    let series: Result<_, _> = series.split('.').map(u32::from_str).collect();
    Some(Place {
        series: series.ok()?,
        model: model.to_owned(),
        mode: mode.to_owned(),
    })
}

fn cost(without: &str, kernel: &str, agent: &str) -> Option<Cost> {
    Some(Cost {
        without: without.parse().ok()?,
        kernel: kernel.parse().ok()?,
        agent: agent.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_test::cases::Options;
    use crate::vm::kernels::NEWEST;

    const GOLDEN: &str = "6.1 own kprobe 900 100 200\n6.12 full auto 900 50 50\n";

    fn judge(line: &str) -> (String, Vec<String>) {
        let golden = read(GOLDEN).unwrap();
        compare(&read(line).unwrap(), &golden)
    }

    #[test]
    fn a_tenth_more_than_expected_passes_and_more_fails() {
        for (added, fails) in [
            ("10 20", false),
            ("100 200", false),
            ("110 220", false),
            ("111 20", true),
            ("110 221", true),
        ] {
            let (table, excess) = judge(&format!("6.1 own kprobe 900 {added}"));
            assert_eq!(!excess.is_empty(), fails, "{table}");
            assert_eq!(table.contains("**failed**"), fails, "{table}");
        }
        let (_, excess) = judge("6.1 own kprobe 900 111 20");
        assert_eq!(excess, ["6.1 own kprobe: 111, 100; 131, 300"]);
    }

    #[test]
    fn a_new_series_is_judged_by_the_one_before() {
        assert!(judge("7.9 full auto 900 55 55").1.is_empty());
        assert!(!judge("7.9 full auto 900 56 50").1.is_empty());
        for other in ["5.10 own kprobe", "6.1 full kprobe", "6.1 own auto"] {
            let (table, excess) = judge(&format!("{other} 900 999 50"));
            assert!(excess.is_empty(), "{excess:?}");
            assert!(table.ends_with("| not judged |"), "{table}");
        }
    }

    #[test]
    fn what_a_guest_counted_has_its_kernel_and_model() {
        let options = Options::default();
        let cases = options.cases();
        let case = cases.iter().find(|case| case.series == "6.12").unwrap();
        let mut counted = Counted::default();
        for line in ["hello", "cost: fentry 900 100 50"] {
            counted
                .on_line(line, "6.12.118+deb13-cloud-amd64", case)
                .unwrap();
        }
        assert_eq!(write(&counted.0), "6.12 full fentry 900 100 50\n");
        let broken = counted.on_line("cost: fentry 900", "6.12.1", case);
        assert!(broken.is_err());
    }

    #[test]
    fn every_attach_mode_that_a_change_must_hold_has_an_expected_cost() {
        let golden = read(&fs::read_to_string(golden_path()).unwrap()).unwrap();
        let mut judged = 0;
        for case in Options::default().cases() {
            let series = match case.series.as_str() {
                NEWEST => "999.0",
                series => series,
            };
            let model = case.preempt.as_deref().unwrap_or(OWN_MODEL);
            if !case.counts_instructions() {
                continue;
            }
            for mode in &case.modes {
                let place = place(series, model, mode).unwrap();
                assert!(expected(&golden, &place).is_some(), "{place}");
                judged += 1;
            }
        }
        assert!(judged >= 5, "{judged}");
    }
}
