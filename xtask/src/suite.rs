//! What a change must pass: the tests of the whole workspace, and the checks of format and lints.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::{
    agent, kernel_test, privilege, progress, prometheus, retry, servers, setup, torchserve,
    workspace,
};

/// Set to `1`, makes a test fail that would skip itself for want of the kernel.
const REQUIRE_KERNEL_ENV: &str = "INFERPROBE_REQUIRE_KERNEL";

/// Runs every test, and unless a choice of them was asked for, the agent on other kernels.
pub(crate) fn test(test_args: &[OsString]) -> Result<()> {
    let every = ["--workspace".into(), "--no-fail-fast".into()];
    retry::run(&every, test_args)?;
    if test_args.is_empty() {
        kernel_test::run(&kernel_test::Options::default())?;
    }
    Ok(())
}

/// `cargo test` with `args`, and all that the tests need in place: the release binary where one starts the agent.
pub(crate) fn command(args: &[OsString]) -> Result<Command> {
    let binary = agent::build()?;
    let prometheus_dir = prometheus::ensure()?;
    let torchserve_dir = torchserve::ensure()?;
    let servers_dir = servers::ensure()?;
    let mut command = workspace::cargo("test");
    command
        .args(args)
        .env("INFERPROBE_BIN", binary)
        .env("INFERPROBE_PROMETHEUS_DIR", prometheus_dir)
        .env("INFERPROBE_TORCHSERVE_DIR", torchserve_dir)
        .env("INFERPROBE_SERVERS_DIR", servers_dir);
    if env::var_os(REQUIRE_KERNEL_ENV).is_none()
        && (privilege::is_root() || env::var_os("CI").is_some())
    {
        command.env(REQUIRE_KERNEL_ENV, "1");
    }
    Ok(command)
}

/// Checks format and lints; a warning is an error.
pub(crate) fn lint() -> Result<()> {
    progress::step(
        "check the format",
        workspace::cargo("fmt").args(["--all", "--check"]),
    )?;
    setup::ensure()?;
    progress::step(
        "check the lints",
        workspace::cargo("clippy").args([
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
    )
}
