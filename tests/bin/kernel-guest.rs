//! Entry point of what `cargo xtask kernel-test` runs on each kernel.

use std::process::ExitCode;

use clap::Parser;
use inferprobe_tests::matrix;

fn main() -> ExitCode {
    if matrix::run(&matrix::Options::parse()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
