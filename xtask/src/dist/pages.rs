//! Writes man pages and shell completions, from the declaration of the command line.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::dist::parts::{self, Parts};

/// The agent's command line, of which only the declaration is used.
#[path = "../../../agent/src/cli.rs"]
#[expect(
    unreachable_pub,
    reason = "the file is part of the agent's library too"
)]
mod cli;

/// The name of the program.
const NAME: &str = "inferprobe";

/// Writes them into the folders `man` and `completions` of `parts`.
pub(crate) fn write(parts: &Parts) -> Result<()> {
    let man = clear(parts.folder.join("man"))?;
    let plain = clear(parts.folder.join("man.plain"))?;
    clap_mangen::generate_to(cli::Cli::command(), &plain).context("write the man pages")?;
    for entry in fs::read_dir(&plain).context("list the man pages")? {
        let path = entry.context("list the man pages")?.path();
        let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        parts::gzip(&content, &man.join(format!("{name}.gz")))?;
    }
    let completions = clear(parts.folder.join("completions"))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let path = clap_complete::generate_to(shell, &mut cli::Cli::command(), NAME, &completions)
            .context("write the completions")?;
        // Debian's name for all programs of a package.
        if shell == Shell::Bash {
            fs::rename(&path, completions.join(format!("{NAME}.bash")))
                .context("name the completions of bash")?;
        }
    }
    Ok(())
}

/// Makes an empty folder.
fn clear(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("clear {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}
