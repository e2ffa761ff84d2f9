//! Entry point of the bench.

use std::process::ExitCode;

use clap::Parser;
use inferprobe_tests::bench::{Options, run};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}
