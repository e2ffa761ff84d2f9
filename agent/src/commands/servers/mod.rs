//! Runs `inferprobe servers`: lists every listener of the host, and says what the agent would watch it as, and why.
//!
//! Asks the registry that `serve` would have with the same options. `table` formats the list.
//! Does not depend on: a running agent, the kernel's programs.

mod report;
mod table;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use crate::{
    cli::{ServeArgs, ServersArgs},
    commands::servers::report::{Report, Row},
    config::Config,
    discovery::{
        listeners::{self, Listener, Listeners},
        procfs,
        registry::Registry,
    },
    usage::UsageError,
};

/// Checked options of `servers`.
#[derive(Debug)]
pub struct Request {
    config: Config,
    json: bool,
}

impl Request {
    /// Checks the options.
    pub fn check(args: &ServersArgs) -> Result<Self, UsageError> {
        let config = Config::load(&ServeArgs {
            config: args.config.clone(),
            watch_port: args.watch_port.clone(),
            watch_exe: args.watch_exe.clone(),
            no_discover: args.no_discover,
            ..ServeArgs::default()
        })?;
        Ok(Self {
            config,
            json: args.json,
        })
    }
}

/// Prints the list.
pub fn run(request: Request) -> Result<()> {
    let Request { config, json } = request;
    let mut registry = Registry::new(config.watches, config.catalogue, procfs::own_id());
    let Listeners {
        found,
        unread_processes,
        every_namespace,
    } = listeners::find();
    let rows = found.iter();
    let report = Report {
        listeners: rows
            .map(|listener| row(listener, &mut registry, config.discover))
            .collect(),
        unread_processes,
        every_namespace,
    };
    let text = match json {
        true => serde_json::to_string(&report).context("write the list as JSON")? + "\n",
        false => table::render(&report),
    };
    write!(io::stdout(), "{text}").context("print the list")
}

fn row(listener: &Listener, registry: &mut Registry, discover: bool) -> Row {
    let port = listener.place.port();
    let pids = listener.pids.iter().copied();
    let watched = pids.clone().find(|&pid| registry.inspect(pid));
    let watched = watched.or_else(|| {
        let by_modules = |pid: &u32| discover && port.is_some() && registry.inspect_modules(*pid);
        pids.clone().find(by_modules)
    });
    let pid = watched.or_else(|| listener.pids.first().copied());
    let line = pid.and_then(procfs::command_line);
    let reason = registry.why(pid, port);
    let server = reason.is_some().then(|| {
        registry
            .server(pid.unwrap_or_default(), port)
            .name
            .to_string()
    });
    let (why, option) = match (reason, port) {
        (Some(reason), _) => (reason, None),
        (None, Some(port)) if pid.is_none() => (
            "its process is unknown".to_owned(),
            Some(format!("--watch-port {port}")),
        ),
        (None, Some(port)) if discover && registry.may_be_discovered(pid.unwrap_or_default()) => (
            "undecided: its first requests decide".to_owned(),
            Some(format!("--watch-port {port}")),
        ),
        (None, Some(port)) => (
            "not recognised".to_owned(),
            Some(format!("--watch-port {port}")),
        ),
        (None, None) => {
            let name = line.as_ref().map(|line| line.given.as_str());
            let option = name.map(|name| format!("--watch-exe '{}'", regex_lite::escape(name)));
            ("not recognised".to_owned(), option)
        }
    };
    Row {
        pid,
        processes: listener.pids.len(),
        command: line.map(|line| line.given),
        listens: listener.place.to_string(),
        port,
        server,
        why,
        option,
    }
}
