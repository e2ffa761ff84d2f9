//! Parses the kernel settings that limit eBPF programs.
//!
//! Pure functions of what `host` read.
//! Does not depend on: the host's files, the findings.

use std::fmt;

use serde::Serialize;

/// Kernel lockdown (`/sys/kernel/security/lockdown`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lockdown {
    /// Off.
    None,
    /// User space cannot modify the running kernel.
    Integrity,
    /// User space cannot read its memory either.
    Confidentiality,
}

impl Lockdown {
    /// Reads `none [integrity] confidentiality`; `None` if no known mode is selected.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once('[')?;
        match rest.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }
}

impl fmt::Display for Lockdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        })
    }
}

/// Whether the kernel compiles eBPF programs (`net.core.bpf_jit_enable`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Jit {
    /// No: they are interpreted.
    Off,
    /// Yes.
    On,
    /// Yes, and it writes them to its log.
    Debug,
}

impl Jit {
    /// Reads the setting; `None` if it is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "0" => Some(Self::Off),
            "1" => Some(Self::On),
            "2" => Some(Self::Debug),
            _ => None,
        }
    }
}

impl fmt::Display for Jit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off: eBPF programs are interpreted, which costs more CPU time",
            Self::On => "on",
            Self::Debug => "on, with debug output to the kernel's log",
        })
    }
}

/// Whether a process without capabilities may load programs (`kernel.unprivileged_bpf_disabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unprivileged {
    /// Yes, of some types.
    Allowed,
    /// No, until the next boot.
    ForbiddenForGood,
    /// No, until an administrator allows it.
    Forbidden,
}

impl Unprivileged {
    /// Reads the setting; `None` if it is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "0" => Some(Self::Allowed),
            "1" => Some(Self::ForbiddenForGood),
            "2" => Some(Self::Forbidden),
            _ => None,
        }
    }
}

impl fmt::Display for Unprivileged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed, for program types that the agent does not use",
            Self::ForbiddenForGood => "forbidden until the next boot",
            Self::Forbidden => "forbidden",
        })
    }
}

/// Parses the names of the active security modules (`/sys/kernel/security/lsm`).
pub(crate) fn modules(text: &str) -> Vec<String> {
    let names = text.trim().split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_is_the_mode_in_brackets() {
        for (text, expected) in [
            ("[none] integrity confidentiality\n", Some(Lockdown::None)),
            (
                "none [integrity] confidentiality\n",
                Some(Lockdown::Integrity),
            ),
            (
                "none integrity [confidentiality]\n",
                Some(Lockdown::Confidentiality),
            ),
            ("none integrity confidentiality", None),
            ("[none", None),
            ("[more]", None),
            ("", None),
        ] {
            assert_eq!(Lockdown::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn settings_are_parsed_from_their_numbers() {
        for (text, jit, unprivileged) in [
            ("0\n", Some(Jit::Off), Some(Unprivileged::Allowed)),
            ("1\n", Some(Jit::On), Some(Unprivileged::ForbiddenForGood)),
            ("2", Some(Jit::Debug), Some(Unprivileged::Forbidden)),
            ("3\n", None, None),
            ("", None, None),
        ] {
            assert_eq!(Jit::parse(text), jit, "{text:?}");
            assert_eq!(Unprivileged::parse(text), unprivileged, "{text:?}");
        }
    }

    #[test]
    fn modules_are_separated_by_commas() {
        assert_eq!(modules("lockdown,yama,bpf\n"), ["lockdown", "yama", "bpf"]);
        assert!(modules("\n").is_empty());
    }
}
