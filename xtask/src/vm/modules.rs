//! Finds the modules of a kernel that tests need, and keeps them beside its image.
//!
//! Debian builds TLS and its ciphers as modules since Linux 6.1. Does not depend on: where the kernel comes from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The modules, each behind those that it needs. Which of them exist depends on the kernel; the rest is built in.
const NAMES: [&str; 9] = [
    "crypto_null",
    "gf128mul",
    "cryptd",
    "crypto_simd",
    "ghash-generic",
    "ctr",
    "gcm",
    "aesni-intel",
    TLS,
];
const TLS: &str = "tls";
const FOLDER: &str = "modules";

/// Keeps the modules of the package that is unpacked in `tree` in `home`, and returns them in the order of [`NAMES`].
pub(super) fn keep(tree: &Path, home: &Path) -> Result<Vec<PathBuf>> {
    let kept = home.join(FOLDER);
    fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
    for path in files_in(tree) {
        if rank(&path).is_some() {
            let to = kept.join(path.file_name().unwrap_or_default());
            fs::copy(&path, &to).with_context(|| format!("keep {}", path.display()))?;
        }
    }
    kept_in(home).context("the folder of modules is gone")
}

/// Returns the modules that were kept in `home`; `None` if none ever were.
pub(super) fn kept_in(home: &Path) -> Option<Vec<PathBuf>> {
    let entries = fs::read_dir(home.join(FOLDER)).ok()?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_by_key(|path| rank(path));
    Some(paths)
}

/// Whether they include the kernel's TLS.
pub(crate) fn have_tls(modules: &[PathBuf]) -> bool {
    modules.iter().any(|path| name(path) == Some(TLS))
}

fn rank(path: &Path) -> Option<usize> {
    NAMES.iter().position(|known| name(path) == Some(known))
}

/// Returns a module's name: that of a file `NAME.ko`, compressed or not.
fn name(path: &Path) -> Option<&str> {
    let (name, rest) = path.file_name()?.to_str()?.split_once('.')?;
    (rest == "ko" || rest.starts_with("ko.")).then_some(name)
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let found = paths.flat_map(|path| match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => files_in(&path),
        _ => vec![path],
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_kept_in_the_order_in_which_they_load() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, home) = (dir.path().join("tree"), dir.path().join("home"));
        for name in [
            "net/tls/tls.ko.xz",
            "crypto/gcm.ko",
            "net/ax25.ko",
            "tls.txt",
        ] {
            let path = tree.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        assert_eq!(kept_in(&home), None);
        let kept = keep(&tree, &home).unwrap();
        let folder = home.join(FOLDER);
        assert_eq!(kept, [folder.join("gcm.ko"), folder.join("tls.ko.xz")]);
        assert!(have_tls(&kept) && !have_tls(&kept[..1]));
    }

    #[test]
    fn a_kernel_without_them_is_kept_too() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(keep(dir.path(), dir.path()).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(kept_in(dir.path()), Some(Vec::new()));
    }
}
