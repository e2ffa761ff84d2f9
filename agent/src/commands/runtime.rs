//! Runs a subcommand's future to its end.
//!
//! Every subcommand that waits uses this single-threaded runtime.
//! Does not depend on: the subcommands.

use anyhow::{Context as _, Result};

/// Starts the runtime and returns what `command` returns.
pub(super) fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(command)
}
