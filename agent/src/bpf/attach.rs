//! Attaches all programs of a candidate, or none.
//!
//! The loader calls this for each hook.
//! Does not depend on: attach modes, fallback order.

use std::{
    fmt::Debug,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, KProbe, Program, ProgramError, ProgramFd,
        RawTracePoint, TracePoint,
    },
    sys::SyscallError,
};
use rustix::io::Errno;
use tracing::debug;

use crate::bpf::{
    attach_mode::ProgramType,
    btf::Types,
    hooks::{Backup, Candidate, ProgramSpec},
    kretprobe::Kretprobe,
    preemption::Preemption,
    report::{RefusalKind, Refused},
    syscall,
};

/// Type information of the running kernel.
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// Types by name, to look up functions.
    pub types: &'a Types<'a>,
    /// The same types, for aya.
    pub btf: &'a Btf,
}

/// A program and its target. Dropping it detaches the program.
#[derive(Debug)]
pub enum Attachment {
    /// A BTF-typed program, which can be detached and attached again at any time.
    Typed {
        /// The loaded program.
        program: ProgramFd,
        /// Open while it is attached.
        link: Option<OwnedFd>,
    },
    /// Any other program: most of them need a capability to be attached again.
    Fixed(Box<dyn Debug + Send>),
}

impl Attachment {
    /// Attaches the program, if it is not attached.
    pub fn attach(&mut self) -> Result<(), SyscallError> {
        if let Self::Typed {
            program,
            link: link @ None,
        } = self
        {
            let opened = syscall::attach_typed(program.as_fd());
            *link = Some(opened.map_err(|io_error| SyscallError {
                call: "bpf_raw_tracepoint_open",
                io_error,
            })?);
        }
        Ok(())
    }

    /// Whether the program runs at its target.
    pub fn is_attached(&self) -> bool {
        !matches!(self, Self::Typed { link: None, .. })
    }

    /// Detaches the program, if it can be attached again.
    pub fn detach(&mut self) {
        if let Self::Typed { link, .. } = self {
            *link = None;
        }
    }
}

/// Attaches all programs of `candidate`, with backup copies where `preemption` requires them.
///
/// An iterator is only loaded: each run attaches it.
pub fn attach(
    ebpf: &mut Ebpf,
    kernel: Kernel<'_>,
    candidate: &Candidate,
    preemption: Preemption,
) -> Result<Vec<Attachment>, Refused> {
    let mut loaded = Vec::new();
    let mut attached = Vec::new();
    for copy in copies(candidate, preemption) {
        let Copy { name, spec, .. } = &copy;
        debug!(program = name, target = spec.target, "attaching");
        if spec.optional && !kernel.types.has_function(spec.target) {
            continue;
        }
        match attach_program(ebpf, kernel, &copy, &mut attached) {
            Ok(true) => loaded.push(copy.name),
            Ok(false) => {}
            Err((_, reason)) if copy.may_be_missing => {
                debug!(program = name, reason, "backup copy not attached");
            }
            Err((kind, reason)) => {
                drop(attached);
                for name in loaded {
                    unload(ebpf, &name);
                }
                return Err(Refused {
                    program_type: copy.program_type,
                    target: spec.target,
                    kind,
                    reason,
                });
            }
        }
    }
    Ok(attached)
}

/// A program of the object, the primary or a backup copy.
struct Copy<'a> {
    name: String,
    program_type: ProgramType,
    spec: &'a ProgramSpec,
    /// Whether the candidate may do without it.
    may_be_missing: bool,
}

impl Copy<'_> {
    /// The tracepoint or function; a tracepoint is named without the group of its trace event.
    fn target(&self) -> &'static str {
        let target = self.spec.target;
        match self.program_type {
            ProgramType::TpBtf => target.rsplit_once('/').map_or(target, |(_, name)| name),
            _ => target,
        }
    }
}

/// Lists the programs in the order in which they are attached, so that backup copies run after the primary ones.
fn copies(candidate: &Candidate, preemption: Preemption) -> Vec<Copy<'_>> {
    let primaries = candidate.programs.iter().map(|spec| Copy {
        name: spec.name.to_owned(),
        program_type: candidate.program_type,
        spec,
        may_be_missing: false,
    });
    let backups = candidate.programs.iter().filter_map(|spec| {
        let (program_type, may_be_missing) = match spec.backup {
            Backup::None => return None,
            Backup::Twin => (candidate.program_type, false),
            // Trampolines are not available everywhere.
            Backup::Other(program_type) => (program_type, program_type == ProgramType::Fentry),
        };
        let is_wanted = spec.backup != Backup::Twin || preemption.reaches(program_type);
        is_wanted.then(|| Copy {
            name: spec.backup_name(),
            program_type,
            spec,
            may_be_missing,
        })
    });
    if candidate.program_type == ProgramType::Fentry {
        // A trampoline runs the program that was attached last first (kernel/bpf/trampoline.c, `__bpf_trampoline_link_prog`).
        backups.chain(primaries).collect()
    } else {
        // A tracepoint runs them in the order in which they were attached (kernel/tracepoint.c, `func_add`).
        primaries.chain(backups).collect()
    }
}

/// Returns whether the program was loaded for this; otherwise the kind of refusal and the reason as one line.
fn attach_program(
    ebpf: &mut Ebpf,
    kernel: Kernel<'_>,
    copy: &Copy<'_>,
    attached: &mut Vec<Attachment>,
) -> Result<bool, (RefusalKind, String)> {
    let (name, program_type, spec, target) =
        (&*copy.name, copy.program_type, copy.spec, copy.target());
    let unavailable = |reason: String| Err((RefusalKind::Unavailable, reason));
    let needs_function = matches!(program_type, ProgramType::Fentry | ProgramType::Kprobe);
    if needs_function && !kernel.types.has_function(target) {
        return unavailable("this kernel has no such function".into());
    }
    let Some(program) = ebpf.program_mut(name) else {
        return unavailable(format!("this build has no program {name}"));
    };
    let outcome = match program_type {
        ProgramType::TpBtf => tp_btf(program, kernel.btf, target),
        ProgramType::Fentry if spec.at_return => fexit(program, kernel.btf, target),
        ProgramType::Fentry => fentry(program, kernel.btf, target),
        ProgramType::Kprobe if spec.at_return => {
            let (is_first, probe) = kretprobe(program, spec)?;
            Ok((is_first, Some(fixed(probe))))
        }
        ProgramType::Kprobe => kprobe(program, target),
        ProgramType::RawTp => raw_tp(program, target),
        ProgramType::Tracepoint => tracepoint(program, target),
        ProgramType::Iter => iter(program, kernel.btf, target),
    };
    if let Ok(info) = program.info() {
        debug!(program = name, steps = ?info.verified_instruction_count(), "program verified");
    }
    let (is_first, attachment) = outcome.map_err(|err| refusal(name, err))?;
    attached.extend(attachment);
    Ok(is_first)
}

/// Whether the program was loaded for this, and what keeps it attached.
type Outcome = Result<(bool, Option<Attachment>), ProgramError>;

fn tp_btf(program: &mut Program, btf: &Btf, target: &str) -> Outcome {
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(target, btf)?;
    typed(program.fd()?)
}

fn fentry(program: &mut Program, btf: &Btf, target: &str) -> Outcome {
    let program: &mut FEntry = program.try_into()?;
    program.load(target, btf)?;
    typed(program.fd()?)
}

fn fexit(program: &mut Program, btf: &Btf, target: &str) -> Outcome {
    let program: &mut FExit = program.try_into()?;
    program.load(target, btf)?;
    typed(program.fd()?)
}

fn typed(program: &ProgramFd) -> Outcome {
    let mut attachment = Attachment::Typed {
        program: program.try_clone()?,
        link: None,
    };
    attachment.attach()?;
    Ok((true, Some(attachment)))
}

fn kprobe(program: &mut Program, target: &str) -> Outcome {
    let program: &mut KProbe = program.try_into()?;
    let is_first = load_kprobe(program)?;
    let id = program.attach(target, 0)?;
    Ok((is_first, Some(fixed(program.take_link(id)?))))
}

fn fixed(link: impl Debug + Send + 'static) -> Attachment {
    Attachment::Fixed(Box::new(link))
}

fn kretprobe(
    program: &mut Program,
    spec: &ProgramSpec,
) -> Result<(bool, Kretprobe), (RefusalKind, String)> {
    let loaded = (|| {
        let program: &mut KProbe = program.try_into()?;
        let is_first = load_kprobe(program)?;
        Ok((is_first, program.fd()?.try_clone()?))
    })();
    let (is_first, fd) = loaded.map_err(|err| refusal(spec.name, err))?;
    Ok((is_first, Kretprobe::attach(fd.as_fd(), spec.target)?))
}

/// Loads a program that may be attached to several functions; returns whether it was not loaded yet.
fn load_kprobe(program: &mut KProbe) -> Result<bool, ProgramError> {
    match program.load() {
        Ok(()) => Ok(true),
        Err(ProgramError::AlreadyLoaded) => Ok(false),
        Err(err) => Err(err),
    }
}

fn raw_tp(program: &mut Program, target: &str) -> Outcome {
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    let id = program.attach(target)?;
    Ok((true, Some(fixed(program.take_link(id)?))))
}

/// Attaches the program to `target`, `group/name` of a perf event.
fn tracepoint(program: &mut Program, target: &str) -> Outcome {
    let program: &mut TracePoint = program.try_into()?;
    program.load()?;
    let (group, name) = target.split_once('/').unwrap_or(("", target));
    let id = program.attach(group, name)?;
    Ok((true, Some(fixed(program.take_link(id)?))))
}

fn iter(program: &mut Program, btf: &Btf, target: &str) -> Outcome {
    let program: &mut Iter = program.try_into()?;
    program.load(target, btf)?;
    Ok((true, None))
}

fn unload(ebpf: &mut Ebpf, name: &str) {
    let Some(program) = ebpf.program_mut(name) else {
        return;
    };
    let outcome = match program {
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        _ => Ok(()),
    };
    if let Err(err) = outcome {
        debug!(program = name, %err, "program not unloaded");
    }
}

/// Returns the kind of a refusal and the reason as one line. The verifier's log is too long and goes to the debug log.
fn refusal(program: &str, err: ProgramError) -> (RefusalKind, String) {
    let unavailable = |reason: String| (RefusalKind::Unavailable, reason);
    match err {
        ProgramError::Btf(_) => {
            unavailable("this kernel has no such tracepoint or function".into())
        }
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            debug!(program, %verifier_log, "program refused");
            if is_not_permitted(&io_error) {
                return not_permitted();
            }
            let log = verifier_log.to_string();
            unavailable(match verdict(&log) {
                Some(verdict) => format!("the verifier refused it: {verdict}"),
                None => format!("not loaded: {io_error}"),
            })
        }
        ProgramError::SyscallError(err) if is_not_permitted(&err.io_error) => not_permitted(),
        ProgramError::SyscallError(err) => {
            let kind = match err.io_error.kind() {
                io::ErrorKind::PermissionDenied => RefusalKind::NotPermitted,
                _ => RefusalKind::Unavailable,
            };
            (kind, format!("{}: {}", err.call, err.io_error))
        }
        ProgramError::KProbeError(_) => unavailable("this kernel has no kprobes".into()),
        err => unavailable(anyhow::Error::new(err).to_string().replace('\n', " ")),
    }
}

fn not_permitted() -> (RefusalKind, String) {
    (
        RefusalKind::NotPermitted,
        "operation not permitted".to_owned(),
    )
}

fn is_not_permitted(err: &io::Error) -> bool {
    // The verifier uses EACCES, which has the same `ErrorKind`.
    err.raw_os_error() == Some(Errno::PERM.raw_os_error())
}

/// Starts of the statistics lines that end every verifier log.
const STATISTICS: [&str; 5] = [
    "processed ",
    "stack depth ",
    "subprog ",
    "verification time ",
    "#",
];

/// Returns the line of the verifier's log that gives the reason.
fn verdict(log: &str) -> Option<&str> {
    log.lines().rev().map(str::trim).find(|line| {
        let is_statistic = STATISTICS.iter().any(|start| line.starts_with(start));
        !line.is_empty() && !is_statistic
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_is_the_last_line_before_the_statistics() {
        let log = "0: R1=ctx(off=0,imm=0) R10=fp0\n5: (85) call bpf_loop#181\ninvalid func unknown#181\n\
                   verification time 93 usec\nstack depth 0+8\nprocessed 5 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(verdict(log), Some("invalid func unknown#181"));
        assert_eq!(verdict(""), None);
    }
}
