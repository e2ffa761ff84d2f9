//! The architectures that the agent is for, and what each is called by whom.

use std::env::consts;

use clap::ValueEnum;

/// An architecture, as Debian names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[default]
    Amd64,
    Arm64,
}

impl Arch {
    /// All of them.
    const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// The one that this program was built for, and runs on.
    pub(crate) fn own() -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.machine() == consts::ARCH)
    }

    /// The one of a target as rustc names it.
    pub(crate) fn of_target(target: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.target() == target)
    }

    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The kernel's name, which is also Rust's and qemu's.
    pub(crate) fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// The target that the agent is built for.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_tells_its_architecture() {
        for arch in Arch::ALL {
            assert_eq!(Arch::of_target(arch.target()), Some(arch));
            assert!(arch.target().starts_with(arch.machine()));
        }
        assert_eq!(Arch::of_target("aarch64-unknown-linux-musl"), None);
    }
}
