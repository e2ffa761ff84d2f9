//! Opens the page of a real agent in Chromium, with real servers under load: checks what it shows, measures what that
//! costs, or takes its picture.
//!
//! The scripts in `tests/page` start the servers and drive the browser.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;
use crate::tools::{browser, python_servers};
use crate::{build, privilege, progress, workspace};

/// Where the picture of the page is.
const PICTURE: &str = "docs/images/page.png";

/// Checks the page, or measures what being watched costs the agent.
pub(crate) fn test(is_watched: bool) -> Result<()> {
    let folder = workspace::target_dir().join("page-test");
    if is_watched {
        return drive("measure while watched", "watched.mjs", &folder, None);
    }
    drive("test the page", "test.mjs", &folder, None)?;
    eprintln!("==> pictures of the page: {}", folder.display());
    Ok(())
}

/// Takes the picture of the page that the documentation shows.
pub(crate) fn picture() -> Result<()> {
    let folder = workspace::target_dir().join("page-test");
    let picture = workspace::root().join(PICTURE);
    drive(
        "take the picture of the page",
        "test.mjs",
        &folder,
        Some(&picture),
    )
}

fn drive(what: &str, script: &str, folder: &Path, picture: Option<&Path>) -> Result<()> {
    if !privilege::is_root() {
        bail!("the agent attaches probes to the kernel: run this as root");
    }
    let browser = browser::ensure()?;
    let python = python_servers::ensure()?.join("venv/bin/python");
    let agent = build::tested_agent(Arch::own().unwrap_or_default())?;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut command = Command::new(&browser.node);
    command
        .arg(workspace::root().join("tests/page").join(script))
        .args([&agent, &python, &browser.driver, &browser.program])
        .arg(folder)
        .args(picture);
    progress::step(what, &mut command)
}
