//! Finds the programs of virtual machines: on PATH, or unpacked from Debian's packages into the build output.
//!
//! Unpacking is for a machine whose own packages conflict with the emulator's: nothing is installed or removed there.
//! Does not depend on: how a virtual machine is started.

use std::env;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::arch::Arch;
use crate::tools::debian;
use crate::tools::toolchain::{Places, find_program};
use crate::{progress, workspace};

/// Folders of programs in an unpacked tree.
const PROGRAM_DIRS: [&str; 2] = ["usr/bin", "bin"];
/// Folders of libraries in an unpacked tree.
const LIBRARY_DIRS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// A program that was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// The unpacked tree that contains it; `None` if it is installed.
    tree: Option<PathBuf>,
}

impl Program {
    /// Returns the variable that the program needs in its environment to find its libraries.
    pub(crate) fn variable(&self) -> Option<(&'static str, OsString)> {
        let tree = self.tree.as_ref()?;
        let dirs = LIBRARY_DIRS.map(|dir| tree.join(dir));
        // A colon in the path cannot be quoted; the program then says which library it lacks.
        Some(("LD_LIBRARY_PATH", env::join_paths(dirs).ok()?))
    }
}

impl Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.tree {
            Some(_) => f.write_str(" (unpacked from Debian's packages, not installed)"),
            None => Ok(()),
        }
    }
}

/// Finds `name`, which virtual machines of `arch` need; an installed program comes first.
pub(crate) fn find(name: &str, arch: Arch) -> Result<Program> {
    let tree = tree_of(arch);
    find_in(&Places::from_env().bin_dirs, &tree, name)
        .with_context(|| format!("no {name} on PATH or in {}", tree.display()))
}

fn find_in(dirs: &[PathBuf], tree: &Path, name: &str) -> Option<Program> {
    let installed = find_program(dirs, name).map(|path| Program { path, tree: None });
    installed.or_else(|| {
        let path = find_program(&PROGRAM_DIRS.map(|dir| tree.join(dir)), name)?;
        Some(Program {
            path,
            tree: Some(tree.to_owned()),
        })
    })
}

/// Unpacks `packages` and what they depend on, and checks that `emulator` starts from there or from PATH.
pub(crate) fn unpack(packages: &[&str], emulator: &str, arch: Arch) -> Result<()> {
    let tree = tree_of(arch);
    let parent = workspace::target_dir().join("tools/qemu");
    fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
    let scratch = tempfile::tempdir_in(&parent).context("create a folder for the packages")?;
    let unpacked = scratch.path().join("tree");
    let all = debian::would_install(packages)?;
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    debian::unpack(&all, &unpacked)?;
    let program = find_in(&Places::from_env().bin_dirs, &unpacked, emulator)
        .with_context(|| format!("no package contains {emulator}"))?;
    let (_, starts) = progress::output(
        Command::new(&program.path)
            .envs(program.variable())
            .arg("--version"),
    )?;
    ensure!(starts, "{emulator} does not start from there");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("clear {}", tree.display()))?;
    }
    fs::rename(&unpacked, &tree).with_context(|| format!("keep {}", tree.display()))
}

/// Returns the folder that the programs for `arch` are unpacked into.
pub(crate) fn tree_of(arch: Arch) -> PathBuf {
    workspace::target_dir()
        .join("tools/qemu")
        .join(arch.debian())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_program_comes_before_an_unpacked_one() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, tree) = (dir.path().join("bin"), dir.path().join("tree"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(tree.join("bin")).unwrap();
        let find = || find_in(std::slice::from_ref(&bin), &tree, "busybox");
        assert_eq!(find(), None);

        fs::write(tree.join("bin/busybox"), "").unwrap();
        let unpacked = find().unwrap();
        assert_eq!(unpacked.path, tree.join("bin/busybox"));
        let (name, value) = unpacked.variable().unwrap();
        assert_eq!(name, "LD_LIBRARY_PATH");
        assert_eq!(
            env::split_paths(&value).collect::<Vec<_>>(),
            LIBRARY_DIRS.map(|dir| tree.join(dir))
        );

        fs::write(bin.join("busybox"), "").unwrap();
        let installed = find().unwrap();
        assert_eq!(installed.path, bin.join("busybox"));
        assert_eq!(installed.variable(), None);
    }
}
