//! Entry point of the gateway.

use clap::Parser;

/// Sends each request on to another server, and prints its own port.
#[derive(Debug, Parser)]
struct Args {
    /// Port or unix socket of the server
    upstream: String,
}

fn main() -> anyhow::Result<()> {
    Ok(inferprobe_tests::gateway::run(&Args::parse().upstream)?)
}
