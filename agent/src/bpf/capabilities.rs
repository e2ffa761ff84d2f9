//! Reads which capabilities the calling thread has, and names them.
//!
//! Preflight, privileges and the doctor check them.
//! Does not depend on: what the agent needs them for.

use std::{fmt, fs};

/// Names by number (include/uapi/linux/capability.h), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(u32);

impl Capability {
    /// Ignoring the mode of files: everything that [`Self::DAC_READ_SEARCH`] allows, and writing.
    pub const DAC_OVERRIDE: Self = Self(1);
    /// Reading files and listing folders whose mode forbids it.
    pub const DAC_READ_SEARCH: Self = Self(2);
    /// Changing the bounding set.
    pub const SETPCAP: Self = Self(8);
    /// Inspecting processes of other users.
    pub const SYS_PTRACE: Self = Self(19);
    /// Everything that [`Self::PERFMON`] and [`Self::BPF`] allow, and much more.
    pub const SYS_ADMIN: Self = Self(21);
    /// Exceeding resource limits.
    pub const SYS_RESOURCE: Self = Self(24);
    /// Reading kernel memory from eBPF programs.
    pub const PERFMON: Self = Self(38);
    /// Loading eBPF programs and creating their maps.
    pub const BPF: Self = Self(39);

    /// Returns the capability with the kernel's number.
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Returns the kernel's number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => write!(f, "CAP_{name}"),
            None => write!(f, "CAP_{}", self.0),
        }
    }
}

/// A set of capabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Makes a set from its mask, which has a bit for each number.
    pub const fn from_mask(mask: u64) -> Self {
        Self(mask)
    }

    /// Returns the mask, which has a bit for each number.
    pub const fn mask(self) -> u64 {
        self.0
    }

    /// Reads the effective set of the calling thread; empty if procfs is not readable.
    pub fn effective() -> Self {
        Self::own("CapEff:")
    }

    /// Reads the set that the calling thread may make effective.
    pub fn permitted() -> Self {
        Self::own("CapPrm:")
    }

    /// Reads the upper limit for programs that the calling thread executes.
    pub fn bounding() -> Self {
        Self::own("CapBnd:")
    }

    fn own(key: &str) -> Self {
        // Capabilities belong to threads, and /proc/self/status describes the first thread.
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        Self::parse(&status, key)
    }

    /// Parses the mask after `key` in the text of `/proc/PID/status`; the empty set if there is none.
    fn parse(status: &str, key: &str) -> Self {
        let mask = status.lines().find_map(|line| line.strip_prefix(key));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Self(mask.unwrap_or(0))
    }

    /// Returns whether `capability` is in the set.
    pub const fn holds(self, capability: Capability) -> bool {
        capability.0 < u64::BITS && self.0 >> capability.0 & 1 == 1
    }

    /// Returns those of `wanted` that are in the set.
    pub fn only(self, wanted: &[Capability]) -> Self {
        let wanted = wanted.iter().filter(|one| self.holds(**one));
        Self(wanted.fold(0, |mask, one| mask | 1 << one.0))
    }

    /// Iterates over the set, by number.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..u64::BITS)
            .map(Capability)
            .filter(move |capability| self.holds(*capability))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("none");
        }
        for (index, one) in self.iter().enumerate() {
            let gap = if index > 0 { " " } else { "" };
            write!(f, "{gap}{one}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_finds_the_mask_by_its_key() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001c000080004\n";
        let names = |key: &str| -> Vec<String> {
            let set = Capabilities::parse(status, key);
            set.iter().map(|one| one.to_string()).collect()
        };
        assert_eq!(
            names("CapEff:"),
            [
                "CAP_DAC_READ_SEARCH",
                "CAP_SYS_PTRACE",
                "CAP_PERFMON",
                "CAP_BPF",
                "CAP_CHECKPOINT_RESTORE",
            ]
        );
        assert!(names("CapPrm:").is_empty());
        assert!(names("CapBnd:").is_empty());
    }

    #[test]
    fn invalid_mask_is_the_empty_set() {
        for status in ["", "CapEff:", "CapEff:\tall\n", "CapEff:\t-1\n"] {
            let set = Capabilities::parse(status, "CapEff:");
            assert_eq!(set, Capabilities::default(), "{status:?}");
        }
    }

    #[test]
    fn set_is_displayed_as_a_line() {
        let set = Capabilities::from_mask(1 << 39 | 1 << 38 | 1 << 19);
        assert_eq!(set.to_string(), "CAP_SYS_PTRACE CAP_PERFMON CAP_BPF");
        let wanted = [Capability::BPF, Capability::SYS_ADMIN];
        assert_eq!(set.only(&wanted).to_string(), "CAP_BPF");
        assert_eq!(set.only(&wanted[1..]).to_string(), "none");
    }

    #[test]
    fn named_capabilities_have_the_kernels_numbers() {
        for (capability, name) in [
            (Capability::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
            (Capability::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
            (Capability::SETPCAP, "CAP_SETPCAP"),
            (Capability::SYS_PTRACE, "CAP_SYS_PTRACE"),
            (Capability::SYS_ADMIN, "CAP_SYS_ADMIN"),
            (Capability::SYS_RESOURCE, "CAP_SYS_RESOURCE"),
            (Capability::PERFMON, "CAP_PERFMON"),
            (Capability::BPF, "CAP_BPF"),
            (Capability::from_number(63), "CAP_63"),
        ] {
            assert_eq!(capability.to_string(), name);
        }
        assert!(!Capabilities::from_mask(u64::MAX).holds(Capability::from_number(64)));
    }
}
