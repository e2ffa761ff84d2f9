//! Provides C libraries that are not this machine's: old ones to link packages against, and those of an image.
//!
//! A program runs with the glibc that it was linked against, and with later ones. The libraries are unpacked from Debian's
//! packages, and nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::tools::apt::Apt;
use crate::workspace;

/// The oldest glibc that packages run with, and the suite of Debian that has it: also that of Ubuntu 20.04, and older than
/// that of RHEL 9.
pub(crate) const OLDEST: (u32, u32) = (2, 31);
const SUITE: &str = "bullseye";
/// Start of every program, and what glibc links into it.
const OBJECTS: [&str; 5] = ["Scrt1.o", "crt1.o", "crti.o", "crtn.o", "libc_nonshared.a"];
/// Shared libraries that the agent is linked with; NVML, which it loads, needs the same.
const LIBRARIES: [&str; 7] = [
    "libc.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "libm.so.6",
    "librt.so.1",
    "libutil.so.1",
    "libgcc_s.so.1",
];

/// Returns the folder in which programs of `arch` expect their dynamic loader, and its name.
fn loader(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::Amd64 => ("lib64", "ld-linux-x86-64.so.2"),
        Arch::Arm64 => ("lib", "ld-linux-aarch64.so.1"),
    }
}

/// Returns the options of the linker that link against the [`OLDEST`] glibc.
pub(crate) fn link_options(arch: Arch) -> Result<Vec<String>> {
    let dir = ensure_old(arch)?;
    let dir = dir.display();
    Ok(vec![format!("-B{dir}"), format!("-L{dir}")])
}

/// Returns a folder with what a program is linked with; unpacks it if it is missing.
///
/// The compiler has a search path of its own, which it adds to any root that it is given: so the files are in one folder,
/// which comes before that path, and the linker's script names no other.
fn ensure_old(arch: Arch) -> Result<PathBuf> {
    let (major, minor) = OLDEST;
    let home = workspace::target_dir().join(format!("tools/glibc-{major}.{minor}"));
    let dir = home.join(arch.debian());
    if dir.is_dir() {
        return Ok(dir);
    }
    let what = format!("glibc {major}.{minor}");
    let apt = Apt::prepare(&what, &[SUITE], arch, &home.join("apt").join(arch.debian()))?;
    let scratch = tempfile::tempdir_in(&home).context("create a folder for the packages")?;
    let tree = scratch.path().join("tree");
    for package in ["libc6", "libc6-dev", "libgcc-s1"] {
        apt.unpack(package, &tree)?;
    }
    let made = scratch.path().join("made");
    fs::create_dir(&made).context("create a folder for the libraries")?;
    for name in OBJECTS {
        copy_library(&tree, arch, name, &made.join(name))?;
    }
    for name in LIBRARIES {
        copy_library(&tree, arch, name, &made.join(name))?;
        let (stem, _) = name.split_once(".so").expect("it is a shared library");
        if stem != "libc" {
            fs::copy(made.join(name), made.join(format!("{stem}.so")))
                .with_context(|| format!("copy {name}"))?;
        }
    }
    let (_, name) = loader(arch);
    copy_library(&tree, arch, name, &made.join(name))?;
    let script = format!("GROUP ( libc.so.6 libc_nonshared.a AS_NEEDED ( {name} ) )\n");
    fs::write(made.join("libc.so"), script).context("write the linker's script")?;
    fs::rename(&made, &dir).with_context(|| format!("keep {}", dir.display()))?;
    Ok(dir)
}

/// Puts the C libraries of this machine's release of Debian, and their licences, into the file system `root`.
pub(crate) fn add_to(root: &Path, arch: Arch) -> Result<()> {
    let home = workspace::target_dir()
        .join("tools/image")
        .join(arch.debian());
    let tree = home.join("tree");
    if !tree.is_dir() {
        let apt = Apt::of_this_release("the C libraries of the image", arch, &home.join("apt"))?;
        let scratch = tempfile::tempdir_in(&home).context("create a folder for the packages")?;
        let unpacked = scratch.path().join("tree");
        for package in ["libc6", "libgcc-s1", "gcc-12-base"] {
            apt.unpack(package, &unpacked)?;
        }
        fs::rename(&unpacked, &tree).with_context(|| format!("keep {}", tree.display()))?;
    }
    let (loader_folder, loader) = loader(arch);
    let libraries = LIBRARIES.map(|name| (name, format!("{}/{name}", folder(arch))));
    let loader = (loader, format!("{loader_folder}/{loader}"));
    for (name, to) in libraries.into_iter().chain([loader]) {
        let to = root.join(to);
        create_parent(&to)?;
        copy_library(&tree, arch, name, &to)?;
    }
    for (package, name) in [("libc6", "libc6"), ("gcc-12-base", "libgcc-s1")] {
        let to = root.join(format!("usr/share/doc/{name}/copyright"));
        create_parent(&to)?;
        let from = tree.join(format!("usr/share/doc/{package}/copyright"));
        fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(())
}

/// The folder of libraries in a file system of Debian.
fn folder(arch: Arch) -> String {
    format!("lib/{}-linux-gnu", arch.machine())
}

/// Copies a library, followed through links, from an unpacked tree.
fn copy_library(tree: &Path, arch: Arch, name: &str, to: &Path) -> Result<()> {
    let folder = folder(arch);
    let paths = [
        tree.join(&folder).join(name),
        tree.join("usr").join(&folder).join(name),
    ];
    let from = paths.iter().find(|path| path.is_file());
    let from = from.with_context(|| format!("no {name} in {}", tree.display()))?;
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().expect("a file has a folder");
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))
}
