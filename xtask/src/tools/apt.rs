//! Fetches and unpacks packages of other suites and architectures, with lists, a cache and sources apart from the machine's.
//!
//! Nothing is installed, and the machine's own lists and settings stay as they are. Does not depend on: what the packages
//! are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::progress;
use crate::tools::archives::Archives;

/// The keys that sign Debian's archives.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A folder with apt's lists, cache and sources for one architecture.
pub(crate) struct Apt {
    dir: PathBuf,
    arch: Arch,
}

impl Apt {
    /// Prepares `dir` for packages of `arch` from the suites of this machine's release; `what` is for messages.
    pub(crate) fn of_this_release(what: &str, arch: Arch, dir: &Path) -> Result<Self> {
        let release = release()?;
        let suites = ["", "-updates", "-security"].map(|part| format!("{release}{part}"));
        Self::prepare(what, &suites.each_ref().map(String::as_str), arch, dir)
    }

    /// Prepares `dir` for packages of `arch` from `suites`, and fetches their lists; skips suites that no archive has.
    /// `what` is for messages.
    pub(crate) fn prepare(what: &str, suites: &[&str], arch: Arch, dir: &Path) -> Result<Self> {
        let archives = Archives::of_this_machine()?;
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let sources: String = suites
            .iter()
            .filter_map(|suite| Some((suite, archives.of_suite(suite)?)))
            .map(|(suite, address)| {
                let arch = arch.debian();
                format!("deb [arch={arch} signed-by={KEYRING}] {address} {suite} main\n")
            })
            .collect();
        fs::write(dir.join("sources.list"), sources).context("write apt's sources")?;
        fs::write(dir.join("state/status"), "").context("write apt's status")?;
        let apt = Self {
            dir: dir.to_owned(),
            arch,
        };
        let updated = progress::step(
            &format!("look for {what}"),
            apt.command("apt-get").arg("update"),
        );
        if let Err(err) = updated {
            eprintln!("==> {err:#}: using the lists that were fetched before");
        }
        Ok(apt)
    }

    /// Returns the names of packages that begin with `prefix`.
    pub(crate) fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let (text, _) = progress::output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Downloads the newest `package` into `dir`; returns its path.
    pub(crate) fn download(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        progress::step(
            &format!("download {package}"),
            self.command("apt-get")
                .args(["download", package])
                .current_dir(dir),
        )?;
        fs::read_dir(dir)
            .with_context(|| format!("list {}", dir.display()))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
            .with_context(|| format!("{package}: apt-get left no .deb"))
    }

    /// Unpacks the newest `package` into `dir`, without installing it.
    pub(crate) fn unpack(&self, package: &str, dir: &Path) -> Result<()> {
        let scratch = tempfile::tempdir_in(&self.dir).context("create a folder for the package")?;
        let archive = self.download(package, scratch.path())?;
        progress::check(Command::new("dpkg-deb").arg("-x").arg(archive).arg(dir))
    }

    fn command(&self, program: &str) -> Command {
        let (dir, arch) = (self.dir.display(), self.arch.debian());
        let mut command = Command::new(program);
        command.arg("-qq").stdin(Stdio::null());
        for option in [
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            format!("Dir::State={dir}/state"),
            format!("Dir::State::status={dir}/state/status"),
            format!("Dir::Cache={dir}/cache"),
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures={arch}"),
            // The user as which apt fetches cannot enter a home folder.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// Returns the name of this machine's release.
pub(crate) fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let release = codename(&text).context("/etc/os-release names no Debian release")?;
    Ok(release.to_owned())
}

/// Returns the release's name in a text like /etc/os-release.
fn codename(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_with_quotes_or_without() {
        for text in [
            "ID=debian\nVERSION_CODENAME=trixie\n",
            "VERSION_CODENAME=\"trixie\"",
        ] {
            assert_eq!(codename(text), Some("trixie"));
        }
        assert_eq!(codename("ID=debian\n"), None);
    }
}
