//! Fetches the newest kernel of a series from Debian, and keeps it outside of the repository.
//!
//! Nothing is installed. Does not depend on: what a kernel is booted for.

use std::cmp::Ordering;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::arch::Arch;
use crate::tools::apt::Apt;
use crate::vm::modules;

/// Names the folder for kernels.
const DIR_ENV: &str = "INFERPROBE_KERNELS_DIR";
/// How long a fetched kernel counts as the newest of its series.
const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);
/// The suites that are searched for a series that is not in [`SUITES`].
const EVERY_SUITE: &[&str] = &[
    "bullseye",
    "bullseye-security",
    "bookworm",
    "bookworm-security",
    "bookworm-backports",
    "trixie",
    "trixie-security",
    "trixie-backports",
    "sid",
];
/// Start of the names of packages with an image and no modules.
const BINARY: &str = "linux-binary-";
/// The newest series of all.
pub(crate) const NEWEST: &str = "newest";
/// The suites that have had kernels of a series; fewer suites, because their lists take longer to fetch than a kernel.
const SUITES: [(&str, &[&str]); 6] = [
    ("5.10", &["bullseye", "bullseye-security"]),
    ("6.1", &["bookworm", "bookworm-security"]),
    ("6.12", &["trixie", "trixie-security", "bookworm-security"]),
    ("6.18", &["trixie-backports"]),
    ("7.3", &["trixie-backports", "sid"]),
    (NEWEST, &["trixie-backports", "sid"]),
];

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Its name in `uname -r`.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// Modules that tests need, in the order in which they load.
    pub(crate) modules: Vec<PathBuf>,
}

/// Returns the newest kernel of `series`. If fetching fails, returns the one fetched before, with a message.
pub(crate) fn fetch(series: &str, arch: Arch) -> Result<Kernel> {
    let dir = folder(arch)?.join(series);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let lock = File::create(dir.join("lock")).context("create a file to lock")?;
    lock.lock()
        .context("wait for another fetch of the kernel")?;
    let kept = kept(&dir);
    if let Some(kernel) = &kept
        && is_fresh(&dir.join("newest"))
    {
        return Ok(kernel.clone());
    }
    match (fetch_newest(series, arch, &dir), kept) {
        (Err(err), Some(kernel)) => {
            eprintln!(
                "==> using Linux {}, which was fetched before: {err:#}",
                kernel.release
            );
            Ok(kernel)
        }
        (fetched, _) => fetched,
    }
}

/// Returns the static `busybox` of `arch`, which is fetched once.
pub(crate) fn busybox(arch: Arch) -> Result<PathBuf> {
    let dir = folder(arch)?;
    let busybox = dir.join("busybox");
    if !busybox.is_file() {
        let apt = Apt::of_this_release("busybox", arch, &dir.join("apt"))?;
        let scratch = tempfile::tempdir_in(&dir).context("create a folder for busybox")?;
        apt.unpack("busybox-static", scratch.path())?;
        let unpacked = ["bin/busybox", "usr/bin/busybox"].map(|path| scratch.path().join(path));
        let unpacked = unpacked.iter().find(|path| path.is_file());
        let unpacked = unpacked.context("busybox-static has no busybox")?;
        fs::rename(unpacked, &busybox).with_context(|| format!("keep {}", busybox.display()))?;
    }
    Ok(busybox)
}

/// Returns the folder for kernels of `arch`.
fn folder(arch: Arch) -> Result<PathBuf> {
    let dir = cache_dir()?;
    Ok(match arch {
        Arch::Amd64 => dir,
        arch => dir.join(arch.debian()),
    })
}

/// Returns the end of the names of small kernels, those for virtual machines.
fn variant(arch: Arch) -> String {
    format!("cloud-{}", arch.debian())
}

fn cache_dir() -> Result<PathBuf> {
    let named = |name| env::var_os(name).filter(|dir| !dir.is_empty());
    if let Some(dir) = named(DIR_ENV) {
        return Ok(dir.into());
    }
    let cache = match (named("XDG_CACHE_HOME"), named("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => bail!("no folder for kernels; set {DIR_ENV} or HOME"),
    };
    Ok(cache.join("inferprobe/kernels"))
}

/// Returns the kernel that was the newest of its series at the last fetch.
fn kept(dir: &Path) -> Option<Kernel> {
    let release = fs::read_to_string(dir.join("newest")).ok()?;
    let home = dir.join(&release);
    let image = home.join("vmlinuz");
    let modules = modules::kept_in(&home)?;
    image.is_file().then_some(Kernel {
        release,
        image,
        modules,
    })
}

fn is_fresh(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FRESH_FOR))
}

fn fetch_newest(series: &str, arch: Arch, dir: &Path) -> Result<Kernel> {
    let known = SUITES.iter().find(|(name, _)| *name == series);
    let suites = known.map_or(EVERY_SUITE, |(_, suites)| suites);
    let what = format!("the newest Linux {series}");
    let apt = Apt::prepare(&what, suites, arch, &dir.join("apt"))?;
    let variant = variant(arch);
    let names = apt.packages("linux-")?;
    let (package, release) = newest(&names, series, &variant)
        .with_context(|| format!("no suite of Debian has a kernel {series} {variant}"))?;
    let home = dir.join(&release);
    let image = home.join("vmlinuz");
    let modules = match modules::kept_in(&home) {
        Some(modules) if image.is_file() => modules,
        _ => {
            let scratch = tempfile::tempdir_in(dir).context("create a folder for the package")?;
            let tree = scratch.path().join("tree");
            apt.unpack(&package, &tree)?;
            let found = image_in(&tree, &release)
                .with_context(|| format!("{package} has no image of Linux {release}"))?;
            fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
            fs::rename(&found, &image).with_context(|| format!("keep {}", image.display()))?;
            if package.starts_with(BINARY) {
                apt.unpack(&format!("linux-modules-{release}"), &tree)?;
            }
            modules::keep(&tree, &home)?
        }
    };
    drop_others(dir, &release)?;
    fs::write(dir.join("newest"), &release).context("write the name of the newest kernel")?;
    Ok(Kernel {
        release,
        image,
        modules,
    })
}

/// Returns the path of a kernel's image in an unpacked package.
fn image_in(tree: &Path, release: &str) -> Option<PathBuf> {
    [
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
        format!("lib/modules/{release}/vmlinuz"),
    ]
    .iter()
    .map(|path| tree.join(path))
    .find(|path| path.is_file())
}

/// Removes all kernels in `dir` but `release`.
fn drop_others(dir: &Path, release: &str) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.join("vmlinuz").is_file() && !path.ends_with(release) {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Returns package and release of the newest kernel of `series` among `names`.
///
/// Up to 6.18 the whole kernel is in `linux-image-RELEASE`; from 6.19 on its image is in `linux-binary-RELEASE`, and its
/// modules are in `linux-modules-RELEASE`.
fn newest(names: &[String], series: &str, variant: &str) -> Option<(String, String)> {
    let release_of = |name: &str, prefix: &str| {
        let release = name.strip_prefix(prefix)?;
        let minor = match series {
            NEWEST => release,
            series => release.strip_prefix(series)?.strip_prefix('.')?,
        };
        let is_one = minor.starts_with(|c: char| c.is_ascii_digit()) && minor.ends_with(variant);
        is_one.then(|| release.to_owned())
    };
    [BINARY, "linux-image-"].iter().find_map(|prefix| {
        let releases = names.iter().filter_map(|name| release_of(name, prefix));
        let release = releases.max_by(|a, b| by_number(a, b))?;
        Some((format!("{prefix}{release}"), release))
    })
}

/// Compares releases number by number.
fn by_number(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        let parts = text.split(|c: char| !c.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_is_found_by_number_within_its_series() {
        let names = names(&[
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-dbg",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.1.0-59-cloud-arm64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-cloud-amd64",
        ]);
        let found = |series| newest(&names, series, "cloud-amd64").map(|(package, _)| package);
        assert_eq!(
            found("6.1").as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            found("6.12").as_deref(),
            Some("linux-image-6.12.117+deb13-cloud-amd64")
        );
        assert_eq!(found("5.1"), None);
        assert_eq!(found("6.18"), None);
    }

    #[test]
    fn the_image_of_a_split_kernel_is_in_its_binary_package() {
        let names = names(&[
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
        ]);
        assert_eq!(
            newest(&names, "7.3", "cloud-amd64"),
            Some((
                "linux-binary-7.3.4+deb13-cloud-amd64".to_owned(),
                "7.3.4+deb13-cloud-amd64".to_owned()
            ))
        );
    }

    #[test]
    fn the_newest_series_is_found_by_itself() {
        let names = names(&[
            "linux-image-6.18.15+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.10.1+deb13-cloud-amd64",
            "linux-binary-7.10.1+deb13-amd64",
            "linux-binary-cloud-amd64",
        ]);
        let found = newest(&names, NEWEST, "cloud-amd64").map(|(_, release)| release);
        assert_eq!(found.as_deref(), Some("7.10.1+deb13-cloud-amd64"));
    }

    #[test]
    fn a_kept_kernel_has_its_image() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("newest"), "6.1.0-56").unwrap();
        assert_eq!(kept(dir.path()), None);
        fs::create_dir(dir.path().join("6.1.0-56")).unwrap();
        fs::write(dir.path().join("6.1.0-56/vmlinuz"), "image").unwrap();
        // Of an earlier version, without its modules.
        assert_eq!(kept(dir.path()), None);
        fs::create_dir(dir.path().join("6.1.0-56/modules")).unwrap();
        assert_eq!(kept(dir.path()).unwrap().release, "6.1.0-56");
        drop_others(dir.path(), "6.1.0-57").unwrap();
        assert_eq!(kept(dir.path()), None);
    }
}
