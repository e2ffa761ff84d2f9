//! Lists missing packages of Debian and its derivatives, installs packages, and unpacks packages without installing them.
//!
//! Does not depend on: what the packages are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::privilege::Privilege;
use crate::progress;

/// Whether this system installs packages with apt-get.
pub(crate) fn is_here() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| is_derivative(&text))
}

/// Returns those of `packages` that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let (listed, _) = progress::output(
        Command::new("dpkg-query")
            .args(["-W", "-f", "${Package} ${db:Status-Status}\\n"])
            .args(packages),
    )?;
    Ok(packages
        .iter()
        .copied()
        .filter(|package| !is_installed(&listed, package))
        .collect())
}

/// Installs `packages`; if that needs sudo, asks first, with the reason `why`. Removes no other package.
pub(crate) fn install(why: &str, packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    let privilege = Privilege::obtain(
        why,
        &format!("apt-get install --no-install-recommends {names}"),
    )?;
    let mut updated = false;
    if !can_install(packages)?.is_empty() {
        update(privilege)?;
        updated = true;
        let refusal = can_install(packages)?;
        if !refusal.is_empty() {
            bail!("apt-get cannot install {names}: {refusal}");
        }
    }
    let install = || {
        progress::step(
            "install packages",
            apt_get(privilege)
                .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
                .args(packages),
        )
    };
    match install() {
        // An outdated list of packages names files that the mirror has replaced.
        Err(_) if !updated => {
            update(privilege)?;
            install()
        }
        done => done,
    }
}

/// Returns what apt-get would install for `packages`, these included, even if it had to remove others.
pub(crate) fn would_install(packages: &[&str]) -> Result<Vec<String>> {
    let output = simulate(packages, &[])?;
    let refusal = refusal(&output);
    if !refusal.is_empty() {
        bail!("apt-get finds no way to install them: {refusal}");
    }
    Ok(installs(&String::from_utf8_lossy(&output.stdout)))
}

/// Unpacks the newest `packages` into `dir` without installing them, and without their dependencies.
pub(crate) fn unpack(packages: &[&str], dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let download = || {
        progress::step(
            "download packages",
            Command::new("apt-get")
                .args(["download", "-qq", "-o", "APT::Sandbox::User=root"])
                .args(packages)
                .current_dir(dir)
                .stdin(Stdio::null()),
        )
    };
    if download().is_err() {
        update(Privilege::obtain(
            &format!("apt-get has no current list with {}", packages.join(" ")),
            "apt-get update",
        )?)?;
        if download().is_err() {
            bail!("`apt-get download` failed, as shown above");
        }
    }
    let archives: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| format!("list {}", dir.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .collect();
    if archives.len() != packages.len() {
        bail!(
            "apt-get left {} packages of {} in {}",
            archives.len(),
            packages.len(),
            dir.display()
        );
    }
    for archive in archives {
        progress::check(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(dir))?;
        fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
    }
    Ok(())
}

fn update(privilege: Privilege) -> Result<()> {
    progress::step(
        "update the list of packages",
        apt_get(privilege).arg("update"),
    )
}

fn apt_get(privilege: Privilege) -> Command {
    let mut command = privilege.command("env");
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .stdin(Stdio::null());
    command
}

/// Returns why apt-get would not install `packages`, in its own words; empty if it would.
fn can_install(packages: &[&str]) -> Result<String> {
    Ok(refusal(&simulate(packages, &["--no-remove"])?))
}

fn simulate(packages: &[&str], options: &[&str]) -> Result<Output> {
    Command::new("apt-get")
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(options)
        .args(packages)
        .stdin(Stdio::null())
        .output()
        .context("start `apt-get`")
}

/// Returns apt-get's own words for why it failed; empty if it did not.
fn refusal(output: &Output) -> String {
    if output.status.success() {
        return String::new();
    }
    let errors: Vec<String> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| line.strip_prefix("E: "))
        .map(|line| line.trim_end_matches('.').to_owned())
        .collect();
    if errors.is_empty() {
        "it gives no reason".to_owned()
    } else {
        errors.join("; ")
    }
}

/// Reads the packages in apt-get's lines `Inst NAME [OLD VERSION] (VERSION ...)`.
fn installs(simulated: &str) -> Vec<String> {
    simulated
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn is_installed(listed: &str, package: &str) -> bool {
    listed
        .lines()
        .any(|line| line.split_once(' ') == Some((package, "installed")))
}

fn is_derivative(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace())
        .any(|id| id == "debian" || id == "ubuntu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_of_debian_are_recognised() {
        for (text, expected) in [
            ("ID=debian\nVERSION_ID=\"12\"\n", true),
            ("NAME=Mint\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", true),
            ("ID=\"ubuntu\"\n", true),
            ("ID=fedora\nVARIANT_ID=debian\n", false),
            ("", false),
        ] {
            assert_eq!(is_derivative(text), expected, "{text:?}");
        }
    }

    #[test]
    fn simulated_installation_names_only_what_is_installed() {
        let simulated = "Reading package lists...\n\
            The following packages will be REMOVED:\n  qemu-utils\n\
            Remv qemu-utils [1:10.0.2+ds-2+deb13u1~bpo12+1]\n\
            Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n\
            Inst libusb-1.0-0 [2:1.0.25-1] (2:1.0.26-1 Debian:12.15/oldstable [amd64]) []\n\
            Inst qemu-system-x86 (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])\n\
            Conf libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(
            installs(simulated),
            ["libfdt1", "libusb-1.0-0", "qemu-system-x86"]
        );
        assert_eq!(installs(""), [""; 0]);
    }

    #[test]
    fn a_removed_or_longer_named_package_is_not_installed() {
        let listed = "zlib1g-dev installed\nrustc-web config-files\ncargo-web-doc installed\n";
        assert!(is_installed(listed, "zlib1g-dev"));
        assert!(!is_installed(listed, "rustc-web"));
        assert!(!is_installed(listed, "cargo-web"));
    }
}
