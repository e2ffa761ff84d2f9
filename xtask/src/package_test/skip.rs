//! Skips a part that lacks a tool.

use std::fmt::{self, Display};

use anyhow::Result;

use crate::arch::Arch;
use crate::privilege;
use crate::tools::cargo_tools::{CARGO_DEB, CARGO_GENERATE_RPM};
use crate::tools::glibc;

/// Why a part was not tested.
#[derive(Debug)]
pub(crate) struct Skipped(String);

impl Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Skips unless this is root.
pub(crate) fn need_root() -> Result<()> {
    if privilege::is_root() {
        return Ok(());
    }
    Err(Skipped("needs root".to_owned()).into())
}

/// Skips unless what makes and links packages is there.
pub(crate) fn need_tools() -> Result<()> {
    need(CARGO_DEB.ensure())?;
    need(CARGO_GENERATE_RPM.ensure())?;
    need_glibc()
}

/// Skips unless the libraries that packages are linked with are there.
pub(crate) fn need_glibc() -> Result<()> {
    if Arch::own() != Some(Arch::Amd64) {
        return Err(Skipped("packages are tested on x86-64".to_owned()).into());
    }
    need(glibc::link_options(Arch::Amd64)).map(drop)
}

/// Makes an outcome without something that cannot be had into a skip.
pub(crate) fn need<T>(outcome: Result<T>) -> Result<T> {
    outcome.map_err(|err| Skipped(format!("{err:#}")).into())
}
