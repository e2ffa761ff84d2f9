//! Entry point: turns the command line into a run, and its outcome into an exit code.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use inferprobe::{
    cli::{Cli, Command, ServeArgs},
    commands::{autoscale::options::Options, scale::Scale, serve},
    config::Config,
    doctor,
    usage::UsageError,
};
use tracing_subscriber::EnvFilter;

/// Exit code of a usage error.
const USAGE: u8 = 2;
/// Exit code of an environment that does not allow the run.
const ENVIRONMENT: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::DemoServer(args)) => ended(serve::demo_server(&args)),
        Some(Command::Doctor(args)) => match doctor::Options::check(&args) {
            Ok(options) => serve::doctor(&options).map_or_else(
                |err| ended(Err(err)),
                |outcome| ExitCode::from(outcome.exit_code()),
            ),
            Err(err) => refused(&err),
        },
        Some(Command::Scale(args)) => checked(Scale::check(&args), |scale| serve::scale(&scale)),
        Some(Command::Autoscale(args)) => checked(Options::check(&args), serve::autoscale),
    }
}

fn serve(args: &ServeArgs) -> ExitCode {
    checked(Config::load(args), serve::serve)
}

fn checked<T>(args: Result<T, UsageError>, run: impl FnOnce(T) -> anyhow::Result<()>) -> ExitCode {
    match args {
        Ok(args) => ended(run(args)),
        Err(err) => refused(&err),
    }
}

fn refused(err: &UsageError) -> ExitCode {
    eprintln!("inferprobe: {err}");
    ExitCode::from(USAGE)
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("inferprobe: {}", format!("{err:#}").replace('\n', " "));
            ExitCode::from(ENVIRONMENT)
        }
    }
}
