//! Provides a browser and what drives it: Debian's Chromium and Node.js, and playwright-core in the build output.
//!
//! Does not depend on: what it opens.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::tools::{debian, python};
use crate::{progress, workspace};

/// Programs that are needed, and Debian's packages that have them.
const PROGRAMS: [(&str, &str); 3] = [("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")];
/// The release that the test is written for.
const DRIVER: &str = "playwright-core@1.65.1";

/// A browser, and the module that drives it.
pub(crate) struct Browser {
    /// Chromium's program.
    pub(crate) program: PathBuf,
    /// The module's folder.
    pub(crate) driver: PathBuf,
}

/// Installs or fetches what is missing.
pub(crate) fn ensure() -> Result<Browser> {
    let missing = PROGRAMS.iter().filter(|(program, _)| !runs(program));
    let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        debian::install("The page is tested in Chromium", &missing)?;
    }
    let dir = workspace::target_dir().join("tools/browser");
    python::once(&dir, &[DRIVER], || {
        progress::step(
            "fetch playwright-core",
            Command::new("npm")
                .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
                .arg(&dir)
                .arg(DRIVER),
        )
    })?;
    Ok(Browser {
        program: "/usr/bin/chromium".into(),
        driver: dir.join("node_modules/playwright-core"),
    })
}

/// Whether a program can be started: Node.js may come from elsewhere than Debian.
fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
