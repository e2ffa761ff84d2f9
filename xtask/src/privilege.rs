//! Who may change the system: root may; others are asked before sudo is used, and nobody is asked where nobody reads.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Leave to run commands as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// The user said yes to sudo.
    Sudo,
}

impl Privilege {
    /// Obtains leave to run `commands` (shell words, shown as they are), or says how to run them by hand.
    pub(crate) fn obtain(why: &str, commands: &str) -> Result<Self> {
        if is_root() {
            return Ok(Self::Root);
        }
        if !io::stdin().is_terminal() {
            bail!("{why}, which takes root; run this, then try again: sudo {commands}");
        }
        if confirm(&format!("{why}. Run `sudo {commands}`?"))? {
            return Ok(Self::Sudo);
        }
        bail!("{why}; sudo was declined")
    }

    /// `program` as root.
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

/// Asks a question of yes or no on the terminal; anything but yes is no.
pub(crate) fn confirm(question: &str) -> Result<bool> {
    eprint!("{question} [y/N] ");
    io::stderr().flush().context("write to the terminal")?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("read the answer from the terminal")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
