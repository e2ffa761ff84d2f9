//! Makes the packages for arm64, checks for what they say they are, and runs their program under qemu's user emulation.
//!
//! Emulation of a process loads no eBPF programs: `cargo xtask kernel-test --arch arm64` does, in a virtual machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::dist::parts::VERSION;
use crate::dist::program::{self, Profile};
use crate::dist::{self, Kind};
use crate::package_test::skip::{need, need_tools};
use crate::progress;
use crate::tools::arm64::Cross;
use crate::tools::podman::Podman;
use crate::tools::{debian, glibc};

const EMULATOR: &str = "qemu-aarch64";
const PACKAGES: [&str; 2] = ["qemu-user", "rpm"];
/// What is run, and a part of what it prints.
const RUNS: [(&[&str], &str); 6] = [
    (&["--version"], VERSION),
    (&["--help"], "Measure every inference request"),
    (&["top", "--demo", "--once"], "REQ/S"),
    (&["assets"], "prometheus"),
    (&["assets", "unit"], "ExecStart=/usr/bin/inferprobe"),
    (&["doctor"], "aarch64"),
];

/// Runs all checks.
pub(crate) fn test(profile: Profile) -> Result<()> {
    need_tools()?;
    need(Cross::ensure())?;
    let podman = need(Podman::ensure())?;
    let missing = debian::missing(&PACKAGES)?;
    if !missing.is_empty() {
        let why = "Programs for arm64 are tested under emulation";
        need(debian::install(why, &missing))?;
    }
    let kinds = [Kind::Deb, Kind::Rpm, Kind::Tarball, Kind::Image];
    let made = dist::make(&kinds, Arch::Arm64, profile)?;
    let scratch = tempfile::tempdir().context("create a folder for the packages")?;
    let unpacked = |name: &str| -> Result<_> {
        let folder = scratch.path().join(name);
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    };
    let built = program::release_folder(Arch::Arm64).join("package/inferprobe");
    let built = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let check_program = |path: &Path| -> Result<()> {
        let packed = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        ensure!(packed == built, "{} is another program", path.display());
        Ok(())
    };

    says(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(&made[0])
            .arg("Architecture"),
        "arm64",
    )?;
    let folder = unpacked("deb")?;
    progress::check(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&made[0])
            .arg(&folder),
    )?;
    check_program(&folder.join("usr/bin/inferprobe"))?;

    let mut query = Command::new("rpm");
    query.args(["--query", "--package", "--queryformat", "%{ARCH}"]);
    says(query.arg(&made[1]), "aarch64")?;

    let folder = unpacked("tarball")?;
    progress::check(
        Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(&made[2])
            .arg("--strip-components=1")
            .arg("--directory")
            .arg(&folder),
    )?;
    let program = folder.join("inferprobe");
    check_program(&program)?;

    let image = format!("localhost/inferprobe:{VERSION}-arm64");
    says(
        podman
            .command("image")
            .args(["inspect", "--format", "{{.Architecture}}", &image]),
        "arm64",
    )?;

    // The libraries of the image are those of a small system for arm64.
    let root = unpacked("root")?;
    glibc::add_to(&root, Arch::Arm64)?;
    for (args, expected) in RUNS {
        let mut emulated = Command::new(EMULATOR);
        emulated.arg("-L").arg(&root).arg(&program).args(args);
        let output = emulated.output().context("start qemu-aarch64")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        ensure!(text.contains(expected), "{args:?}: no {expected:?}: {text}");
        println!("ok: arm64: inferprobe {}", args.join(" "));
    }
    Ok(())
}

/// Checks that a command prints one word.
fn says(command: &mut Command, expected: &str) -> Result<()> {
    let (text, done) = progress::output(command)?;
    ensure!(
        done && text.trim() == expected,
        "`{}` says {text:?}, not {expected}",
        progress::shown(command)
    );
    println!("ok: arm64: {}: {expected}", progress::shown(command));
    Ok(())
}
