//! Finds every socket of the host that listens, and the processes that hold it.
//!
//! Reads procfs of each process, once for each network namespace.
//! Does not depend on: which of them are watched.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fmt,
    net::SocketAddr,
};

use procfs::{
    ProcError,
    net::TcpState,
    process::{FDTarget, Process},
};

/// Flag of a unix socket that listens, `__SO_ACCEPTCON` (include/uapi/linux/net.h).
const ACCEPTS: u32 = 1 << 16;
/// Type of a unix socket with connections of bytes, `SOCK_STREAM` (include/linux/net.h).
const STREAM: &str = "0001";

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// TCP, also MPTCP.
    Tcp(SocketAddr),
    /// Path of a unix socket; one that begins with `@` is no file. Empty: it has no name.
    Unix(String),
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Where it listens.
    pub place: Place,
    /// Inode of the socket.
    pub inode: u64,
    /// Processes that hold it; empty if none of them could be read.
    pub pids: BTreeSet<u32>,
}

/// The listeners of a host, as far as they could be read.
#[derive(Debug, Default)]
pub struct Listeners {
    /// In the order of their place.
    pub found: Vec<Listener>,
    /// Processes whose files could not be read, because they belong to another user.
    pub unread_processes: usize,
    /// Whether every network namespace could be read.
    pub every_namespace: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(path) if path.is_empty() => out.write_str("unix:(no name)"),
            Self::Unix(path) => write!(out, "unix:{path}"),
        }
    }
}

impl Place {
    /// Returns the TCP port; `None` for a unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

/// Finds the listeners.
pub fn find() -> Listeners {
    let mut holders: HashMap<u64, BTreeSet<u32>> = HashMap::new();
    let mut representatives: BTreeMap<OsString, Process> = BTreeMap::new();
    let mut listeners = Listeners {
        every_namespace: true,
        ..Listeners::default()
    };
    let processes = procfs::process::all_processes().into_iter().flatten();
    for process in processes.flatten() {
        let Some(pid) = u32::try_from(process.pid).ok() else {
            continue;
        };
        match sockets_of(&process) {
            Ok(inodes) => inodes.into_iter().for_each(|inode| {
                holders.entry(inode).or_default().insert(pid);
            }),
            Err(ProcError::PermissionDenied(_)) => listeners.unread_processes += 1,
            // It has ended.
            Err(_) => {}
        }
        match std::fs::read_link(format!("/proc/{pid}/ns/net")) {
            Ok(namespace) => {
                representatives.entry(namespace.into()).or_insert(process);
            }
            Err(err) => {
                listeners.every_namespace &= err.kind() != std::io::ErrorKind::PermissionDenied;
            }
        }
    }
    if representatives.is_empty()
        && let Ok(own) = Process::myself()
    {
        representatives.insert(OsString::new(), own);
    }
    for process in representatives.values() {
        let places = places_of(process);
        listeners
            .found
            .extend(places.into_iter().map(|(inode, place)| Listener {
                place,
                inode,
                pids: holders.get(&inode).cloned().unwrap_or_default(),
            }));
    }
    listeners.found.sort();
    listeners
}

/// Returns the addresses that a process listens on with TCP.
pub fn addresses_of(pid: u32) -> Result<Vec<SocketAddr>, ProcError> {
    let pid = i32::try_from(pid).map_err(|_| ProcError::NotFound(None))?;
    let process = Process::new(pid)?;
    let inodes: BTreeSet<u64> = sockets_of(&process)?.into_iter().collect();
    let places = places_of(&process).into_iter();
    let own = places.filter(|(inode, _)| inodes.contains(inode));
    let addresses = own.filter_map(|(_, place)| match place {
        Place::Tcp(address) => Some(address),
        Place::Unix(_) => None,
    });
    Ok(addresses.collect())
}

/// Returns the inodes of the sockets that a process holds.
fn sockets_of(process: &Process) -> Result<Vec<u64>, ProcError> {
    let files = process.fd()?.flatten();
    let inodes = files.filter_map(|file| match file.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    });
    Ok(inodes.collect())
}

/// Returns the sockets that listen in the network namespace of a process, by their inode.
fn places_of(process: &Process) -> Vec<(u64, Place)> {
    let tcp = [process.tcp(), process.tcp6()].into_iter().flatten();
    let tcp = tcp
        .flatten()
        .filter(|entry| entry.state == TcpState::Listen);
    let mut places: Vec<_> = tcp
        .map(|entry| (entry.inode, Place::Tcp(entry.local_address)))
        .collect();
    let unix = std::fs::read_to_string(format!("/proc/{}/net/unix", process.pid));
    places.extend(unix.unwrap_or_default().lines().filter_map(unix_listener));
    places
}

/// Parses a line of `/proc/net/unix`; `None` if it is no listener with connections of bytes.
fn unix_listener(line: &str) -> Option<(u64, Place)> {
    // Num RefCount Protocol Flags Type St Inode Path
    let mut fields = line.split_ascii_whitespace().skip(3);
    let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
    if flags & ACCEPTS == 0 || fields.next()? != STREAM {
        return None;
    }
    let inode = fields.nth(1)?.parse().ok()?;
    Some((
        inode,
        Place::Unix(fields.next().unwrap_or_default().to_owned()),
    ))
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::{linux::fs::MetadataExt as _, unix::net::UnixListener},
    };

    use super::*;

    #[test]
    fn own_listeners_are_found_with_the_process_that_holds_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _unix = UnixListener::bind(&path).unwrap();
        assert!(path.metadata().unwrap().st_ino() > 0);
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let tcp = TcpListener::bind(address).unwrap();
            let tcp = Place::Tcp(tcp.local_addr().unwrap());
            let found = find().found;
            for place in [tcp, Place::Unix(path.to_str().unwrap().to_owned())] {
                let listener = found.iter().find(|listener| listener.place == place);
                let listener = listener.unwrap_or_else(|| panic!("{place} of {found:?}"));
                assert_eq!(listener.pids, BTreeSet::from([std::process::id()]));
            }
            let own = TcpListener::bind(address).unwrap();
            let ended = Place::Tcp(own.local_addr().unwrap());
            drop(own);
            assert!(!find().found.iter().any(|listener| listener.place == ended));
        }
    }

    #[test]
    fn only_a_line_of_a_unix_listener_is_one() {
        let line = "ffff: 00000002 00000000 00010000 0001 01 2345 /run/x.sock";
        let path = |path: &str| Some((2345, Place::Unix(path.into())));
        for (line, expected) in [
            (line.to_owned(), path("/run/x.sock")),
            (line.replace(" /run/x.sock", ""), path("")),
            (line.replace("/run", "@"), path("@/x.sock")),
            (line.replace("00010000", "00000000"), None),
            (line.replace("0001 01", "0005 01"), None),
            (
                "Num RefCount Protocol Flags Type St Inode Path".into(),
                None,
            ),
        ] {
            assert_eq!(unix_listener(&line), expected, "{line}");
        }
        for len in 0..line.len() {
            if let Some((_, Place::Unix(path))) = unix_listener(&line[..len]) {
                assert!("/run/x.sock".starts_with(&path), "{len}");
            }
        }
    }
}
