//! The agent's architectures, and their names in Debian, the kernel and Rust.

use std::env::consts;

use clap::ValueEnum;

/// An architecture, with Debian's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[default]
    Amd64,
    Arm64,
}

impl Arch {
    const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Returns the architecture that this program was built for; `None` if it is another one.
    pub(crate) fn own() -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.machine() == consts::ARCH)
    }

    /// Returns the architecture of rustc's `target`.
    pub(crate) fn of_target(target: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.target() == target)
    }

    /// Returns Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Returns the kernel's name, which is also Rust's and qemu's.
    pub(crate) fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Returns the target that rustc builds the agent for.
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
    fn a_target_names_its_architecture() {
        for arch in Arch::ALL {
            assert_eq!(Arch::of_target(arch.target()), Some(arch));
            assert!(arch.target().starts_with(arch.machine()));
        }
        assert_eq!(Arch::of_target("aarch64-unknown-linux-musl"), None);
    }
}
