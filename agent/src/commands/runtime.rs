//! Runs a subcommand's future to its end.
//!
//! Every subcommand that waits uses this single-threaded runtime.
//! Does not depend on: the subcommands.

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

/// Starts the runtime and returns what `command` returns.
pub(super) fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    new()?.block_on(command)
}

/// Starts the runtime.
pub(super) fn new() -> Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")
}
