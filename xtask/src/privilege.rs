//! Runs commands as root: directly, or through sudo if the user agrees. Asks only on a terminal.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Permission to run commands as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// The user agreed to sudo.
    Sudo,
}

impl Privilege {
    /// Returns permission to run `commands` (shell words, shown as they are); the error says how to run them by hand.
    pub(crate) fn obtain(why: &str, commands: &str) -> Result<Self> {
        if is_root() {
            return Ok(Self::Root);
        }
        if !io::stdin().is_terminal() {
            bail!("{why}, which needs root; run `sudo {commands}`, then try again");
        }
        if confirm(&format!("{why}. Run `sudo {commands}`?"))? {
            return Ok(Self::Sudo);
        }
        bail!("{why}, which needs root; sudo was declined")
    }

    /// Returns the command that runs `program` as root.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg(program);
                command
            }
        }
    }
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Asks a yes-or-no question on the terminal; any other reply is no.
pub(crate) fn confirm(question: &str) -> Result<bool> {
    eprint!("{question} [y/N] ");
    io::stderr().flush().context("write to the terminal")?;
    let mut reply = String::new();
    io::stdin()
        .read_line(&mut reply)
        .context("read the reply from the terminal")?;
    Ok(matches!(reply.trim(), "y" | "Y" | "yes"))
}
