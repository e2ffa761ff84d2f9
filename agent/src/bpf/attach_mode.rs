//! Names the attach modes and the eBPF program types that they use.
//!
//! `--attach-mode` limits the loader to one mode; the hook table says which programs each mode has.
//! Does not depend on: programs, the kernel.

use std::{fmt, str::FromStr};

/// A way to observe sockets, in fallback order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachMode {
    /// BTF-typed tracepoints of sockets: Linux 6.3 and later.
    Tracepoint,
    /// Entry and return of kernel functions, through a trampoline.
    Fentry,
    /// Entry and return of kernel functions, through kprobes.
    Kprobe,
    /// System calls only: arrival times are unknown.
    Syscall,
}

impl AttachMode {
    /// Every mode, in fallback order.
    pub const ALL: [Self; 4] = [Self::Tracepoint, Self::Fentry, Self::Kprobe, Self::Syscall];

    /// Value of `--attach-mode`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Syscall => "syscall",
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AttachMode {
    type Err = UnknownAttachMode;

    fn from_str(name: &str) -> Result<Self, UnknownAttachMode> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or(UnknownAttachMode)
    }
}

/// No attach mode has that name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("give tracepoint, fentry, kprobe or syscall")]
pub struct UnknownAttachMode;

/// Type of an eBPF program, under the kernel's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramType {
    /// A BTF-typed tracepoint.
    TpBtf,
    /// Entry or return of a function, through a trampoline.
    Fentry,
    /// Entry or return of a function, through a breakpoint or ftrace.
    Kprobe,
    /// A tracepoint with untyped arguments.
    RawTp,
    /// A tracepoint through a perf event.
    Tracepoint,
    /// An iterator, which runs when the agent reads it.
    Iter,
}

impl ProgramType {
    /// Value of the label `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::RawTp => "raw_tp",
            Self::Tracepoint => "tracepoint",
            Self::Iter => "iter",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attach_mode_is_parsed_from_its_exact_name() {
        for mode in AttachMode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert_eq!("kprobes".parse::<AttachMode>(), Err(UnknownAttachMode));
    }

    #[test]
    fn attach_modes_are_in_fallback_order() {
        assert!(AttachMode::ALL.is_sorted());
    }
}
