//! The ladder of hooks: for each thing that the agent wants to be told, the kinds of program that can tell it, best first,
//! and which of them this kernel took.
//!
//! Knows no program: the loader tries them.

use std::{fmt, str::FromStr};

/// Kinds of program that watch sockets, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachMode {
    /// Typed tracepoints of sockets: Linux 6.3 and later.
    Tracepoint,
    /// The entry and the return of kernel functions, through a trampoline.
    Fentry,
    /// The same, through kprobes.
    Kprobe,
    /// System calls alone: nobody tells when bytes arrive.
    Syscall,
}

impl AttachMode {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::Tracepoint, Self::Fentry, Self::Kprobe, Self::Syscall];

    /// What `--rung` calls it.
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
            .find(|rung| rung.name() == name)
            .ok_or(UnknownAttachMode)
    }
}

/// No rung has that name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("give tracepoint, fentry, kprobe or syscall")]
pub struct UnknownAttachMode;

/// ProgramType of program, by the kernel's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramType {
    /// A typed tracepoint.
    TpBtf,
    /// Entry or return of a function, through a trampoline.
    Fentry,
    /// Entry or return of a function, through a breakpoint or ftrace.
    Kprobe,
    /// A tracepoint with untyped arguments.
    RawTp,
    /// A tracepoint of perf events.
    Tracepoint,
    /// An iterator, which runs when it is read.
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

/// What became of one hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookReport {
    /// Its name, and the value of the label `hook`.
    pub hook: &'static str,
    /// What it is on; `None`: on nothing, so that what it tells is lost.
    pub kind: Option<ProgramType>,
    /// What was tried before, best first.
    pub refused: Vec<Refused>,
}

/// Why a hook is not on a better kind of program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The kind.
    pub kind: ProgramType,
    /// Function or tracepoint that it was to be on.
    pub target: &'static str,
    /// What stood in the way, as one line.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_is_known_by_its_name_alone() {
        for rung in AttachMode::ALL {
            assert_eq!(rung.name().parse(), Ok(rung));
        }
        assert_eq!("kprobes".parse::<AttachMode>(), Err(UnknownAttachMode));
    }

    #[test]
    fn rungs_stand_best_first() {
        assert!(AttachMode::ALL.is_sorted());
    }
}
