//! The program that `cargo xtask kernel-test` runs on each kernel.

use std::process::ExitCode;

use clap::Parser;
use inferprobe_tests::kernel_matrix;

fn main() -> ExitCode {
    if kernel_matrix::run(&kernel_matrix::Options::parse()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
