//! Measures what the agent costs itself and the servers that it watches, and prints one table with the targets.
//!
//! A missed target is reported, not an error: numbers depend on the machine.

mod bodies;
mod bpf_stats;
mod drain;
mod extremes;
mod hooks;
mod machine;
mod neighbours;
mod placement;
mod report;
mod scrape;
mod throughput;
mod usage;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use inferprobe_tests::{
    load::{self, Load, Outcome},
    server::Server,
};

/// Options of the bench.
#[derive(Debug, Clone, Parser)]
#[command(name = "bench")]
struct Options {
    /// Groups of four rounds (without, with, with, without the agent) for the throughput ratio
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    groups: u32,
    /// As many for a server that nobody watches; each takes 22 s
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    neighbour_groups: u32,
    /// Scrapes of each kind for the scrape latencies
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    scrapes: u32,
}

/// Keep-alive connections of the load.
const CONNECTIONS: usize = 8;
/// Bytes of each request body, and of each response body.
const BODY_BYTES: usize = 64;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything, reports its progress on standard error, and prints the table.
fn run(options: &Options) -> Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "the bench loads programs into the kernel, which takes root; run it as root or with sudo"
    );
    let mut sections = Vec::new();
    eprintln!("==> throughput, with and without the agent");
    sections.extend(throughput::measure(options.groups)?);
    eprintln!("==> a server that nobody watches");
    sections.push(neighbours::measure(options.neighbour_groups)?);
    eprintln!("==> time in the kernel");
    sections.extend(hooks::measure()?);
    eprintln!("==> long bodies");
    sections.push(bodies::measure()?);
    eprintln!("==> records that one core processes");
    sections.push(drain::measure()?);
    eprintln!("==> use of CPU and memory, and scrapes");
    sections.extend(usage::measure(options.scrapes)?);
    println!("{}", machine::describe());
    print!("{}", report::table(&sections));
    Ok(())
}

/// How fast requests come.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Requests per second; `None`: as fast as responses come.
    rate_per_s: Option<u32>,
    /// Requests in one send.
    pipelined: u32,
}

impl Pace {
    /// As fast as responses come, each request by itself.
    const FULL: Self = Self {
        rate_per_s: None,
        pipelined: 1,
    };
}

/// Loads `server` for `duration`.
fn load(server: &Server, duration: Duration, pace: Pace) -> Result<Outcome> {
    load::run(&Load {
        address: ([127, 0, 0, 1], server.port()).into(),
        connections: CONNECTIONS,
        duration,
        target: "/predictions/echo".into(),
        body_bytes: BODY_BYTES,
        rate_per_s: pace.rate_per_s,
        pipelined: pace.pipelined,
    })
}

/// Returns the options that make the agent watch `server`, and nothing that it finds by itself: the requests of a load
/// look like inference.
fn watch(server: &Server) -> [String; 3] {
    let port = server.port().to_string();
    ["--watch-port".to_owned(), port, "--no-discover".to_owned()]
}
