//! Concludes in which user namespace the agent runs: its capabilities apply to eBPF only in the host's.
//!
//! Preflight and the doctor check it.
//! Does not depend on: the programs.

use std::{fmt, fs};

use serde::Serialize;

/// The host's user namespace, as `/proc/PID/ns/user` links to it (include/linux/proc_ns.h, `PROC_USER_INIT_INO`, 3.8).
const FIRST: &str = "user:[4026531837]";

/// User namespace of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UserNamespace {
    /// The host's.
    Host,
    /// A nested one.
    Nested,
    /// Procfs is not readable.
    Unknown,
}

impl UserNamespace {
    /// Reads that of this process.
    pub fn of_this_process() -> Self {
        let link = fs::read_link("/proc/self/ns/user").ok();
        Self::of(link.as_deref().and_then(|link| link.to_str()))
    }

    /// Concludes the namespace from the link `/proc/self/ns/user`.
    fn of(namespace: Option<&str>) -> Self {
        match namespace {
            Some(FIRST) => Self::Host,
            Some(_) => Self::Nested,
            None => Self::Unknown,
        }
    }
}

impl fmt::Display for UserNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host's",
            Self::Nested => "nested: capabilities do not apply to eBPF",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_namespace_follows_from_its_link() {
        for (namespace, expected) in [
            (Some(FIRST), UserNamespace::Host),
            (Some("user:[4026532201]"), UserNamespace::Nested),
            (None, UserNamespace::Unknown),
        ] {
            assert_eq!(UserNamespace::of(namespace), expected, "{namespace:?}");
        }
    }
}
