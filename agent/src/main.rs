//! Turns the command line into a run of one subcommand, and its outcome into an exit code.
//!
//! `commands` runs it.
//! Does not depend on: what the subcommands do.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use inferprobe::{
    cli::{Cli, Command, DoctorArgs, ServeArgs},
    commands::{
        assets,
        autoscale::{self, options::Options},
        demo_server, doctor, record,
        scale::{self, Scale},
        serve::{self, reload::SetLevel},
        servers, top, view, why,
    },
    config::Config,
    doctor::Options as DoctorOptions,
    usage::UsageError,
};
use tracing_subscriber::EnvFilter;

/// Exit code of a usage error.
const USAGE: u8 = 2;
/// Exit code if the environment does not allow the run.
const ENVIRONMENT: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let set_level = start_log();
    match cli.command {
        None => run_agent(cli.serve, set_level),
        Some(Command::Serve(args)) => run_agent(*args, set_level),
        Some(Command::DemoServer(args)) => ended(demo_server::run(&args)),
        Some(Command::Doctor(args)) => examine(&args),
        Some(Command::Servers(args)) => checked(servers::Request::check(&args), servers::run),
        Some(Command::Top(args)) => checked(top::Request::check(&args), top::run),
        Some(Command::Why(args)) => checked(why::Request::check(&args), why::run),
        Some(Command::Record(args)) => checked(record::Request::check(&args), record::run),
        Some(Command::View(args)) => checked(view::Request::check(&args), view::run),
        Some(Command::Assets(args)) => checked(assets::Request::check(&args), assets::run),
        Some(Command::Scale(args)) => checked(Scale::check(&args), scale::run),
        Some(Command::Autoscale(args)) => checked(Options::check(&args), autoscale::run),
    }
}

/// Starts the log; returns what changes its level, unless the environment sets it.
fn start_log() -> SetLevel {
    let given = EnvFilter::try_from_default_env().ok();
    let is_given = given.is_some();
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(given.unwrap_or_else(|| EnvFilter::new("info")))
        .with_filter_reloading();
    let filter = log.reload_handle();
    log.init();
    Box::new(move |level| match is_given {
        true => Ok(()),
        false => {
            let level = EnvFilter::try_new(level).map_err(|err| err.to_string())?;
            filter.reload(level).map_err(|err| err.to_string())
        }
    })
}

fn run_agent(args: ServeArgs, set_level: SetLevel) -> ExitCode {
    checked(Config::load(&args), |config| {
        serve::run(args, config, set_level)
    })
}

/// `doctor` has exit codes of its own for what it finds.
fn examine(args: &DoctorArgs) -> ExitCode {
    let options = match DoctorOptions::check(args) {
        Ok(options) => options,
        Err(err) => return refused(&err),
    };
    match doctor::run(&options) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(err) => ended(Err(err)),
    }
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
