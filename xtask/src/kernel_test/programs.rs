//! Builds the programs that run on each kernel, and packs them for a virtual machine.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::arch::Arch;
use crate::build::{self, AGENT_ENV};
use crate::cargo_test::targets;
use crate::kernel_test::cases::{Invocation, Options};
use crate::leftovers::ARTIFACTS_ENV;
use crate::tools::arm64::{self, Cross};
use crate::tools::qemu;
use crate::vm::initramfs::Initramfs;
use crate::vm::kernels;
use crate::{progress, workspace};

/// Programs of the tests: the one that runs by default, and the server that it starts.
const GUEST: &str = "kernel-guest";
const SERVER: &str = "reference-server";
/// The test target whose modules are suites.
const KERNEL_TARGET: &str = "kernel";
const PACKAGE: &str = "inferprobe-tests";
/// Where the guest keeps the artifacts of failed tests; `guest/init` sends them.
const GUEST_ARTIFACTS: &str = "/artifacts";

/// The programs that run on each kernel.
pub(crate) struct Programs {
    pub(crate) agent: PathBuf,
    /// The program that is started, and its name.
    pub(crate) guest: PathBuf,
    name: String,
    /// Selects tests of the program; `None` for all of them.
    pub(crate) filter: Option<String>,
    server: PathBuf,
}

impl Programs {
    pub(crate) fn build(options: &Options) -> Result<Self> {
        let arch = options.arch;
        let suite = options.suite.as_deref().map(find_suite).transpose()?;
        let agent = build::tested_agent(arch)?;
        let dir = match arch {
            Arch::Amd64 => workspace::target_dir().join("debug"),
            Arch::Arm64 => arm64::folder_of("debug"),
        };
        progress::step(
            "build the programs for each kernel",
            cargo(arch, "build")?.args(["--package", PACKAGE, "--bin", GUEST, "--bin", SERVER]),
        )?;
        let (guest, name, filter) = match suite {
            Some((target, filter)) => (build_suite(&target, arch)?, target, filter),
            None => (dir.join(GUEST), GUEST.to_owned(), None),
        };
        Ok(Self {
            agent,
            guest,
            name,
            filter,
            server: dir.join(SERVER),
        })
    }

    /// Writes what a virtual machine boots from to the file `to`.
    pub(crate) fn pack(
        &self,
        to: &Path,
        scratch: &Path,
        arch: Arch,
        modules: &[PathBuf],
        invocation: &Invocation,
    ) -> Result<()> {
        let mut initramfs = Initramfs::default();
        for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            initramfs.folder(folder);
        }
        initramfs.file("init", include_str!("../../guest/init"));
        let (busybox, strip) = match arch {
            Arch::Amd64 => (qemu::find("busybox", arch)?.path, "strip"),
            Arch::Arm64 => (kernels::busybox(arch)?, arm64::STRIP),
        };
        initramfs.program("bin/busybox", &busybox)?;
        if arch == Arch::Arm64 {
            // ldd does not list the libraries of programs for another architecture.
            for (name, path) in arm64::c_libraries() {
                let content =
                    fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                initramfs.file(&format!("lib/{name}"), content);
            }
        }
        for (name, path) in [
            ("inferprobe", &self.agent),
            (&self.name, &self.guest),
            (SERVER, &self.server),
        ] {
            let stripped = scratch.join(name);
            progress::check(
                Command::new(strip)
                    .arg("--strip-debug")
                    .arg("-o")
                    .arg(&stripped)
                    .arg(path),
            )?;
            initramfs.program(&format!("guest/{name}"), &stripped)?;
        }
        for (number, path) in modules.iter().enumerate() {
            let name = path.file_name().unwrap_or_default().display();
            let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            // The guest loads them in the order of their names.
            initramfs.file(&format!("modules/{number:02}-{name}"), content);
        }
        initramfs.file("guest/command", self.script(invocation));
        let file = File::create(to).with_context(|| format!("create {}", to.display()))?;
        initramfs
            .write(&mut BufWriter::new(file))
            .with_context(|| format!("write {}", to.display()))
    }

    /// The shell script that the guest runs.
    fn script(&self, invocation: &Invocation) -> String {
        let fixed = [
            (AGENT_ENV, "/guest/inferprobe".to_owned()),
            (ARTIFACTS_ENV, GUEST_ARTIFACTS.to_owned()),
        ];
        let variables: String = fixed
            .iter()
            .chain(&invocation.variables)
            .map(|(name, value)| format!("export {name}={value}\n"))
            .collect();
        let args = invocation.args.join(" ");
        format!("{variables}exec /guest/{} {args}\n", self.name)
    }
}

/// cargo, building for `arch`.
fn cargo(arch: Arch, subcommand: &str) -> Result<Command> {
    Ok(match arch {
        Arch::Amd64 => workspace::cargo(subcommand),
        Arch::Arm64 => Cross::ensure()?.cargo(subcommand),
    })
}

/// Returns the test target of a suite, and the filter that selects it there.
fn find_suite(suite: &str) -> Result<(String, Option<String>)> {
    let targets = targets::all()?;
    let mut of_package = targets
        .iter()
        .filter(|target| target.package == PACKAGE && target.is_integration());
    let found = of_package.find_map(|target| {
        if target.name == suite {
            Some((target.name.clone(), None))
        } else if target.name == KERNEL_TARGET && target.has_module(suite) {
            Some((target.name.clone(), Some(format!("{suite}::"))))
        } else {
            None
        }
    });
    found.with_context(|| {
        format!("--suite {suite}: no test target, and no module of the target {KERNEL_TARGET}, has that name")
    })
}

/// Builds a test target; returns the path of its program.
fn build_suite(target: &str, arch: Arch) -> Result<PathBuf> {
    let mut command = cargo(arch, "test")?;
    command.args(["--package", PACKAGE, "--no-run", "--test", target]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("start cargo")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    let path = messages.lines().find_map(executable);
    match path {
        Some(path) if output.status.success() => Ok(workspace::root().join(path)),
        _ => bail!("{messages}"),
    }
}

/// Reads `Executable tests/kernel/NAME.rs (PATH)`.
fn executable(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("Executable ")?;
    rest.split_once('(')?.1.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_test_program_is_in_cargos_messages() {
        let line = "  Executable kernel/main.rs (target/debug/deps/kernel-12ab)";
        assert_eq!(executable(line), Some("target/debug/deps/kernel-12ab"));
        assert_eq!(executable("   Compiling a v0.1.0 (/a)"), None);
    }
}
