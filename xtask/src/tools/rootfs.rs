//! Provides a small Debian with systemd, in the build output: what a virtual machine installs packages on.
//!
//! Does not depend on: the packages.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::privilege::Privilege;
use crate::tools::apt;
use crate::tools::archives::Archives;
use crate::tools::debian;
use crate::{progress, workspace};

/// What is installed beside the essential packages.
const INCLUDED: &str = "systemd,systemd-sysv,dbus,curl,rpm";
/// Folders that a machine does not need.
const DROPPED: [&str; 10] = [
    "usr/lib/file",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl",
    "usr/share/zoneinfo",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Returns its folder; makes it if it is missing. Needs root.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("tools/rootfs");
    if dir.is_dir() {
        return Ok(dir);
    }
    if !debian::is_here() {
        bail!("a Debian to install packages on can be made only on Debian");
    }
    let why = "Packages are tested on a small Debian";
    let missing = debian::missing(&["debootstrap"])?;
    if !missing.is_empty() {
        debian::install(why, &missing)?;
    }
    let release = apt::release()?;
    let archives = Archives::of_this_machine()?;
    let address = archives.of_suite(&release).context("no archive")?;
    let made = workspace::target_dir().join("tools/rootfs.made");
    if made.exists() {
        fs::remove_dir_all(&made).with_context(|| format!("clear {}", made.display()))?;
    }
    let included = format!("--include={INCLUDED}");
    let mut command = Privilege::obtain(why, "debootstrap")?.command("debootstrap");
    command
        .args(["--variant=minbase", &included, &release])
        .arg(&made)
        .arg(address)
        .stdout(std::process::Stdio::null());
    progress::step("make a small Debian", &mut command)?;
    for folder in DROPPED {
        let path = made.join(folder);
        progress::check(Command::new("rm").arg("-rf").arg(path))?;
    }
    fs::rename(&made, &dir).with_context(|| format!("keep {}", dir.display()))?;
    Ok(dir)
}
