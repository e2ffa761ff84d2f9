//! Lists the BPF programs, maps and links that a process holds, and whether the kernel still has them.

use std::fmt;

/// `bpf(2)` commands that give the next id (include/uapi/linux/bpf.h, `enum bpf_cmd`).
const PROG_GET_NEXT_ID: libc::c_long = 11;
const MAP_GET_NEXT_ID: libc::c_long = 12;
const LINK_GET_NEXT_ID: libc::c_long = 31;
/// Commands that open an object by its id.
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const LINK_GET_FD_BY_ID: libc::c_long = 30;

/// A BPF object in the kernel, by its id. The kernel does not reuse ids soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BpfId {
    kind: Kind,
    id: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Program,
    Map,
    Link,
}

impl fmt::Display for BpfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.id)
    }
}

impl BpfId {
    /// Returns whether it is a link, which attaches a program to its hook.
    pub fn is_link(self) -> bool {
        self.kind == Kind::Link
    }
}

/// Returns every BPF object of which process `pid` has a descriptor, sorted.
pub fn held_by(pid: u32) -> Vec<BpfId> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|err| panic!("{folder}: {err}"));
    let mut ids: Vec<BpfId> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .flat_map(|info| ids_in(&info))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Returns the ids in one `/proc/PID/fdinfo/FD`; that of a link contains its program's as well.
fn ids_in(info: &str) -> Vec<BpfId> {
    info.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let kind = match name {
                "prog_id" => Kind::Program,
                "map_id" => Kind::Map,
                "link_id" => Kind::Link,
                _ => return None,
            };
            let id = value.trim().parse().ok()?;
            Some(BpfId { kind, id })
        })
        .collect()
}

/// Returns every BPF object of the kernel, sorted. Needs root.
pub fn all() -> Vec<BpfId> {
    let kinds = [
        (Kind::Program, PROG_GET_NEXT_ID),
        (Kind::Map, MAP_GET_NEXT_ID),
        (Kind::Link, LINK_GET_NEXT_ID),
    ];
    let of_kind = |(kind, command)| {
        let ids = std::iter::successors(next_id(command, 0), move |id| next_id(command, *id));
        ids.map(move |id| BpfId { kind, id })
    };
    let mut ids: Vec<BpfId> = kinds.into_iter().flat_map(of_kind).collect();
    ids.sort_unstable();
    ids
}

/// Returns the id that follows `id`; `None` after the last.
fn next_id(command: libc::c_long, id: u32) -> Option<u32> {
    // The part of `union bpf_attr` that these commands use: start_id, next_id, open_flags.
    let mut attr = [id, 0, 0];
    let bytes = size_of_val(&attr);
    // SAFETY: the kernel reads and writes `bytes` bytes at `attr`, which outlives the call.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), bytes) };
    if rc == 0 {
        return Some(attr[1]);
    }
    let err = std::io::Error::last_os_error();
    assert_eq!(err.raw_os_error(), Some(libc::ENOENT), "bpf(2): {err}");
    None
}

/// Returns whether the kernel still has the object. Needs root.
pub fn exists(object: BpfId) -> bool {
    let command = match object.kind {
        Kind::Program => PROG_GET_FD_BY_ID,
        Kind::Map => MAP_GET_FD_BY_ID,
        Kind::Link => LINK_GET_FD_BY_ID,
    };
    // The part of `union bpf_attr` that these commands read: id, next_id, open_flags.
    let attr = [object.id, 0, 0];
    // SAFETY: the kernel reads `size_of_val(&attr)` bytes at `attr`, which outlives the call, and writes none.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(&attr)) };
    if let Ok(fd) = i32::try_from(fd)
        && fd >= 0
    {
        // SAFETY: the kernel has just made `fd` for this call, and nothing else uses it.
        unsafe { libc::close(fd) };
        return true;
    }
    let err = std::io::Error::last_os_error();
    assert_eq!(err.raw_os_error(), Some(libc::ENOENT), "bpf(2): {err}");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_names_programs_maps_and_links() {
        let info = "pos:\t0\nflags:\t02000000\nlink_type:\ttracing\nlink_id:\t7\nprog_tag:\tab\nprog_id:\t12\n";
        let ids: Vec<String> = ids_in(info).iter().map(BpfId::to_string).collect();
        assert_eq!(ids, ["Link 7", "Program 12"]);
        assert!(ids_in("pos:\t0\nflags:\t02\n").is_empty());
    }
}
