//! Lists the files of machine code that a process has mapped, and opens them.
//!
//! A file may be another process's, in another mount namespace, or deleted.
//! Does not depend on: what is in the files.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

use crate::openssl::library::{self, Place};

/// Most bytes that are read of a process's list of mapped files.
const MAPS_CAP: u64 = 8 << 20;
/// Files that are remembered.
const KNOWN_CAP: usize = 4096;

/// A mapped file of machine code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mapped {
    /// Device and number of the file, as the kernel prints them.
    pub id: (String, u64),
    /// The range of addresses, as the kernel prints it.
    pub range: String,
    /// Its path in the mount namespace of the process.
    pub path: String,
}

/// A file that exports OpenSSL's functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The file.
    pub mapped: Mapped,
    /// Where to probe it.
    pub places: Vec<Place>,
}

/// What is known of files: the places in each, by device, number, size and time of change.
#[derive(Debug, Default)]
pub struct Known(HashMap<(u64, u64, u64, i64, i64), Vec<Place>>);

impl Known {
    /// Returns the files of a process that export OpenSSL's functions.
    ///
    /// # Errors
    /// If the list of mapped files cannot be read.
    pub fn libraries_of(&mut self, pid: u32) -> io::Result<Vec<Library>> {
        let mut text = Vec::new();
        let maps = File::open(format!("/proc/{pid}/maps"))?;
        maps.take(MAPS_CAP).read_to_end(&mut text)?;
        let mapped = parse(&String::from_utf8_lossy(&text));
        let library = |mapped: Mapped| {
            let file = open(pid, &mapped).ok()?;
            let places = self.places(file)?;
            (!places.is_empty()).then_some(Library { mapped, places })
        };
        Ok(mapped.into_iter().filter_map(library).collect())
    }

    fn places(&mut self, file: File) -> Option<Vec<Place>> {
        let about = file.metadata().ok()?;
        let key = (
            about.dev(),
            about.ino(),
            about.size(),
            about.ctime(),
            about.ctime_nsec(),
        );
        if let Some(places) = self.0.get(&key) {
            return Some(places.clone());
        }
        if self.0.len() >= KNOWN_CAP {
            self.0.clear();
        }
        let places = library::places(file);
        self.0.insert(key, places.clone());
        Some(places)
    }
}

/// Returns the files of machine code in a process's list of mapped files, each once.
fn parse(maps: &str) -> Vec<Mapped> {
    let mut found: Vec<Mapped> = Vec::new();
    for line in maps.lines() {
        let Some(path) = line.find('/').map(|at| &line[at..]) else {
            continue;
        };
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(access), Some(_), Some(device), Some(number)) = (
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
        ) else {
            continue;
        };
        let Some(number) = number.parse().ok().filter(|number| *number != 0) else {
            continue;
        };
        let id = (device.to_owned(), number);
        if access.contains('x') && !found.iter().any(|known| known.id == id) {
            found.push(Mapped {
                id,
                range: range.to_owned(),
                path: path.to_owned(),
            });
        }
    }
    found
}

/// Opens a mapped file, whatever has become of its path: by its path if that still leads to it, else by its addresses.
///
/// # Errors
/// If it cannot be opened, which takes CAP_SYS_PTRACE for another user's process, or is no regular file.
pub fn open(pid: u32, mapped: &Mapped) -> io::Result<File> {
    let by_path = format!("/proc/{pid}/root{}", mapped.path);
    let by_range = format!("/proc/{pid}/map_files/{}", mapped.range);
    match open_regular(by_path.as_ref()) {
        Ok(file) if file.metadata()?.ino() == mapped.id.1 => Ok(file),
        _ => open_regular(by_range.as_ref()),
    }
}

fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Should it have become a pipe meanwhile, this does not wait.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_of_machine_code_is_listed_once() {
        let maps = "\
7f00-7f01 r--p 00000000 08:01 12  /usr/lib/libssl.so.3
7f01-7f02 r-xp 00001000 08:01 12  /usr/lib/libssl.so.3
7f02-7f03 r-xp 00003000 08:01 12  /usr/lib/libssl.so.3
7f03-7f04 r-xp 00000000 08:01 13  /srv/with space/lib.so (deleted)
7f04-7f05 r-xp 00000000 00:00 0   [vdso]
7f05-7f06 rw-p 00000000 08:01 14  /srv/data
7f06-7f07 rwxp 00000000 00:00 0
";
        let found = parse(maps);
        let shown: Vec<_> = found
            .iter()
            .map(|file| (&*file.range, file.id.1, &*file.path))
            .collect();
        assert_eq!(
            shown,
            [
                ("7f01-7f02", 12, "/usr/lib/libssl.so.3"),
                ("7f03-7f04", 13, "/srv/with space/lib.so (deleted)"),
            ]
        );
    }

    #[test]
    fn the_own_program_is_opened() {
        let pid = std::process::id();
        let own = fs::metadata("/proc/self/exe").unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mapped = parse(&maps);
        let program = mapped.iter().find(|file| file.id.1 == own.ino()).unwrap();
        let opened = open(pid, program).unwrap();
        assert_eq!(opened.metadata().unwrap().ino(), own.ino());
        assert_eq!(Known::default().libraries_of(pid).unwrap(), []);
        assert!(Known::default().libraries_of(u32::MAX).is_err());
    }
}
