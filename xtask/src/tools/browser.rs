//! Provides a browser and what drives it: Debian's Chromium, and Node.js with playwright-core in the build output.
//!
//! Does not depend on: what it opens.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::tools::{debian, node};

/// The browser, named like Debian's package.
const CHROMIUM: &str = "chromium";
/// The release that the test is written for.
const DRIVER: &str = "playwright-core@1.65.1";

/// A browser, and what drives it.
pub(crate) struct Browser {
    /// Chromium's program.
    pub(crate) program: PathBuf,
    /// The program that runs JavaScript.
    pub(crate) node: PathBuf,
    /// The folder of the module that drives the browser.
    pub(crate) driver: PathBuf,
}

/// Installs or fetches what is missing.
pub(crate) fn ensure() -> Result<Browser> {
    let is_there = Command::new(CHROMIUM).arg("--version").output().is_ok();
    if !is_there {
        debian::install("The page is tested in Chromium", &[CHROMIUM])?;
    }
    let (node, dir) = node::ensure("browser", &[DRIVER])?;
    Ok(Browser {
        program: "/usr/bin/chromium".into(),
        node,
        driver: dir.join("node_modules/playwright-core"),
    })
}
