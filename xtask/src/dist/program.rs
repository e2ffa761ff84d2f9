//! Builds the program that the packages contain, so that it runs with an old glibc, and checks that it does.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::dist::parts::Parts;
use crate::tools::arm64::{self, Cross};
use crate::tools::glibc;
use crate::tools::toolchain::SKIP_ENV;
use crate::{build, progress, setup, workspace};

/// Returns the folder of what is packed for `arch`.
pub(crate) fn release_folder(arch: Arch) -> PathBuf {
    folder_of(arch, "release")
}

/// Returns the folder that cargo builds programs of `arch` into with `profile`.
fn folder_of(arch: Arch, profile: &str) -> PathBuf {
    match Arch::own() == Some(arch) {
        true => workspace::target_dir().join(profile),
        false => arm64::folder_of(profile),
    }
}

/// How much the program in packages is optimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Across crates: what users install.
    Packaged,
    /// As the tests' agent, of which everything but the program itself is built already.
    Release,
}

impl Profile {
    /// The name of cargo's profile.
    fn name(self) -> &'static str {
        match self {
            Self::Packaged => "packaged",
            Self::Release => "release",
        }
    }
}

/// Builds the program without symbols into the folder of `parts`.
pub(crate) fn build(parts: &Parts, profile: Profile) -> Result<()> {
    let arch = parts.arch;
    build::check_target(arch)?;
    setup::ensure()?;
    let options = glibc::link_options(arch)?;
    let (mut cargo, strip) = match Arch::own() == Some(arch) {
        true => (workspace::cargo("rustc"), "strip"),
        false => (Cross::ensure()?.cargo("rustc"), arm64::STRIP),
    };
    // Only the program itself is linked anew: cargo passes the options behind `--` to nothing else.
    cargo
        .args([
            "--profile",
            profile.name(),
            "--package",
            "inferprobe",
            "--bin",
            "inferprobe",
        ])
        .env_remove(SKIP_ENV)
        .arg("--");
    for option in options {
        cargo.args(["-C", &format!("link-arg={option}")]);
    }
    progress::step("build the agent for packages", &mut cargo)?;
    let built = folder_of(arch, profile.name()).join("inferprobe");
    let packed = parts.folder.join("inferprobe");
    progress::check(Command::new(strip).arg("-o").arg(&packed).arg(&built))?;
    let program = fs::read(&packed).with_context(|| format!("read {}", packed.display()))?;
    let needed = newest_glibc(&program);
    let (major, minor) = glibc::OLDEST;
    ensure!(
        needed.is_some_and(|needed| needed <= glibc::OLDEST),
        "{} needs glibc {needed:?}, but packages promise {major}.{minor}",
        packed.display()
    );
    Ok(())
}

/// Returns the newest version of glibc that a program names; `None` if it names none.
fn newest_glibc(program: &[u8]) -> Option<(u32, u32)> {
    const PREFIX: &[u8] = b"GLIBC_";
    let versions = program.windows(PREFIX.len()).enumerate();
    let versions = versions.filter(|(_, window)| *window == PREFIX);
    versions
        .filter_map(|(at, _)| {
            let rest = program.get(at + PREFIX.len()..)?;
            let end = rest
                .iter()
                .position(|byte| !matches!(byte, b'0'..=b'9' | b'.'))?;
            let mut numbers = std::str::from_utf8(&rest[..end]).ok()?.split('.');
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_found_by_number() {
        let program = b"\x7fELF\0GLIBC_2.9\0GLIBC_2.31\0GLIBC_2.2.5\0GLIBC_PRIVATE\0GLIBC_2.4";
        assert_eq!(newest_glibc(program), Some((2, 31)));
        assert_eq!(newest_glibc(b"GLIBC_"), None);
    }
}
