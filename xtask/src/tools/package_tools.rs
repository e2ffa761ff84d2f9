//! Fetches all that the tests of the packages need, before the first of them.
//!
//! Does not depend on: the tests.

use anyhow::Result;

use crate::privilege;
use crate::tools::cargo_tools::{CARGO_DEB, CARGO_GENERATE_RPM};
use crate::tools::debian;
use crate::tools::helm::Helm;
use crate::tools::podman::Podman;
use crate::tools::rootfs;

const CHECKERS: [&str; 4] = ["lintian", "mandoc", "rpm", "systemd"];

/// Fetches what the tests need, and prints one line for each; what cannot be had is no error.
pub(crate) fn set_up() {
    let print = |what: &str, outcome: Result<()>| match outcome {
        Ok(()) => eprintln!("set up: {what}"),
        Err(err) => eprintln!("set up: no {what}: {err:#}"),
    };
    print("Helm", Helm::ensure().map(drop));
    if !privilege::is_root() {
        eprintln!("set up: nothing else for packages, as their tests need root");
        return;
    }
    print("cargo-deb", CARGO_DEB.ensure().map(drop));
    print("cargo-generate-rpm", CARGO_GENERATE_RPM.ensure().map(drop));
    print("lintian, mandoc and rpm", install_checkers());
    print("a small Debian", rootfs::ensure().map(drop));
    print("podman", Podman::ensure().map(drop));
}

/// Installs what checks the packages.
pub(crate) fn install_checkers() -> Result<()> {
    let missing = debian::missing(&CHECKERS)?;
    if missing.is_empty() {
        return Ok(());
    }
    debian::install("The packages are checked with lintian", &missing)
}
