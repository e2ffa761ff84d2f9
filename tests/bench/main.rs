//! Measures what the agent costs itself and the servers that it watches, and prints one table with the targets.
//!
//! A missed target is reported, not an error: numbers depend on the machine.

mod bodies;
mod bpf_stats;
mod drain;
mod extremes;
mod fastapi;
mod frameworks;
mod hooks;
mod machine;
mod neighbours;
mod placement;
mod report;
mod scrape;
mod throughput;
mod tls;
mod usage;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use inferprobe_tests::{
    load::{self, Load, Outcome},
    server::Server,
};

use crate::report::Section;

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
    /// Groups of rounds of a FastAPI server: six (bare, with the agent, two libraries, with the agent, bare), which take 12 s, and
    /// ten for TLS, which take 40 s
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    framework_groups: u32,
    /// Folder of the Python environment `venv` with FastAPI and the libraries
    #[arg(long, value_name = "DIR")]
    frameworks: Option<PathBuf>,
    /// Measure only these parts
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
}

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Requests per second of a watched server
    Throughput,
    /// Requests per second of a server that nobody watches
    Neighbours,
    /// Requests per second of a FastAPI server, measured by the agent and by libraries
    Frameworks,
    /// Time that a request over TLS takes longer
    Tls,
    /// Time in each kernel program
    Hooks,
    /// Cost of long bodies
    Bodies,
    /// Records that one core processes
    Drain,
    /// CPU time and memory of the agent, and scrapes
    Usage,
}

impl Part {
    const fn title(self) -> &'static str {
        match self {
            Self::Throughput => "throughput, with and without the agent",
            Self::Neighbours => "a server that nobody watches",
            Self::Frameworks => "FastAPI, measured by the agent and by libraries",
            Self::Tls => "TLS, timed and read",
            Self::Hooks => "time in the kernel",
            Self::Bodies => "long bodies",
            Self::Drain => "records that one core processes",
            Self::Usage => "use of CPU and memory, and scrapes",
        }
    }

    fn measure(self, options: &Options) -> Result<Vec<Section>> {
        match self {
            Self::Throughput => throughput::measure(options.groups),
            Self::Neighbours => Ok(vec![neighbours::measure(options.neighbour_groups)?]),
            Self::Frameworks => {
                frameworks::measure(options.frameworks.as_deref(), options.framework_groups)
            }
            Self::Tls => {
                let section =
                    tls::measure(options.frameworks.as_deref(), options.framework_groups)?;
                Ok(vec![section])
            }
            Self::Hooks => hooks::measure(),
            Self::Bodies => Ok(vec![bodies::measure()?]),
            Self::Drain => Ok(vec![drain::measure()?]),
            Self::Usage => usage::measure(options.scrapes),
        }
    }
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

/// Measures what is asked for, reports its progress on standard error, and prints the table.
fn run(options: &Options) -> Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "the bench loads programs into the kernel, which takes root; run it as root or with sudo"
    );
    let mut sections = Vec::new();
    let parts = match &*options.only {
        [] => Part::value_variants(),
        parts => parts,
    };
    for part in parts {
        eprintln!("==> {}", part.title());
        sections.extend(part.measure(options)?);
    }
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
    load_at(server.port(), duration, pace)
}

/// Loads the server at `port` of 127.0.0.1 for `duration`.
fn load_at(port: u16, duration: Duration, pace: Pace) -> Result<Outcome> {
    load::run(&load_of(port, duration, pace))
}

/// As [`load_at`], over TLS.
fn load_encrypted_at(port: u16, duration: Duration, pace: Pace) -> Result<Outcome> {
    load::run(&Load {
        encrypted: true,
        ..load_of(port, duration, pace)
    })
}

fn load_of(port: u16, duration: Duration, pace: Pace) -> Load {
    Load {
        address: ([127, 0, 0, 1], port).into(),
        connections: CONNECTIONS,
        duration,
        target: "/predictions/echo".into(),
        body_bytes: BODY_BYTES,
        rate_per_s: pace.rate_per_s,
        pipelined: pace.pipelined,
        encrypted: false,
    }
}

/// Returns the options that make the agent watch `server`, and nothing that it finds by itself: the requests of a load
/// look like inference.
fn watch(server: &Server) -> [String; 3] {
    watch_port(server.port())
}

fn watch_port(port: u16) -> [String; 3] {
    let port = port.to_string();
    ["--watch-port".to_owned(), port, "--no-discover".to_owned()]
}
