//! Builds for arm64 on another machine: provides a linker and the compiler's libraries, and passes both to cargo.
//!
//! If rustup's toolchain has no libraries for arm64, they come from the Debian package for arm64 machines, which is
//! unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::arch::Arch;
use crate::tools::apt::Apt;
use crate::tools::debian;
use crate::tools::toolchain::{LINKED_NAME, Places, SKIP_ENV, find_program};
use crate::{progress, workspace};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Removes debug symbols from an arm64 program; comes with the linker.
pub(crate) const STRIP: &str = "aarch64-linux-gnu-strip";
/// The linker, and the packages that contain it and the C libraries.
const LINKER: &str = "aarch64-linux-gnu-gcc";
const PACKAGES: [&str; 2] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
/// Debian's compiler, and the package with its libraries, which has the same version on every architecture.
const COMPILER: &str = "rustc-web";
const LIBRARIES: &str = "libstd-rust-web-dev";
/// The folder of C libraries in Debian's cross compiler.
const C_LIBRARIES_DIR: &str = "/usr/aarch64-linux-gnu/lib";
/// The dynamic loader and the libraries that the agent and its tests are linked with.
const C_LIBRARIES: [&str; 4] = [
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
];
/// `EM_AARCH64` (elf.h), and its offset in a program.
const MACHINE: [u8; 2] = [183, 0];
const MACHINE_AT: usize = 18;
const BY_HAND: &str = "run `rustup target add aarch64-unknown-linux-gnu` and install a cross linker, aarch64-linux-gnu-gcc";

/// A compiler that builds for arm64.
#[derive(Debug)]
pub(crate) enum Cross {
    /// rustup's toolchain, which has the libraries.
    Rustup,
    /// Debian's compiler, with its libraries unpacked.
    Debian { sysroot: PathBuf },
}

impl Cross {
    /// Finds a compiler, and installs what is missing.
    pub(crate) fn ensure() -> Result<Self> {
        if find_program(&Places::from_env().bin_dirs, LINKER).is_none() {
            if !debian::is_here() {
                bail!("cannot build for arm64: {LINKER} is not on PATH; {BY_HAND}");
            }
            let why = "Building for arm64 needs a linker";
            debian::install(why, &debian::missing(&PACKAGES)?)?;
        }
        if rustup_has_libraries() {
            return Ok(Self::Rustup);
        }
        let sysroot = debians_libraries().with_context(|| {
            format!("cannot build for arm64: no Rust libraries for it; {BY_HAND}")
        })?;
        Ok(Self::Debian { sysroot })
    }

    /// Returns cargo with a subcommand, set up for arm64, in the repository's root.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match self {
            Self::Rustup => workspace::cargo(subcommand),
            Self::Debian { sysroot } => {
                let mut command = Command::new("rustup");
                command
                    .args(["run", LINKED_NAME, "cargo", subcommand, "--config"])
                    .arg(format!(
                        "target.{TARGET}.rustflags=[{:?}]",
                        sysroot_flag(sysroot)
                    ))
                    .current_dir(workspace::root())
                    .env("CARGO_TARGET_DIR", workspace::target_dir());
                command
            }
        };
        command
            .args(["--target", TARGET])
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
        command
    }
}

/// Builds the agent; returns the path of the release binary.
pub(crate) fn build() -> Result<PathBuf> {
    progress::step(
        "build the agent for arm64",
        Cross::ensure()?
            .cargo("build")
            .args(["--release", "--package", "inferprobe"])
            .env_remove(SKIP_ENV),
    )?;
    let path = folder_of("release").join("inferprobe");
    let program = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        is_of_arm64(&program),
        "{} is not an arm64 program; check cargo's configuration for another target",
        path.display()
    );
    Ok(path)
}

/// Returns the folder of programs that cargo built with `profile`.
pub(crate) fn folder_of(profile: &str) -> PathBuf {
    workspace::target_dir().join(TARGET).join(profile)
}

/// Returns the C libraries that the built programs need: their names, and their paths here.
pub(crate) fn c_libraries() -> impl Iterator<Item = (&'static str, PathBuf)> {
    C_LIBRARIES
        .iter()
        .map(|name| (*name, Path::new(C_LIBRARIES_DIR).join(name)))
}

fn is_of_arm64(program: &[u8]) -> bool {
    program.starts_with(b"\x7fELF") && program.get(MACHINE_AT..MACHINE_AT + 2) == Some(&MACHINE)
}

fn sysroot_flag(sysroot: &Path) -> String {
    format!("--sysroot={}", sysroot.display())
}

fn rustup_has_libraries() -> bool {
    let asked = progress::output(
        Command::new("rustc")
            .args(["--print", "target-libdir", "--target", TARGET])
            .current_dir(workspace::root()),
    );
    asked.is_ok_and(|(dir, done)| done && Path::new(dir.trim()).is_dir())
}

/// Unpacks the libraries of Debian's compiler into the build output; returns their sysroot.
fn debians_libraries() -> Result<PathBuf> {
    let (version, _) =
        progress::output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", COMPILER]))?;
    if version.is_empty() {
        bail!("Debian's compiler ({COMPILER}) is not installed");
    }
    let tools = workspace::target_dir().join("tools/arm64");
    let dir = tools.join(format!("rust-{version}"));
    if !dir.is_dir() {
        let apt = Apt::of_this_release(LIBRARIES, Arch::Arm64, &tools.join("apt"))?;
        let scratch = tools.join("unpacked");
        if scratch.exists() {
            fs::remove_dir_all(&scratch).with_context(|| format!("clear {}", scratch.display()))?;
        }
        apt.unpack(&format!("{LIBRARIES}={version}"), &scratch)?;
        fs::rename(&scratch, &dir).with_context(|| format!("keep {}", dir.display()))?;
    }
    Ok(dir.join("usr"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arm64_programs_are_recognised() {
        let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\xb7\0".to_vec();
        assert!(is_of_arm64(&program));
        program[MACHINE_AT] = 62;
        assert!(!is_of_arm64(&program));
        assert!(!is_of_arm64(b"\x7fELF"));
        assert!(!is_of_arm64(&[0; 20]));
    }

    #[test]
    fn cargo_gets_target_and_libraries() {
        let sysroot = PathBuf::from("/a b/usr");
        let command = Cross::Debian { sysroot }.cargo("build");
        let shown = progress::shown(&command);
        let flags = r#"target.aarch64-unknown-linux-gnu.rustflags=["--sysroot=/a b/usr"]"#;
        let expected = format!(
            "rustup run bpf cargo build --config {flags} --target aarch64-unknown-linux-gnu"
        );
        assert_eq!(shown, expected);
    }
}
