//! Tests what users install: each package, image and chart is made, and used as a user would.
//!
//! A part that lacks a tool is skipped, and the run lists it.

mod chart;
mod image;
mod lint;
mod machine;
mod scrape;
mod skip;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::leftovers::Leftovers;
use crate::package_test::skip::Skipped;
use crate::tools::cargo_tools::{CARGO_DEB, CARGO_GENERATE_RPM};
use crate::tools::helm::Helm;
use crate::tools::podman::Podman;
use crate::tools::rootfs;

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
}

/// Fetches what the tests need, and prints one line for each; what cannot be had is no error.
fn set_up() {
    let print = |what: &str, outcome: Result<()>| match outcome {
        Ok(()) => eprintln!("set up: {what}"),
        Err(err) => eprintln!("set up: no {what}: {err:#}"),
    };
    print("cargo-deb", CARGO_DEB.ensure().map(drop));
    print("cargo-generate-rpm", CARGO_GENERATE_RPM.ensure().map(drop));
    print("lintian, mandoc and rpm", lint::install());
    print("a small Debian", rootfs::ensure().map(drop));
    print("podman", Podman::ensure().map(drop));
    print("Helm", Helm::ensure().map(drop));
}

/// Tests `parts`, all if it is empty; fails if one has failed.
pub(crate) fn run(parts: &[Part]) -> Result<()> {
    set_up();
    let leftovers = Leftovers::expect();
    leftovers.clear_skips()?;
    let outcome = run_noting(parts, &leftovers);
    leftovers.report_skips();
    outcome
}

/// Tests `parts`, all if it is empty, and adds their skips to `leftovers`.
fn run_noting(parts: &[Part], leftovers: &Leftovers) -> Result<()> {
    let parts = match parts {
        [] => Part::value_variants(),
        parts => parts,
    };
    let mut failed = Vec::new();
    for part in parts {
        let start = Instant::now();
        let name = format!("packages::{}", format!("{part:?}").to_lowercase());
        eprintln!("==> test {name}");
        let outcome = match part {
            Part::Lint => lint::test(),
            Part::Machine => machine::test(),
            Part::Image => image::test(),
            Part::Chart => chart::test(),
            Part::Scrape => scrape::test(),
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
