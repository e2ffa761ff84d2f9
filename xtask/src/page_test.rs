//! Opens the page of a real agent in Chromium, with real servers under load: checks what it shows, or takes its picture.
//!
//! `tests/page/test.mjs` starts the servers and drives the browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::toolchain::SKIP_ENV;
use crate::tools::{browser, python_servers};
use crate::{privilege, progress, setup, workspace};

/// Where the picture of the page is.
const PICTURE: &str = "docs/images/page.png";

/// Checks the page.
pub(crate) fn test() -> Result<()> {
    let pictures = workspace::target_dir().join("page-test");
    drive("test the page", &pictures, None)?;
    eprintln!("==> pictures of the page: {}", pictures.display());
    Ok(())
}

/// Takes the picture of the page that the documentation shows.
pub(crate) fn picture() -> Result<()> {
    let folder = workspace::target_dir().join("page-test");
    let picture = workspace::root().join(PICTURE);
    drive("take the picture of the page", &folder, Some(&picture))
}

fn drive(what: &str, folder: &Path, picture: Option<&Path>) -> Result<()> {
    if !privilege::is_root() {
        bail!("the agent attaches probes to the kernel: run this as root");
    }
    let browser = browser::ensure()?;
    let python = python_servers::ensure()?.join("venv/bin/python");
    let agent = build()?;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut command = Command::new("node");
    command
        .arg(workspace::root().join("tests/page/test.mjs"))
        .args([&agent, &python, &browser.driver, &browser.program])
        .arg(folder)
        .args(picture);
    progress::step(what, &mut command)
}

/// Builds the agent that is tested.
fn build() -> Result<PathBuf> {
    setup::ensure()?;
    progress::step(
        "build the agent",
        workspace::cargo("build")
            .args(["--package", "inferprobe"])
            .env_remove(SKIP_ENV),
    )?;
    Ok(workspace::target_dir().join("debug/inferprobe"))
}
