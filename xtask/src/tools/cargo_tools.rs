//! Builds cargo's subcommands that make packages, once, into the build output.
//!
//! Does not depend on: what they are run for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{progress, workspace};

/// A subcommand, at a fixed version.
pub(crate) struct CargoTool {
    name: &'static str,
    version: &'static str,
}

/// Makes Debian packages.
pub(crate) const CARGO_DEB: CargoTool = CargoTool {
    name: "cargo-deb",
    version: "3.8.0",
};
/// Makes RPM packages.
pub(crate) const CARGO_GENERATE_RPM: CargoTool = CargoTool {
    name: "cargo-generate-rpm",
    version: "0.21.1",
};
/// Lists the parts of a program, with their licences (SBOM).
pub(crate) const CARGO_CYCLONEDX: CargoTool = CargoTool {
    name: "cargo-cyclonedx",
    version: "0.5.9",
};

/// The build matters more than the speed of a tool that runs for seconds.
const QUICK_BUILD: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
];

impl CargoTool {
    /// Returns the command, started in the repository's root; builds the tool if it is missing.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.ensure()?);
        command
            .current_dir(workspace::root())
            .env("CARGO_TARGET_DIR", workspace::target_dir());
        Ok(command)
    }

    /// Returns the path of the program; builds it if it is missing.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let Self { name, version } = self;
        let home = workspace::target_dir().join("tools/cargo").join(name);
        let program = home.join("bin").join(name);
        let made = home.join("version");
        if program.is_file() && fs::read_to_string(&made).is_ok_and(|text| text == *version) {
            return Ok(program);
        }
        progress::step(
            &format!("build {name}"),
            workspace::cargo("install")
                .args(["--quiet", "--locked", "--force", "--root"])
                .arg(&home)
                .arg(format!("{name}@{version}"))
                .env(
                    "CARGO_TARGET_DIR",
                    workspace::target_dir().join("tools/cargo/build"),
                )
                .envs(QUICK_BUILD),
        )?;
        fs::write(&made, version).with_context(|| format!("write {}", made.display()))?;
        Ok(program)
    }
}
