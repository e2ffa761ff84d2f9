//! Checks the packages without installing them on a system: lintian, systemd's own checks, rpm in a folder.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::arch::Arch;
use crate::dist::parts::VERSION;
use crate::dist::{self, Kind};
use crate::package_test::skip::{need, need_root, need_tools};
use crate::progress;
use crate::tools::debian;

const PACKAGES: [&str; 4] = ["lintian", "mandoc", "rpm", "systemd"];

/// Installs what checks the packages.
pub(crate) fn install() -> Result<()> {
    let missing = debian::missing(&PACKAGES)?;
    if missing.is_empty() {
        return Ok(());
    }
    debian::install("The packages are checked with lintian", &missing)
}

/// Runs all checks.
pub(crate) fn test() -> Result<()> {
    // rpm changes its root folder.
    need_root()?;
    need(install())?;
    need_tools()?;
    let made = dist::make(&[Kind::Deb, Kind::Rpm, Kind::Tarball], Arch::Amd64)?;
    let [deb, rpm, tarball] = &made[..] else {
        unreachable!("one path for each kind")
    };
    progress::step(
        "check the Debian package",
        Command::new("lintian")
            .args(["--fail-on", "error,warning", "--allow-root"])
            .arg(deb),
    )?;
    let root = tempfile::tempdir()?;
    progress::step(
        "unpack the RPM package",
        Command::new("rpm")
            .arg("--root")
            .arg(root.path())
            .args(["--force-debian", "--nodeps", "--noscripts", "-i"])
            .arg(rpm),
    )?;
    progress::check(Command::new("rpm").arg("--root").arg(root.path()).args([
        "-V",
        "--nodeps",
        "inferprobe",
    ]))?;
    let program = root.path().join("usr/bin/inferprobe");
    let (version, _) = progress::output(Command::new(&program).arg("--version"))?;
    ensure!(
        version.trim() == format!("inferprobe {VERSION}"),
        "{version}"
    );
    let unit = root
        .path()
        .join("usr/lib/systemd/system/inferprobe.service");
    let (score, done) = progress::output(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=26"])
            .arg(&unit),
    )?;
    let last = score.lines().last().unwrap_or_default();
    ensure!(done, "exposure is above 2.6: {last}");
    println!("{last}");
    let pages = root.path().join("usr/share/man/man1");
    for page in std::fs::read_dir(pages)? {
        // Warnings are about style; an error is a page that cannot be read.
        let mut mandoc = Command::new("mandoc");
        mandoc.args(["-T", "lint", "-W", "error"]).arg(page?.path());
        let (text, done) = progress::output(&mut mandoc)?;
        ensure!(done, "{text}");
    }
    let completions = root
        .path()
        .join("usr/share/bash-completion/completions/inferprobe");
    progress::check(Command::new("bash").arg("-n").arg(completions))?;
    progress::check(
        Command::new("sha256sum")
            .args(["--check", "--quiet", "SHA256SUMS"])
            .current_dir(tarball.parent().unwrap_or(tarball)),
    )
}
