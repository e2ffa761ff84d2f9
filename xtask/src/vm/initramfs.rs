//! Writes the first file system of a virtual machine: programs of this machine with their libraries, and other files, as
//! a cpio archive (format `newc`).
//!
//! Does not depend on: what the files are for.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress;

/// Types and permissions of entries.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Folders and files, by their paths without the first slash.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    entries: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Initramfs {
    /// Adds a folder and its parents.
    pub(crate) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let entry = self.entries.entry(path[..at].to_owned());
            entry.or_insert_with(|| (DIRECTORY, Vec::new()));
        }
    }

    /// Adds an executable file with `content`.
    pub(crate) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let path = path.trim_matches('/');
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.entries
            .insert(path.to_owned(), (PROGRAM, content.into()));
    }

    /// Adds this machine's program `from` as `path`, and its libraries.
    pub(crate) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let (listed, dynamic) = progress::output(Command::new("ldd").arg(from))?;
        if dynamic {
            if listed.contains("not found") {
                bail!("{} lacks a library: {listed}", from.display());
            }
            for library in libraries(&listed) {
                if !self.entries.contains_key(library.trim_matches('/')) {
                    let content = fs::read(library).with_context(|| format!("read {library}"))?;
                    self.file(library, content);
                }
            }
        }
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.file(path, content);
        Ok(())
    }

    /// Writes the archive.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (number, (path, (mode, content))) in (1..).zip(&self.entries) {
            entry(out, number, path, *mode, content)?;
        }
        entry(out, 0, TRAILER, 0, b"")
    }
}

/// Returns the paths in the output of ldd.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
}

fn entry(
    out: &mut impl Write,
    number: u32,
    path: &str,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let too_long = |_| io::Error::other(format!("{path} is too long for an archive"));
    let size = u32::try_from(content.len()).map_err(too_long)?;
    let name_size = u32::try_from(path.len() + 1).map_err(too_long)?;
    // Number, mode, owner, group, links, time, size, four numbers of devices, size of the name, checksum.
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    write!(out, "070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    let head = 6 + 8 * fields.len() + path.len() + 1;
    write!(out, "{path}\0")?;
    pad(out, head)?;
    out.write_all(content)?;
    pad(out, content.len())
}

/// Pads to a multiple of four bytes.
fn pad(out: &mut impl Write, size: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..size.next_multiple_of(4) - size])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_each_folder_before_what_is_in_it() {
        let mut initramfs = Initramfs::default();
        initramfs.file("/a/b/c", "text");
        initramfs.folder("a/d");
        let paths: Vec<&str> = initramfs.entries.keys().map(String::as_str).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a/d"]);
    }

    #[test]
    fn entries_start_at_multiples_of_four() {
        let mut initramfs = Initramfs::default();
        initramfs.file("init", "12345");
        let mut archive = Vec::new();
        initramfs.write(&mut archive).unwrap();
        let expected = format!(
            "07070100000001000081ed000000000000000000000001000000000000000500000000000000000000000000000000\
             0000000500000000init\0\0{}12345\0\0\0070701{}0000000b00000000{TRAILER}\0\0\0\0",
            "",
            format_args!(
                "{}{}{}",
                "00000000".repeat(4),
                "00000001",
                "00000000".repeat(6)
            ),
        );
        assert_eq!(String::from_utf8(archive).unwrap(), expected);
    }

    #[test]
    fn libraries_are_listed_with_and_without_an_arrow() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        let found: Vec<&str> = libraries(listed).collect();
        assert_eq!(found, ["/lib/libc.so.6", "/lib64/ld.so.2"]);
    }
}
