//! Entry point of the load client: prints its outcome as one JSON object.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use inferprobe_tests::load::{Load, run};

/// Sends POST requests in a closed loop and prints throughput and latency as JSON.
#[derive(Debug, Parser)]
struct Args {
    /// Address and port of the server
    #[arg(long)]
    address: SocketAddr,
    /// Keep-alive connections
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Milliseconds for which to send
    #[arg(long, default_value_t = 1000)]
    duration_ms: u64,
    /// Request target
    #[arg(long, default_value = "/predictions/echo")]
    target: String,
    /// Bytes of request body
    #[arg(long, default_value_t = 64)]
    body_bytes: usize,
    /// Requests per second [default: as many as possible]
    #[arg(long)]
    rate_per_s: Option<u32>,
    /// Requests in one send
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pipelined: u32,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let outcome = run(&Load {
        address: args.address,
        connections: args.connections,
        duration: Duration::from_millis(args.duration_ms),
        target: args.target,
        body_bytes: args.body_bytes,
        rate_per_s: args.rate_per_s,
        pipelined: args.pipelined,
        encrypted: false,
    })?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
