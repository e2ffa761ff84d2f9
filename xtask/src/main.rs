//! `cargo xtask`: set-up, build, run, test, kernel-test, compare, bench, fuzz and lint of inferprobe.
//!
//! Starts compilers and package managers; shares no code with the agent beyond `tools/toolchain.rs`.

mod arch;
mod bench;
mod build;
mod cargo_test;
mod compare;
mod fuzz;
mod kernel_test;
mod leftovers;
mod lint;
mod privilege;
mod progress;
mod run;
mod setup;
mod source;
mod test;
mod tools;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use arch::Arch;

/// Set-up, build, run, test, compare, bench, fuzz and lint of inferprobe.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what building the eBPF half needs, where it is missing
    Setup {
        /// Also fetch what only the tests need
        #[arg(long)]
        for_tests: bool,
    },
    /// Set up, and leave the release binary at target/release/inferprobe
    Build {
        /// Build for this target, and leave the binary at target/TARGET/release/inferprobe
        #[arg(long, value_parser = arch_of_target, value_name = "TARGET")]
        target: Option<Arch>,
    },
    /// Build, then start the agent
    Run {
        /// Never start the example inference server
        #[arg(long)]
        no_demo: bool,
        /// Options of `inferprobe serve`
        #[arg(last = true)]
        agent_args: Vec<OsString>,
    },
    /// Run the tests, with what they need built and fetched first
    Test {
        /// Only tests whose name, or whose target's name, contains this; without a filter, all and `kernel-test`
        filter: Vec<String>,
        /// Options of `cargo test`
        #[arg(last = true)]
        options: Vec<OsString>,
    },
    /// Build, then measure what the agent costs (takes a minute and root)
    Bench {
        /// Options of the bench
        #[arg(last = true)]
        bench_args: Vec<OsString>,
    },
    /// Set up, and compare the agent with a real TorchServe, as a table (takes minutes and root)
    Compare,
    /// Give the parsers hostile bytes (needs a C++ compiler)
    Fuzz {
        /// Seconds for each target
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Targets, by the folders of `tests/fuzz/corpus`; all of them if none is named
        targets: Vec<String>,
    },
    /// Test the agent on other kernels, in virtual machines, and print a table (the host's kernel takes root)
    KernelTest {
        #[command(flatten)]
        options: kernel_test::Options,
    },
    /// Check format and lints
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup { for_tests } => setup::run(for_tests),
        Command::Build { target: None } => build::agent().map(drop),
        Command::Build { target: Some(arch) } => build::agent_for(arch).map(drop),
        Command::Run {
            no_demo,
            agent_args,
        } => run::run(no_demo, &agent_args),
        Command::Test { filter, options } => test::run(&filter, &options),
        Command::Bench { bench_args } => bench::run(&bench_args),
        Command::Compare => compare::run(),
        Command::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Command::KernelTest { options } => kernel_test::run(&options),
        Command::Lint => lint::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn arch_of_target(target: &str) -> Result<Arch, &'static str> {
    Arch::of_target(target).ok_or("give x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu")
}
