//! Provides podman with a store of its own in the build output, so that no image of the user's is touched.
//!
//! Does not depend on: the images.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::debian;
use crate::tools::toolchain::{Places, find_program};
use crate::workspace;

/// podman, and what it needs to run a container. The runtime is runc: others need more of the machine's cgroups.
const PACKAGES: [&str; 4] = ["podman", "runc", "conmon", "catatonit"];
const PROGRAMS: [&str; 3] = ["podman", "runc", "conmon"];

/// podman, installed, with its folders.
pub(crate) struct Podman {
    dir: PathBuf,
}

impl Podman {
    /// Installs it if it is missing.
    pub(crate) fn ensure() -> Result<Self> {
        let mut dirs = Places::from_env().bin_dirs;
        dirs.extend(["/usr/sbin".into(), "/sbin".into()]);
        let lacks = |name: &&str| find_program(&dirs, name).is_none();
        if PROGRAMS.iter().any(lacks) {
            if !debian::is_here() {
                bail!("podman, runc or conmon is not on PATH; install them");
            }
            let why = "An image is built and tested with podman";
            debian::install(why, &debian::missing(&PACKAGES)?)?;
        }
        let dir = workspace::target_dir().join("tools/podman");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Returns podman with a subcommand.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.dir.join("store"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(["--events-backend", "file", "--runtime", "runc"])
            .arg(subcommand);
        command
    }
}
