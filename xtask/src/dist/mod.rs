//! Makes what users install, in `target/dist`: tarball, packages, image, chart, SBOM and checksums.
//!
//! `agent/Cargo.toml` has the metadata of the packages, `deploy/` the files in them.
//! Does not depend on: how the results are tested.

mod chart;
mod deb;
mod image;
mod licences;
mod pages;
pub(crate) mod parts;
pub(crate) mod program;
mod rpm;
mod sbom;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::arch::Arch;
use crate::dist::parts::Parts;
use crate::dist::program::Profile;
use crate::{progress, workspace};

/// The file of checksums.
const CHECKSUMS: &str = "SHA256SUMS";

/// Something that users install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Tarball,
    Deb,
    Rpm,
    Image,
    Chart,
    Sbom,
}

/// Makes `kinds`, all if it is empty, for `arch`; prints the paths and writes the checksums.
pub(crate) fn run(kinds: &[Kind], arch: Arch) -> Result<()> {
    let kinds = match kinds {
        [] => Kind::value_variants(),
        kinds => kinds,
    };
    for path in make(kinds, arch, Profile::Packaged)? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Makes `kinds` for `arch`; returns the path of each, in the same order, and writes the checksums.
pub(crate) fn make(kinds: &[Kind], arch: Arch, profile: Profile) -> Result<Vec<PathBuf>> {
    let dist = folder()?;
    let is_built = |kind: &Kind| !matches!(kind, Kind::Chart | Kind::Sbom);
    let parts = if kinds.iter().any(is_built) {
        Some(make_parts(arch, profile)?)
    } else {
        None
    };
    let parts = || {
        parts
            .as_ref()
            .expect("they are made for every kind with a program")
    };
    let mut made = Vec::new();
    for kind in kinds {
        made.push(match kind {
            Kind::Tarball => tarball::make(parts(), &dist)?,
            Kind::Deb => deb::make(parts(), &dist)?,
            Kind::Rpm => rpm::make(parts(), &dist)?,
            Kind::Image => image::make(parts(), &dist)?,
            Kind::Chart => chart::make(&dist)?,
            Kind::Sbom => sbom::make(arch, &dist)?,
        });
    }
    write_checksums(&dist)?;
    Ok(made)
}

/// Builds the program, and makes all that is packed with it.
fn make_parts(arch: Arch, profile: Profile) -> Result<Parts> {
    let folder = program::release_folder(arch).join("package");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let parts = Parts { arch, folder };
    program::build(&parts, profile)?;
    pages::write(&parts)?;
    licences::write(&parts)?;
    deb::write_changelog(&parts)?;
    Ok(parts)
}

/// Returns the folder of what was made, which exists.
fn folder() -> Result<PathBuf> {
    let dist = workspace::target_dir().join("dist");
    fs::create_dir_all(&dist).with_context(|| format!("create {}", dist.display()))?;
    Ok(dist)
}

/// Writes the checksum of each file in `dist`.
fn write_checksums(dist: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dist).with_context(|| format!("list {}", dist.display()))? {
        let entry = entry.context("list a folder")?;
        let name = entry.file_name();
        if entry.path().is_file() && name != CHECKSUMS {
            names.push(name);
        }
    }
    names.sort();
    let (text, done) = progress::output(Command::new("sha256sum").args(names).current_dir(dist))?;
    anyhow::ensure!(done, "`sha256sum` failed");
    fs::write(dist.join(CHECKSUMS), text).context("write the checksums")
}
