//! Concludes which of the kernel's file systems are usable.
//!
//! Pure functions of what `host` read.
//! Does not depend on: the host's files, the findings.

use std::{fmt, io};

use serde::Serialize;

/// `f_type` of cgroup v2 (include/uapi/linux/magic.h, `CGROUP2_SUPER_MAGIC`).
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Version of control groups at `/sys/fs/cgroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cgroups {
    /// One hierarchy.
    V2,
    /// A hierarchy for each controller, and also one of version 2.
    Hybrid,
    /// A hierarchy for each controller.
    V1,
    /// Not mounted.
    None,
}

impl Cgroups {
    /// Concludes the version from the file system types of `/sys/fs/cgroup` and its `unified`, and from whether the first
    /// has folders.
    pub fn of(root: Option<i64>, unified: Option<i64>, has_trees: bool) -> Self {
        match (root, unified) {
            (Some(CGROUP2_MAGIC), _) => Self::V2,
            (_, Some(CGROUP2_MAGIC)) => Self::Hybrid,
            _ if has_trees => Self::V1,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "v2",
            Self::Hybrid => "v1, with v2 beside it (hybrid)",
            Self::V1 => "v1",
            Self::None => "not mounted",
        })
    }
}

/// Whether the tracepoints of system calls are readable, which `--accept-wait` needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracefs {
    /// Yes.
    Usable,
    /// No: this process may not read them.
    Forbidden,
    /// No: tracefs does not have them.
    WithoutSystemCalls,
    /// No: tracefs is not mounted.
    NotMounted,
}

impl Tracefs {
    /// Concludes the state from reading the file of such a tracepoint, and from whether tracefs has tracepoints at all.
    pub fn of(reading: Result<(), io::ErrorKind>, has_events: bool) -> Self {
        match reading {
            Ok(()) => Self::Usable,
            Err(io::ErrorKind::PermissionDenied) => Self::Forbidden,
            Err(_) if has_events => Self::WithoutSystemCalls,
            Err(_) => Self::NotMounted,
        }
    }
}

impl fmt::Display for Tracefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usable => "mounted",
            Self::Forbidden => "not readable",
            Self::WithoutSystemCalls => "mounted, without system calls",
            Self::NotMounted => "not mounted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_version_follows_from_the_file_systems() {
        const TMPFS: i64 = 0x0102_1994;
        const SYSFS: i64 = 0x6265_6572;
        for (root, unified, has_trees, expected) in [
            (Some(CGROUP2_MAGIC), Some(CGROUP2_MAGIC), true, Cgroups::V2),
            (Some(CGROUP2_MAGIC), None, false, Cgroups::V2),
            (Some(TMPFS), Some(CGROUP2_MAGIC), true, Cgroups::Hybrid),
            (Some(TMPFS), None, true, Cgroups::V1),
            (Some(SYSFS), None, false, Cgroups::None),
            (None, None, false, Cgroups::None),
        ] {
            let found = Cgroups::of(root, unified, has_trees);
            assert_eq!(found, expected, "{root:?} {unified:?} {has_trees}");
        }
    }

    #[test]
    fn tracepoints_may_be_forbidden_or_absent() {
        let (denied, absent) = (io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound);
        for (reading, has_events, expected) in [
            (Ok(()), true, Tracefs::Usable),
            (Err(denied), false, Tracefs::Forbidden),
            (Err(absent), true, Tracefs::WithoutSystemCalls),
            (Err(absent), false, Tracefs::NotMounted),
        ] {
            assert_eq!(Tracefs::of(reading, has_events), expected);
        }
    }
}
