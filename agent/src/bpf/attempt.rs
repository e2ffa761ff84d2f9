//! Lists the attempts to attach all hooks: which access and attach modes each uses, in fallback order.
//!
//! The loader tries one after the other.
//! Does not depend on: the object, the running kernel.

use crate::bpf::{
    attach_mode::{AttachMode, ProgramType},
    hook_id::HookId,
    hooks::{Candidate, Hook, ProgramAccess},
    preemption::Preemption,
};

/// One try at all hooks together, limited to one access and some attach modes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) access: ProgramAccess,
    pub(super) modes: &'static [AttachMode],
    /// Whether the attempt fails without arrival times.
    needs_arrivals: bool,
    /// Whether system calls are traced through perf events: these cost more than raw tracepoints, but run their programs
    /// with preemption off.
    perf_events: bool,
}

/// Trace events, whose programs a task cannot lose its CPU in, where it can in BTF-typed ones.
const TRACE_EVENTS: Attempt = Attempt {
    access: ProgramAccess::Shared,
    modes: &[AttachMode::Tracepoint],
    ..BTF_TYPED
};
/// Each hook uses the better of BTF-typed tracepoints and trampolines.
const BTF_TYPED: Attempt = Attempt {
    access: ProgramAccess::Btf,
    modes: &[AttachMode::Tracepoint, AttachMode::Fentry],
    needs_arrivals: true,
    perf_events: false,
};
const KPROBES: Attempt = Attempt {
    access: ProgramAccess::Raw,
    modes: &[AttachMode::Kprobe],
    ..BTF_TYPED
};
/// System calls through raw tracepoints.
const SYSCALLS: Attempt = Attempt {
    modes: &[AttachMode::Syscall],
    needs_arrivals: false,
    ..KPROBES
};
/// System calls through perf events.
const PERF_EVENTS: Attempt = Attempt {
    perf_events: true,
    ..SYSCALLS
};

impl Attempt {
    /// Lists the attempts in fallback order; with `mode`, only those in that mode.
    pub(super) fn all(mode: Option<AttachMode>, preemption: Preemption) -> Vec<Self> {
        let exact = preemption
            .reaches(ProgramType::TpBtf)
            .then_some(TRACE_EVENTS);
        let perf_events = preemption
            .reaches(ProgramType::RawTp)
            .then_some(PERF_EVENTS);
        let system_calls = perf_events.into_iter().chain([SYSCALLS]);
        match mode {
            // Kprobes are not preemptible either.
            None if exact.is_some() => [TRACE_EVENTS, KPROBES, BTF_TYPED]
                .into_iter()
                .chain(system_calls)
                .collect(),
            None => [BTF_TYPED, KPROBES]
                .into_iter()
                .chain(system_calls)
                .collect(),
            Some(AttachMode::Tracepoint) => exact
                .into_iter()
                .chain([Self {
                    modes: &[AttachMode::Tracepoint],
                    ..BTF_TYPED
                }])
                .collect(),
            Some(AttachMode::Fentry) => vec![Self {
                modes: &[AttachMode::Fentry],
                ..BTF_TYPED
            }],
            Some(AttachMode::Kprobe) => vec![KPROBES],
            Some(AttachMode::Syscall) => system_calls.collect(),
        }
    }

    /// Returns the candidates of a hook that this attempt allows, in fallback order.
    pub(super) fn candidates(self, hook: &Hook) -> impl Iterator<Item = &Candidate> {
        hook.candidates.iter().filter(move |candidate| {
            let is_allowed = match candidate.mode {
                None => true,
                Some(AttachMode::Syscall) => {
                    self.modes.contains(&AttachMode::Syscall)
                        && self.perf_events == (candidate.program_type == ProgramType::Tracepoint)
                }
                Some(mode) => self.modes.contains(&mode),
            };
            candidate.access == self.access && is_allowed
        })
    }

    pub(super) fn requires(self, hook: &Hook) -> bool {
        hook.required || (self.needs_arrivals && hook.id == HookId::Readable)
    }
}
