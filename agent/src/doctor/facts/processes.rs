//! Concludes which processes the agent can see, and in which namespaces it runs.
//!
//! Pure functions of what `host` read from procfs.
//! Does not depend on: the host's files, the findings.

use std::fmt;

use serde::Serialize;

/// The host's PID namespace, as `/proc/PID/ns/pid` links to it (include/linux/proc_ns.h, `PROC_PID_INIT_INO`, 3.8).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// PID namespace of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PidNamespace {
    /// The host's.
    Host,
    /// A nested one, with the `/proc` of an outer one.
    NestedWithOuterProc,
    /// A nested one, with its own `/proc`.
    Nested,
    /// Procfs is not readable.
    Unknown,
}

impl PidNamespace {
    /// Concludes the namespace from the links `/proc/self/ns/pid` and `/proc/self`, and from the process id.
    pub fn of(namespace: Option<&str>, proc_self: Option<&str>, own_pid: u32) -> Self {
        let (Some(namespace), Some(proc_self)) = (namespace, proc_self) else {
            return Self::Unknown;
        };
        if namespace == FIRST_NAMESPACE {
            Self::Host
        } else if proc_self.parse() == Ok(own_pid) {
            Self::Nested
        } else {
            // Procfs shows the process ids of the namespace in which it was mounted.
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

/// Returns the mount option `hidepid` of `/proc` from `/proc/self/mountinfo`; `None` if no process is hidden.
pub(crate) fn hidepid(mountinfo: &str) -> Option<String> {
    // The last mount on a mount point hides the earlier ones.
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
    fn pid_namespace_follows_from_its_link_and_procfs() {
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
    fn hidepid_is_that_of_the_last_mount_on_proc() {
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
