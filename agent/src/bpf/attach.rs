//! Attaches one way to be told something: all of its programs, or none.

use std::{io, os::fd::AsFd as _};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, KProbe, Program, ProgramError, RawTracePoint,
        TracePoint,
    },
};
use rustix::io::Errno;
use tracing::debug;

use crate::bpf::{
    attach_mode::{ProgramType, Refused},
    btf::Types,
    hooks::{Candidate, ProgramSpec},
    kretprobe::Kretprobe,
};

/// What attaching takes beside the programs.
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// Its types, for names of functions.
    pub types: &'a Types<'a>,
    /// The same, as the loader of programs wants them.
    pub btf: &'a Btf,
}

/// Attaches all programs of `way`, `twice`: with their second copies; what must be kept for them beside the object. An
/// iterator is loaded alone: it is attached each time that it runs.
pub fn attach(
    ebpf: &mut Ebpf,
    kernel: Kernel<'_>,
    way: &Candidate,
    twice: bool,
) -> Result<Vec<Kretprobe>, Refused> {
    let mut loaded = Vec::new();
    let mut kept = Vec::new();
    for (program, part) in copies(way, twice) {
        debug!(program, target = part.target, "attach");
        if part.optional && !kernel.types.has_function(part.target) {
            continue;
        }
        match attach_part(ebpf, kernel, way.kind, &program, part, &mut kept) {
            Ok(true) => loaded.push(program),
            Ok(false) => {}
            Err(reason) => {
                drop(kept);
                for program in loaded {
                    unload(ebpf, &program);
                }
                return Err(Refused {
                    kind: way.kind,
                    target: part.target,
                    reason,
                });
            }
        }
    }
    Ok(kept)
}

/// The programs of `way` in the order in which they are attached, so that second copies run behind the first ones.
fn copies(way: &Candidate, twice: bool) -> Vec<(String, &ProgramSpec)> {
    let firsts = way.parts.iter().map(|part| (part.program.to_owned(), part));
    let seconds = way.parts.iter().filter(|part| twice && part.twice);
    let seconds = seconds.map(|part| (part.second(), part));
    if way.kind == ProgramType::Fentry {
        // A trampoline calls the latest one first (kernel/bpf/trampoline.c, `__bpf_trampoline_link_prog`).
        seconds.chain(firsts).collect()
    } else {
        // A tracepoint calls them in their order (kernel/tracepoint.c, `func_add`).
        firsts.chain(seconds).collect()
    }
}

/// Returns whether the program was loaded for it; the reason as a line if it could not be had.
fn attach_part(
    ebpf: &mut Ebpf,
    kernel: Kernel<'_>,
    kind: ProgramType,
    name: &str,
    part: &ProgramSpec,
    kept: &mut Vec<Kretprobe>,
) -> Result<bool, String> {
    let is_on_function = matches!(kind, ProgramType::Fentry | ProgramType::Kprobe);
    if is_on_function && !kernel.types.has_function(part.target) {
        return Err("this kernel has no such function".into());
    }
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("this build has no program {name}"))?;
    let outcome = match kind {
        ProgramType::TpBtf => tp_btf(program, kernel.btf, part.target),
        ProgramType::Fentry if part.at_return => fexit(program, kernel.btf, part.target),
        ProgramType::Fentry => fentry(program, kernel.btf, part.target),
        ProgramType::Kprobe if part.at_return => {
            let (is_first, probe) = kretprobe(program, part)?;
            kept.push(probe);
            Ok(is_first)
        }
        ProgramType::Kprobe => kprobe(program, part.target),
        ProgramType::RawTp => raw_tp(program, part.target),
        ProgramType::Tracepoint => tracepoint(program, part.target),
        ProgramType::Iter => iter(program, kernel.btf, part.target),
    };
    if let Ok(info) = program.info() {
        debug!(program = name, steps = ?info.verified_instruction_count(), "verified");
    }
    outcome.map_err(|err| reason(part, err))
}

fn tp_btf(program: &mut Program, btf: &Btf, target: &str) -> Result<bool, ProgramError> {
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(target, btf)?;
    program.attach()?;
    Ok(true)
}

fn fentry(program: &mut Program, btf: &Btf, target: &str) -> Result<bool, ProgramError> {
    let program: &mut FEntry = program.try_into()?;
    program.load(target, btf)?;
    program.attach()?;
    Ok(true)
}

fn fexit(program: &mut Program, btf: &Btf, target: &str) -> Result<bool, ProgramError> {
    let program: &mut FExit = program.try_into()?;
    program.load(target, btf)?;
    program.attach()?;
    Ok(true)
}

fn kprobe(program: &mut Program, target: &str) -> Result<bool, ProgramError> {
    let program: &mut KProbe = program.try_into()?;
    let is_first = load_kprobe(program)?;
    program.attach(target, 0)?;
    Ok(is_first)
}

fn kretprobe(program: &mut Program, part: &ProgramSpec) -> Result<(bool, Kretprobe), String> {
    let loaded = (|| {
        let program: &mut KProbe = program.try_into()?;
        let is_first = load_kprobe(program)?;
        Ok((is_first, program.fd()?.try_clone()?))
    })();
    let (is_first, fd) = loaded.map_err(|err| reason(part, err))?;
    Ok((is_first, Kretprobe::attach(fd.as_fd(), part.target)?))
}

/// Loads a program that may be on several functions; whether that was still to do.
fn load_kprobe(program: &mut KProbe) -> Result<bool, ProgramError> {
    match program.load() {
        Ok(()) => Ok(true),
        Err(ProgramError::AlreadyLoaded) => Ok(false),
        Err(err) => Err(err),
    }
}

fn raw_tp(program: &mut Program, target: &str) -> Result<bool, ProgramError> {
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    program.attach(target)?;
    Ok(true)
}

/// `target`: the event's group and name, with a slash between them.
fn tracepoint(program: &mut Program, target: &str) -> Result<bool, ProgramError> {
    let program: &mut TracePoint = program.try_into()?;
    program.load()?;
    let (group, name) = target.split_once('/').unwrap_or(("", target));
    program.attach(group, name)?;
    Ok(true)
}

fn iter(program: &mut Program, btf: &Btf, target: &str) -> Result<bool, ProgramError> {
    let program: &mut Iter = program.try_into()?;
    program.load(target, btf)?;
    Ok(true)
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
        debug!(name, %err, "not unloaded");
    }
}

/// Why a program is not where it should be, as a line. The verifier's log, of thousands, goes to the debug log.
fn reason(part: &ProgramSpec, err: ProgramError) -> String {
    let program = part.program;
    match err {
        ProgramError::Btf(_) => "this kernel has no such tracepoint or function".into(),
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            debug!(program, %verifier_log, "refused");
            let log = verifier_log.to_string();
            match is_permission(&io_error) {
                true => refused_permission(),
                false => match verdict(&log) {
                    Some(verdict) => format!("the verifier refused it: {verdict}"),
                    None => format!("not loaded: {io_error}"),
                },
            }
        }
        ProgramError::SyscallError(err) => match is_permission(&err.io_error) {
            true => refused_permission(),
            false => format!("{}: {}", err.call, err.io_error),
        },
        ProgramError::KProbeError(_) => "this kernel has no kprobes".into(),
        err => anyhow::Error::new(err).to_string().replace('\n', " "),
    }
}

fn is_permission(err: &io::Error) -> bool {
    // EACCES, which has the same kind, is the verifier's.
    err.raw_os_error() == Some(Errno::PERM.raw_os_error())
}

/// What a refusal for want of permission is called.
pub const NOT_PERMITTED: &str = "operation not permitted";

fn refused_permission() -> String {
    NOT_PERMITTED.into()
}

/// What the verifier's log ends with, whatever it found.
const FIGURES: [&str; 5] = [
    "processed ",
    "stack depth ",
    "subprog ",
    "verification time ",
    "#",
];

/// The line of the verifier's log that says why.
fn verdict(log: &str) -> Option<&str> {
    log.lines().rev().map(str::trim).find(|line| {
        let is_figure = FIGURES.iter().any(|start| line.starts_with(start));
        !line.is_empty() && !is_figure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_last_word_of_the_log() {
        let log = "0: R1=ctx(off=0,imm=0) R10=fp0\n5: (85) call bpf_loop#181\ninvalid func unknown#181\n\
                   verification time 93 usec\nstack depth 0+8\nprocessed 5 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(verdict(log), Some("invalid func unknown#181"));
        assert_eq!(verdict(""), None);
    }
}
