//! Checks the repository without running it: format, import cycles, words, pages of documentation, clippy's lints.

mod docs;
mod imports;
mod markdown;
mod prose;
mod words;

use anyhow::{Result, bail};

use crate::tools::toolchain::SKIP_ENV;
use crate::{progress, workspace};

/// Runs every check, the quick ones first; a warning is an error.
pub(crate) fn run() -> Result<()> {
    progress::step(
        "check the format",
        workspace::cargo("fmt").args(["--all", "--check"]),
    )?;
    let repository = workspace::root();
    let mut failed = Vec::new();
    for (what, findings) in [
        ("import cycles", imports::cycles(repository)?),
        ("words", prose::findings(repository)?),
        ("documentation", docs::findings(repository)?),
    ] {
        if !findings.is_empty() {
            failed.push(format!("{what}: {}", findings.len()));
            eprintln!("==> {what}:\n{}", findings.join("\n"));
        }
    }
    if !failed.is_empty() {
        bail!("found {}", failed.join(", "));
    }
    progress::step(
        "check the lints",
        workspace::cargo("clippy")
            .args(["--workspace", "--all-targets", "--", "--deny", "warnings"])
            .env(SKIP_ENV, "1"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a check returns that finds nothing.
    const NONE: [String; 0] = [];

    #[test]
    fn product_code_has_no_import_cycles() {
        assert_eq!(imports::cycles(workspace::root()).unwrap(), NONE);
    }

    #[test]
    fn docs_and_messages_have_no_avoided_words() {
        assert_eq!(prose::findings(workspace::root()).unwrap(), NONE);
    }

    #[test]
    fn docs_are_short_and_their_links_and_paths_resolve() {
        assert_eq!(docs::findings(workspace::root()).unwrap(), NONE);
    }
}
