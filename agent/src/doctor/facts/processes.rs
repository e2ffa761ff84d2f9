//! Which processes the agent sees, and with what rights, from what procfs says of it.
//!
//! Reads no file.

use std::fmt;

use serde::Serialize;

/// The first pid namespace, as `/proc/PID/ns/pid` links to it (include/linux/proc_ns.h, `PROC_PID_INIT_INO`, 3.8).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// The first user namespace, as `/proc/PID/ns/user` links to it (`PROC_USER_INIT_INO`, 3.8).
const FIRST_USERS: &str = "user:[4026531837]";

/// The user namespace that the agent runs in: only in the host's do capabilities hold for eBPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UserNamespace {
    /// The host's.
    Host,
    /// A nested one.
    Nested,
    /// Procfs does not tell.
    Unknown,
}

impl UserNamespace {
    /// Concludes it from the link `/proc/self/ns/user`.
    pub fn of(namespace: Option<&str>) -> Self {
        match namespace {
            Some(FIRST_USERS) => Self::Host,
            Some(_) => Self::Nested,
            None => Self::Unknown,
        }
    }
}

impl fmt::Display for UserNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host's",
            Self::Nested => "nested: capabilities do not hold for eBPF",
            Self::Unknown => "unknown",
        })
    }
}

/// The pid namespace that the agent runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PidNamespace {
    /// The host's.
    Host,
    /// A nested one, beside a `/proc` of an outer one.
    NestedWithOuterProc,
    /// A nested one, and so is `/proc`.
    Nested,
    /// Procfs does not tell.
    Unknown,
}

impl PidNamespace {
    /// Concludes it from the link `/proc/self/ns/pid`, the link `/proc/self`, and the process's own id.
    pub fn of(namespace: Option<&str>, proc_self: Option<&str>, own_pid: u32) -> Self {
        let (Some(namespace), Some(proc_self)) = (namespace, proc_self) else {
            return Self::Unknown;
        };
        if namespace == FIRST_NAMESPACE {
            Self::Host
        } else if proc_self.parse() == Ok(own_pid) {
            Self::Nested
        } else {
            // Procfs calls a process by the id that it has where procfs was mounted.
            Self::NestedWithOuterProc
        }
    }
}

impl fmt::Display for PidNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host's",
            Self::NestedWithOuterProc => "nested, with an outer /proc",
            Self::Nested => "nested",
            Self::Unknown => "unknown",
        })
    }
}

/// The option `hidepid` of the `/proc` in `/proc/self/mountinfo`, as it stands there; `None` if nothing is hidden.
pub(crate) fn hidepid(mountinfo: &str) -> Option<String> {
    // The last mount on a point is the one that is seen.
    let proc = mountinfo.lines().rev().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_proc = mount.split(' ').nth(4) == Some("/proc");
        is_proc.then_some(filesystem)
    })?;
    let options = proc.split(' ').nth(2)?;
    let value = options
        .split(',')
        .find_map(|option| option.strip_prefix("hidepid="))?;
    (!matches!(value, "0" | "off")).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_known_by_its_link_and_by_whose_procfs_is_there() {
        let (first, other) = (Some(FIRST_NAMESPACE), Some("pid:[4026532201]"));
        for (namespace, proc_self, expected) in [
            (first, Some("7"), PidNamespace::Host),
            (other, Some("7"), PidNamespace::Nested),
            (other, Some("4711"), PidNamespace::NestedWithOuterProc),
            (None, Some("7"), PidNamespace::Unknown),
            (other, None, PidNamespace::Unknown),
        ] {
            let found = PidNamespace::of(namespace, proc_self, 7);
            assert_eq!(found, expected, "{namespace:?} {proc_self:?}");
        }
    }

    #[test]
    fn only_the_first_user_namespace_is_the_hosts() {
        for (namespace, expected) in [
            (Some(FIRST_USERS), UserNamespace::Host),
            (Some("user:[4026532201]"), UserNamespace::Nested),
            (None, UserNamespace::Unknown),
        ] {
            assert_eq!(UserNamespace::of(namespace), expected, "{namespace:?}");
        }
    }

    #[test]
    fn hidden_processes_are_told_by_the_last_mount_on_proc() {
        let plain = "22 27 0:21 / /proc rw,relatime - proc proc rw\n";
        let hidden = "22 27 0:21 / /proc rw - proc proc rw,gid=9,hidepid=invisible\n";
        let elsewhere = "22 27 0:21 / /srv/proc rw - proc proc rw,hidepid=2\n";
        let off = "22 27 0:21 / /proc rw shared:7 - proc proc rw,hidepid=off\n";
        for (mountinfo, expected) in [
            (plain.to_owned(), None),
            (hidden.to_owned(), Some("invisible")),
            (format!("{plain}{hidden}{elsewhere}"), Some("invisible")),
            (format!("{hidden}{plain}"), None),
            (off.to_owned(), None),
            ("22 27 0:21 / /proc".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(hidepid(&mountinfo).as_deref(), expected, "{mountinfo:?}");
        }
    }
}
