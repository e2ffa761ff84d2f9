//! Runs the tests of the workspace, or those that filters select, then the agent on other kernels and the packages.

use std::ffi::OsString;

use anyhow::{Result, ensure};

use crate::cargo_test::needs::{self, Need};
use crate::cargo_test::{CargoTest, Words, targets};
use crate::dist::program::Profile;
use crate::{kernel_test, package_test};

/// Runs the tests whose name, or whose target's name, contains one of `filters`. Without filters and options it runs
/// every test, the kernel tests and those of the packages.
pub(crate) fn run(filters: &[String], options: &[OsString]) -> Result<()> {
    let mut parts = package_test::matching(filters);
    let (needs, runs) = if filters.is_empty() {
        let every = ["--workspace", "--no-fail-fast"].map(OsString::from);
        (Need::ALL.into(), vec![words(&every, &[], options)])
    } else {
        let targets = targets::matching(targets::all()?, filters);
        ensure!(
            !targets.is_empty() || !parts.is_empty(),
            "no test matches {}; `cargo xtask test` without a filter runs every test",
            filters.join(" or ")
        );
        let selections = targets::selections(&targets, filters);
        let runs = selections.iter().map(|selection| {
            let targets: Vec<OsString> = selection.targets.iter().map(Into::into).collect();
            let targets = [&targets[..], &["--no-fail-fast".into()]].concat();
            words(&targets, &selection.filters, options)
        });
        (needs::of(&targets, filters), runs.collect())
    };
    let tests = CargoTest::prepare(&needs)?;
    let mut outcome = tests.run(&runs);
    if filters.is_empty() && options.is_empty() {
        outcome = outcome.and_then(|()| kernel_test::run(&kernel_test::Options::default()));
        parts = package_test::Part::OF_EVERY_CHANGE.to_vec();
    }
    let outcome =
        outcome.and_then(|()| package_test::run_noting(&parts, Profile::Release, &tests.leftovers));
    tests.leftovers.report_skips();
    outcome
}

/// Returns the words of a `cargo test`; `options` are the user's, with another `--` before those for the tests.
fn words(targets: &[OsString], filters: &[String], options: &[OsString]) -> Words {
    let mut parts = options.splitn(2, |word| word == "--");
    let mut part = || parts.next().unwrap_or_default().to_vec();
    let of_cargo = part();
    let filters = filters.iter().map(OsString::from);
    Words {
        targets: targets.to_vec(),
        options: of_cargo,
        passed_on: filters.chain(part()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_behind_a_second_separator_are_for_the_tests() {
        let options = ["--quiet", "--", "--nocapture"].map(OsString::from);
        let words = words(&["--lib".into()], &["unix".to_owned()], &options);
        assert_eq!(words.options, ["--quiet"]);
        assert_eq!(words.passed_on, ["unix", "--nocapture"]);
    }
}
