//! Installs, uses, upgrades and removes packages and tarball in a virtual machine: stock Linux 6.1, systemd, cgroup v2.
//!
//! `guest/packages` has the checks.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::arch::Arch;
use crate::dist::parts::VERSION;
use crate::package_test::packages::Packages;
use crate::package_test::skip::{need, need_root};
use crate::tools::{qemu, rootfs};
use crate::vm::{self, Clock, Ended, Machine, kernels};
use crate::{progress, workspace};

const SERIES: &str = "6.1";
const LIMIT: Duration = Duration::from_secs(1500);
/// Room for the file system twice, while the kernel unpacks it, and for the services.
const MEMORY_MIB: u32 = 2048;
/// The unit that runs the checks.
const UNIT: &str = "[Unit]\nAfter=multi-user.target\n\
    [Service]\nType=oneshot\nStandardInput=null\n\
    ExecStart=/bin/sh -c 'stty -F /dev/ttyS1 raw -echo; stty -F /dev/ttyS2 raw -echo; \
    /package-test/packages > /dev/ttyS1 2>&1; echo $? > /dev/ttyS2; systemctl poweroff --force --force'\n";
const SERVER: &str = "reference-server";

/// Runs all checks in one machine.
pub(crate) fn test(packages: &Packages) -> Result<()> {
    need_root()?;
    need(match vm::lack(Arch::Amd64) {
        None => Ok(()),
        Some(lack) => Err(anyhow::anyhow!("no virtual machines: {lack}")),
    })?;
    let kernel = need(kernels::fetch(SERIES, Arch::Amd64))?;
    let small_debian = need(rootfs::ensure())?;
    let packages = packages.get()?;
    progress::step(
        "build the server of the tests",
        workspace::cargo("build").args(["--package", "inferprobe-tests", "--bin", SERVER]),
    )?;
    let dir = tempfile::tempdir().context("create a folder for the virtual machine")?;
    let root = dir.path().join("root");
    progress::check(Command::new("cp").arg("-a").arg(&small_debian).arg(&root))?;
    fill(&root, packages)?;
    let initramfs = dir.path().join("initramfs");
    pack(&root, &initramfs)?;
    let machine = Machine {
        arch: Arch::Amd64,
        image: &kernel.image,
        initramfs: &initramfs,
        kernel_args: "systemd.log_level=notice systemd.show_status=false",
        clock: Clock::Real,
        cpus: 2,
        memory_mib: MEMORY_MIB,
        limit: LIMIT,
    };
    let mut passed = 0;
    let ended = machine.run(dir.path(), |line| {
        passed += usize::from(line.starts_with("ok: "));
        println!("{line}");
    })?;
    match ended {
        Ended::Program(0) => {
            ensure!(passed > 0, "the machine ran no check");
            Ok(())
        }
        Ended::Program(failed) => bail!("{failed} checks failed on Linux {}", kernel.release),
        Ended::Early { why, console } => {
            eprintln!("{console}");
            bail!("Linux {}: {why}", kernel.release)
        }
    }
}

/// Puts what the checks need into a file system.
fn fill(root: &Path, [deb, rpm, tarball]: [&PathBuf; 3]) -> Result<()> {
    let folder = root.join("package-test");
    fs::create_dir(&folder).context("create a folder for the checks")?;
    let new = format!("{VERSION}+1");
    make_newer(deb, &folder.join("new.deb"), &new)?;
    let script = include_str!("../../guest/packages");
    let variables = format!("OLD={VERSION}\nNEW={new}\n");
    let script = script.replacen("\ncd ", &format!("\n{variables}cd "), 1);
    for (from, name) in [
        (deb, "old.deb"),
        (rpm, "old.rpm"),
        (tarball, "old.tar.gz"),
        (&workspace::target_dir().join("debug").join(SERVER), SERVER),
    ] {
        fs::copy(from, folder.join(name)).with_context(|| format!("copy {}", from.display()))?;
    }
    let path = folder.join("packages");
    fs::write(&path, script).context("write the checks")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("make it a program")?;
    let units = root.join("etc/systemd/system");
    fs::write(units.join("package-test.service"), UNIT).context("write the unit")?;
    let wants = units.join("default.target.wants");
    fs::create_dir_all(&wants).context("create a folder of units")?;
    symlink(
        "../package-test.service",
        wants.join("package-test.service"),
    )
    .context("enable the unit")?;
    symlink("lib/systemd/systemd", root.join("init")).context("name the first process")
}

/// Makes a package with a higher version, and another configuration file, as the next release has.
fn make_newer(deb: &Path, to: &Path, version: &str) -> Result<()> {
    let scratch = tempfile::tempdir().context("create a folder for the newer package")?;
    let tree = scratch.path().join("tree");
    let tool = || Command::new("dpkg-deb");
    progress::check(tool().arg("--raw-extract").arg(deb).arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).context("read the control file")?;
    let text = text.replace(
        &format!("\nVersion: {VERSION}\n"),
        &format!("\nVersion: {version}\n"),
    );
    ensure!(
        text.contains(version),
        "the control file has no version: {text}"
    );
    fs::write(&control, text).context("write the control file")?;
    let config = tree.join("etc/inferprobe/inferprobe.toml");
    let text = fs::read_to_string(&config).context("read the configuration file")?;
    fs::write(&config, format!("{text}\n# of {version}\n")).context("change the configuration")?;
    progress::check(
        tool()
            .args(["-Zgzip", "-z1", "--root-owner-group", "--build"])
            .arg(&tree)
            .arg(to)
            .stdout(Stdio::null()),
    )
}

/// Writes a file system as an archive that a kernel boots from.
fn pack(root: &Path, to: &Path) -> Result<()> {
    let busybox = qemu::find("busybox", Arch::Amd64)?.path;
    let mut list = Command::new("find")
        .arg(".")
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("start `find`")?;
    let names = list.stdout.take().expect("it is piped");
    let archive = File::create(to).with_context(|| format!("create {}", to.display()))?;
    let status = Command::new(busybox)
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(root)
        .stdin(names)
        .stdout(archive)
        .stderr(Stdio::null())
        .status()
        .context("start `busybox cpio`")?;
    list.wait().context("wait for `find`")?;
    ensure!(status.success(), "`busybox cpio` ended with {status}");
    Ok(())
}
