//! Tests what users install: each package, image and chart is made, and used as a user would.
//!
//! A part that lacks a tool is skipped, and the run lists it.

mod arm64;
mod chart;
mod image;
mod lint;
mod machine;
mod packages;
mod scrape;
mod skip;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::dist::program::Profile;
use crate::leftovers::Leftovers;
use crate::package_test::packages::Packages;
use crate::package_test::skip::Skipped;
use crate::tools::package_tools;

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// lintian, rpm and systemd on the packages, without starting anything
    Lint,
    /// Both packages in a virtual machine with systemd
    Machine,
    /// The image, run by podman
    Image,
    /// The Helm chart, and the manifests rendered from it
    Chart,
    /// The scrape configurations
    Scrape,
    /// The packages for arm64, their program run under qemu
    Arm64,
}

impl Part {
    /// What `cargo xtask test` runs: another architecture would take as long to build as all else.
    pub(crate) const OF_EVERY_CHANGE: [Self; 5] = [
        Self::Lint,
        Self::Machine,
        Self::Image,
        Self::Chart,
        Self::Scrape,
    ];

    /// Its name in a list of tests.
    fn test_name(self) -> String {
        format!("packages::{self:?}").to_lowercase()
    }
}

/// Returns the parts that `filters` of `cargo xtask test` select: only those that name the packages, as other tests are about
/// images and charts too.
pub(crate) fn matching(filters: &[String]) -> Vec<Part> {
    let is_selected = |part: &&Part| {
        let name = part.test_name();
        filters
            .iter()
            .any(|filter| filter.starts_with("packages") && name.contains(filter.as_str()))
    };
    let parts = Part::OF_EVERY_CHANGE.iter();
    parts.filter(is_selected).copied().collect()
}

/// Tests `parts`, all if it is empty, with what users install; fails if one has failed.
pub(crate) fn run(parts: &[Part]) -> Result<()> {
    let parts = match parts {
        [] => Part::value_variants(),
        parts => parts,
    };
    let leftovers = Leftovers::expect();
    leftovers.clear_skips()?;
    let outcome = run_noting(parts, Profile::Packaged, &leftovers);
    leftovers.report_skips();
    outcome
}

/// Tests `parts` with a program of `profile`, and adds their skips to `leftovers`.
pub(crate) fn run_noting(parts: &[Part], profile: Profile, leftovers: &Leftovers) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    package_tools::set_up();
    let packages = Packages::of(profile);
    let mut failed = Vec::new();
    for part in parts {
        let start = Instant::now();
        let name = part.test_name();
        eprintln!("==> test {name}");
        let outcome = match part {
            Part::Lint => lint::test(&packages),
            Part::Machine => machine::test(&packages),
            Part::Image => image::test(profile),
            Part::Chart => chart::test(),
            Part::Scrape => scrape::test(),
            Part::Arm64 => arm64::test(profile),
        };
        let took = start.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => eprintln!("==> {name}: passed in {took:.1} s"),
            Err(err) if err.is::<Skipped>() => {
                eprintln!("==> {name}: skipped: {err:#}");
                leftovers.add_skip(&name, &format!("{err:#}"))?;
            }
            Err(err) => {
                eprintln!("==> {name}: FAILED in {took:.1} s: {err:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(filters: &[&str]) -> usize {
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        matching(&filters).len()
    }

    #[test]
    fn only_filters_that_name_the_packages_select_parts() {
        assert_eq!(selected(&["packages"]), Part::OF_EVERY_CHANGE.len());
        assert_eq!(selected(&["unix", "packages::machine"]), 1);
        assert_eq!(selected(&["machine"]), 0);
        assert_eq!(selected(&["packages::none"]), 0);
    }
}
