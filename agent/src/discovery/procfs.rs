//! Reads what `/proc` reports about one process.
//!
//! Nothing is cached: the registry keeps what it needs.
//! Does not depend on: which processes are watched.

use std::{
    fs,
    io::{self, Read as _},
    os::fd::AsRawFd as _,
    path::Path,
    sync::Arc,
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::catalogue::command::CommandLine;

/// Most bytes that are read of a file that a process names.
const FILE_CAP: u64 = 64 << 10;
/// Short name of a process that is not in procfs.
pub const UNKNOWN: &str = "unknown";

/// Returns this process's id in procfs; `None` if there is no procfs, or if it is that of another PID namespace.
pub fn own_id() -> Option<u32> {
    fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

/// Returns the ids of all processes.
pub fn all() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Whether a process exists.
pub fn exists(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Returns the command line of a process; `None` if the process has ended or is a kernel thread.
pub fn command_line(pid: u32) -> Option<CommandLine> {
    CommandLine::parse(&fs::read(format!("/proc/{pid}/cmdline")).ok()?)
}

/// Returns the arguments of a process, its program first; `None` if the process has ended.
pub fn arguments(pid: u32) -> Option<Vec<String>> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = raw.split(|&byte| byte == 0);
    let arguments = arguments.map(|argument| String::from_utf8_lossy(argument).into_owned());
    Some(arguments.collect())
}

/// Returns the text of a regular file that a process names: in its own root and working directory, at most 64 KiB.
///
/// The process may have chosen the path to mislead: no link leads out of its root, and nothing but a regular file is
/// opened for reading.
pub fn file_of(pid: u32, path: &str) -> io::Result<String> {
    let open = |folder: &str| {
        rustix::fs::open(
            format!("/proc/{pid}/{folder}"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let root = open("root")?;
    let path = match path.starts_with('/') {
        true => path.into(),
        // As the process itself would name its working directory.
        false => fs::read_link(format!("/proc/{pid}/cwd"))?.join(path),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = openat2(
        &root,
        &path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    let mut text = String::new();
    file.take(FILE_CAP).read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the short name of a process; `unknown` if the process has ended.
pub fn short_name(pid: u32) -> Arc<str> {
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(raw) => String::from_utf8_lossy(raw.trim_ascii_end())
            .as_ref()
            .into(),
        Err(_) => UNKNOWN.into(),
    }
}

/// Returns the parent of a process; `None` if the process has ended.
pub fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

/// Returns the children that all threads of a process started; none if the process has ended.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children"));
    threads
        .filter_map(|thread| of_thread(thread.ok()?).ok())
        .flat_map(|children| {
            let pids = children.split_ascii_whitespace();
            pids.filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_running_child_is_found() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(children_of(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(children_of(u32::MAX).is_empty());
    }

    #[test]
    fn the_own_process_is_read() {
        let own = std::process::id();
        assert_eq!(own_id(), Some(own));
        assert!(command_line(own).is_some());
        assert!(all().unwrap().contains(&own) && exists(own));
        assert_eq!(parent_of(own), Some(std::os::unix::process::parent_id()));
        assert_ne!(&*short_name(own), UNKNOWN);
    }

    #[test]
    fn a_file_is_read_as_its_process_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("plain"), "text").unwrap();
        std::os::unix::fs::symlink("plain", path("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::write(path("long"), "x".repeat(100_000)).unwrap();
        let mut child = Command::new("cat")
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let absolute = path("plain");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while file_of(child.id(), "plain").is_err() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        for name in ["plain", "./plain", "link", absolute.to_str().unwrap()] {
            assert_eq!(file_of(child.id(), name).unwrap(), "text", "{name}");
        }
        // A pipe would block, and a folder has no text.
        for name in ["pipe", ".", "missing", "/proc/self/mem", ""] {
            assert!(file_of(child.id(), name).is_err(), "{name}");
        }
        assert_eq!(file_of(child.id(), "long").unwrap().len(), 65_536);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_ended_process_is_unknown() {
        assert_eq!(command_line(u32::MAX), None);
        assert!(!exists(u32::MAX));
        assert_eq!(parent_of(u32::MAX), None);
        assert_eq!(&*short_name(u32::MAX), UNKNOWN);
    }
}
