//! Builds the agent, then becomes it.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::privilege::{self, Privilege};
use crate::{build, progress};

/// Builds the agent and replaces this process with it, so that signals and the exit code are the agent's own.
pub(crate) fn run(no_demo: bool, agent_args: &[OsString]) -> Result<()> {
    let binary = build::agent()?;
    let mut command = if wants_sudo(agent_args)? {
        Privilege::Sudo.command(&binary)
    } else {
        Command::new(&binary)
    };
    command.arg("serve");
    if !no_demo {
        command.arg("--demo");
    }
    let err = command.args(agent_args).exec();
    Err(err).with_context(|| format!("start `{}`", progress::shown(&command)))
}

/// Whether a user who is not root agrees to sudo. Without it the agent reports which capabilities it lacks.
fn wants_sudo(agent_args: &[OsString]) -> Result<bool> {
    let without_probes = agent_args.iter().any(|arg| arg == "--no-probes");
    if without_probes || privilege::is_root() || !io::stdin().is_terminal() {
        return Ok(false);
    }
    privilege::confirm("The agent attaches probes to the kernel, which needs root. Use sudo?")
}
