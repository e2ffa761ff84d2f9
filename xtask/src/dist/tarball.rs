//! Packs the tarball, for hosts without a package manager: program, pages, unit and configuration in one folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::dist::parts::{self, Parts, VERSION};
use crate::{progress, workspace};

/// Files of the repository that go along, and their names in the tarball.
const FILES: [(&str, &str); 6] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("deploy/systemd/inferprobe.service", "inferprobe.service"),
    ("deploy/systemd/inferprobe.toml", "inferprobe.toml"),
];
/// What is taken from the folder of the parts.
const PARTS: [&str; 4] = [
    "inferprobe",
    "man",
    "completions",
    "third-party-licences.txt",
];

/// Writes the tarball into `dist`; returns its path.
pub(crate) fn make(parts: &Parts, dist: &Path) -> Result<PathBuf> {
    let name = format!("inferprobe-{VERSION}-{}-linux-gnu", parts.arch.machine());
    let scratch = tempfile::tempdir_in(dist).context("create a folder for the tarball")?;
    let folder = scratch.path().join(&name);
    fs::create_dir(&folder).context("create the tarball's folder")?;
    for (from, to) in FILES {
        let from = workspace::root().join(from);
        fs::copy(&from, folder.join(to)).with_context(|| format!("copy {}", from.display()))?;
    }
    progress::check(
        Command::new("cp")
            .arg("-r")
            .args(PARTS.map(|part| parts.folder.join(part)))
            .arg(&folder),
    )?;
    let path = dist.join(format!("{name}.tar.gz"));
    progress::step(
        "make the tarball",
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{}", parts::epoch()?))
            .args(["--mode=go=rX", "-I", "gzip --best --no-name", "-cf"])
            .arg(&path)
            .arg("-C")
            .arg(scratch.path())
            .arg(&name),
    )?;
    Ok(path)
}
