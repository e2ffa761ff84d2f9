//! Entry point of the reference server.

use clap::Parser;
use inferprobe_tests::server::{options::Options, serve};

fn main() -> anyhow::Result<()> {
    serve::run(&Options::parse())
}
