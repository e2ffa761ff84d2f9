//! Entry point of the reference server.

use clap::Parser;
use inferprobe_tests::reference::{options::Options, serve};

fn main() -> anyhow::Result<()> {
    serve::run(&Options::parse())
}
