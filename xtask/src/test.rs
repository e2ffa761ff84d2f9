//! Runs every test of the workspace, then the agent on other kernels.

use std::ffi::OsString;

use anyhow::Result;

use crate::{cargo_test, kernel_test};

/// Runs every test, and unless `test_args` selects some of them, the kernel tests.
pub(crate) fn run(test_args: &[OsString]) -> Result<()> {
    let every = ["--workspace".into(), "--no-fail-fast".into()];
    cargo_test::run(&every, test_args)?;
    if test_args.is_empty() {
        kernel_test::run(&kernel_test::Options::default())?;
    }
    Ok(())
}
