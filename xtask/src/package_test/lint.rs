//! Checks the packages without installing them on a system: lintian, systemd's own checks, rpm in a folder.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::dist::parts::VERSION;
use crate::package_test::packages::Packages;
use crate::package_test::skip::{need, need_root};
use crate::progress;
use crate::tools::package_tools;

/// Runs all checks.
pub(crate) fn test(packages: &Packages) -> Result<()> {
    // rpm changes its root folder.
    need_root()?;
    need(package_tools::install_checkers())?;
    let [deb, rpm, tarball] = packages.get()?;
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
