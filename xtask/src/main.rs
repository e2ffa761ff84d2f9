//! `cargo xtask`: sets up, builds, runs and tests inferprobe; one file for each subcommand.
//!
//! Does not depend on: the agent, which shares only `tools/toolchain.rs` and the declaration of its options with it.

mod arch;
mod bench;
mod build;
mod cargo_test;
mod compare;
mod dashboards;
mod dist;
mod fuzz;
mod kernel_test;
mod leftovers;
mod lint;
mod package_test;
mod page_test;
mod pictures;
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
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use arch::Arch;

/// Set up, build, run and test inferprobe.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing to build the eBPF programs
    Setup {
        /// Also fetch what only the tests need
        #[arg(long)]
        for_tests: bool,
    },
    /// Set up, and build the release binary target/release/inferprobe
    Build {
        /// Build target/TARGET/release/inferprobe for this target
        #[arg(long, value_parser = arch_of_target, value_name = "TARGET")]
        target: Option<Arch>,
    },
    /// Write the Grafana dashboards in deploy/grafana
    Dashboards {
        /// Compare them with Grafana's types instead
        #[arg(long)]
        check: bool,
    },
    /// Make what users install, in target/dist, with checksums
    Dist {
        /// Make packages for this architecture [default: this machine's]
        #[arg(long)]
        arch: Option<Arch>,
        /// Make only these [default: all]
        kinds: Vec<dist::Kind>,
    },
    /// Build, then start the agent
    Run {
        /// Do not start the example inference server
        #[arg(long)]
        no_demo: bool,
        /// Options of `inferprobe serve`
        #[arg(last = true)]
        agent_args: Vec<OsString>,
    },
    /// Run the tests, with what they need built and fetched first (kernel tests need root), kernel-test and package-test
    Test {
        /// Run only tests whose name, or whose target's name, contains this [default: all tests, then `kernel-test`]
        filter: Vec<String>,
        /// Options of `cargo test`
        #[arg(last = true)]
        options: Vec<OsString>,
    },
    /// Build, then measure the cost of the agent (needs root, takes a minute)
    Bench {
        /// Options of the bench
        #[arg(last = true)]
        bench_args: Vec<OsString>,
    },
    /// Compare the agent with a real server, and print a table (needs root, takes minutes)
    Compare {
        /// The server; vLLM takes 6 GB
        #[arg(value_enum, default_value_t = compare::Server::Torchserve)]
        server: compare::Server,
    },
    /// Run the parsers on hostile bytes (needs a C++ compiler)
    Fuzz {
        /// Time for each target [seconds]
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Targets, named like the folders of `tests/fuzz/corpus` [default: all]
        targets: Vec<String>,
    },
    /// Test the agent on other kernels in virtual machines, and print a table (the host's kernel needs root)
    KernelTest {
        #[command(flatten)]
        options: kernel_test::Options,
    },
    /// Make packages, image and chart, and use each as a user would (the virtual machine and the image need root)
    PackageTest {
        /// Test only these [default: all]
        parts: Vec<package_test::Part>,
    },
    /// Open the agent's page in Chromium, with three servers under load, and check what it shows (needs root)
    PageTest {
        /// Measure instead what ten tabs and three `top`s cost the agent, which takes five minutes
        #[arg(long)]
        watched: bool,
    },
    /// Take the pictures of the documentation, and the recording of `top --demo`, from the real thing (needs root)
    Pictures {
        /// Take only this [default: all]
        #[arg(value_enum)]
        only: Option<pictures::Picture>,
        /// Use this agent for `top` [default: build it]
        #[arg(long, value_name = "PATH")]
        agent: Option<PathBuf>,
    },
    /// Check format, import cycles, words, documentation and clippy's lints
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup { for_tests } => setup::run(for_tests),
        Command::Build { target: None } => build::agent().map(drop),
        Command::Build { target: Some(arch) } => build::agent_for(arch).map(drop),
        Command::Dashboards { check } => dashboards::run(check),
        Command::Dist { arch, kinds } => {
            dist::run(&kinds, arch.or(Arch::own()).unwrap_or_default())
        }
        Command::Run {
            no_demo,
            agent_args,
        } => run::run(no_demo, &agent_args),
        Command::Test { filter, options } => test::run(&filter, &options),
        Command::Bench { bench_args } => bench::run(&bench_args),
        Command::Compare { server } => compare::run(server),
        Command::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Command::KernelTest { options } => kernel_test::run(&options),
        Command::PackageTest { parts } => package_test::run(&parts),
        Command::PageTest { watched } => page_test::test(watched),
        Command::Pictures { only, agent } => pictures::run(only, agent),
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
    Arch::of_target(target).ok_or("use x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu")
}
