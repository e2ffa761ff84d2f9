//! Builds the container image from `deploy/container/Containerfile`, as an OCI archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::dist::parts::{self, Parts, VERSION};
use crate::tools::glibc;
use crate::tools::podman::Podman;
use crate::{progress, workspace};

/// Licences of the program in the image.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// Returns the name of the image of an architecture.
pub(crate) fn name(parts: &Parts) -> String {
    format!("localhost/inferprobe:{VERSION}-{}", parts.arch.debian())
}

/// Writes the archive into `dist`; returns its path.
pub(crate) fn make(parts: &Parts, dist: &Path) -> Result<PathBuf> {
    let podman = Podman::ensure()?;
    let context = tempfile::tempdir_in(dist).context("create a folder for the image")?;
    fill(parts, &context.path().join("rootfs"))?;
    let path = dist.join(format!(
        "inferprobe-{VERSION}-{}.oci.tar",
        parts.arch.debian()
    ));
    progress::step(
        "build the image",
        podman
            .command("build")
            .args(["--quiet", "--isolation", "chroot", "--format", "oci"])
            .args(["--platform", &format!("linux/{}", parts.arch.debian())])
            .args(["--timestamp", &parts::epoch()?, "--tag", &name(parts)])
            .args([
                "--label",
                &format!("org.opencontainers.image.version={VERSION}"),
            ])
            .arg("--file")
            .arg(workspace::root().join("deploy/container/Containerfile"))
            .arg(context.path()),
    )?;
    if path.exists() {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    progress::step(
        "save the image",
        podman
            .command("save")
            .args(["--quiet", "--format", "oci-archive", "--output"])
            .arg(&path)
            .arg(name(parts)),
    )?;
    Ok(path)
}

/// Makes the file system of the image in `root`.
fn fill(parts: &Parts, root: &Path) -> Result<()> {
    let bin = root.join("usr/bin");
    let doc = root.join("usr/share/doc/inferprobe");
    // Container engines put their files into /etc. The file names the distribution of the C libraries: by it, NVIDIA's
    // runtime chooses the folder for NVML.
    let etc = root.join("etc");
    for folder in [&bin, &doc, &etc] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    glibc::add_to(root, parts.arch)?;
    let debian = Path::new("/etc/debian_version");
    if debian.is_file() {
        fs::copy(debian, etc.join("debian_version")).context("copy /etc/debian_version")?;
    }
    let mut files = vec![(parts.folder.join("inferprobe"), bin.join("inferprobe"))];
    let licences = "third-party-licences.txt";
    files.push((parts.folder.join(licences), doc.join(licences)));
    for name in LICENCES {
        files.push((workspace::root().join(name), doc.join(name)));
    }
    for (from, to) in files {
        fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
    }
    progress::check(Command::new("chmod").args(["-R", "go=rX"]).arg(root))
}
