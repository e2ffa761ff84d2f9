//! Lists the hooks: for each, the candidate programs that can report it, in fallback order.
//!
//! The loader tries the candidates on the running kernel.
//! Does not depend on: the running kernel.

use crate::bpf::{
    attach_mode::{AttachMode, ProgramType},
    hook_id::HookId,
};

/// How programs read kernel objects, and where they keep connection state. All programs of a run use the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramAccess {
    /// Arguments are BTF-typed for the verifier; state is in the storage of the socket (5.11).
    Btf,
    /// Arguments are raw addresses; state is in hash maps by address.
    Raw,
    /// Arguments are raw addresses or BTF-typed; state is in hash maps by address, which take memory as they grow (6.1).
    Shared,
}

/// The copy of a program that handles the events for which the kernel skipped the primary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backup {
    /// None: the program may miss an event, and something else makes up for it.
    None,
    /// A second copy of the same type. It is needed if a task may lose its CPU inside such a program.
    Twin,
    /// A program of another type, which the kernel does not skip together with the primary one.
    Other(ProgramType),
}

/// An eBPF program and its target.
#[derive(Debug, Clone, Copy)]
pub struct ProgramSpec {
    /// Name in the object.
    pub name: &'static str,
    /// Function or tracepoint; for a perf event, `group/name`.
    pub target: &'static str,
    /// Whether it is attached to the return of the function.
    pub at_return: bool,
    /// Whether it is skipped on kernels without the target, which then do not have the feature or report it elsewhere.
    pub optional: bool,
    /// Its backup copy.
    pub backup: Backup,
}

impl ProgramSpec {
    /// Name of the backup copy in the object.
    pub fn backup_name(&self) -> String {
        format!("{}_second", self.name)
    }
}

/// A set of programs that together provide a hook.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Attach mode that it belongs to; `None` if it belongs to all.
    pub mode: Option<AttachMode>,
    /// Access that it needs.
    pub access: ProgramAccess,
    /// Type of its programs.
    pub program_type: ProgramType,
    /// The programs; empty if those of the hook `recv` or `send` also report this hook.
    pub programs: &'static [ProgramSpec],
}

/// A hook and its candidates.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// Its identity.
    pub id: HookId,
    /// Whether no request can be measured without it.
    pub required: bool,
    /// Kernel function that the hook observes; a kernel without it reports these events through the hook `send`.
    pub only_with: Option<&'static str>,
    /// The candidates, in fallback order.
    pub candidates: &'static [Candidate],
}

impl Hook {
    /// Returns whether any candidate has this access.
    pub fn supports(&self, access: ProgramAccess) -> bool {
        self.candidates
            .iter()
            .any(|candidate| candidate.access == access)
    }
}

const fn entry(name: &'static str, target: &'static str) -> ProgramSpec {
    ProgramSpec {
        name,
        target,
        at_return: false,
        optional: false,
        backup: Backup::None,
    }
}

const fn returns(name: &'static str, target: &'static str) -> ProgramSpec {
    ProgramSpec {
        at_return: true,
        ..entry(name, target)
    }
}

const fn optional(program: ProgramSpec) -> ProgramSpec {
    ProgramSpec {
        optional: true,
        ..program
    }
}

const fn with_backup(program: ProgramSpec) -> ProgramSpec {
    ProgramSpec {
        backup: Backup::Twin,
        ..program
    }
}

/// A program on the trace event `group/name`, and its backup copy on the tracepoint `name`.
const fn event(name: &'static str, target: &'static str) -> ProgramSpec {
    ProgramSpec {
        backup: Backup::Other(ProgramType::TpBtf),
        ..entry(name, target)
    }
}

const fn in_mode(
    mode: AttachMode,
    access: ProgramAccess,
    program_type: ProgramType,
    programs: &'static [ProgramSpec],
) -> Candidate {
    Candidate {
        mode: Some(mode),
        access,
        program_type,
        programs,
    }
}

const fn in_all_modes(
    access: ProgramAccess,
    program_type: ProgramType,
    programs: &'static [ProgramSpec],
) -> Candidate {
    Candidate {
        mode: None,
        access,
        program_type,
        programs,
    }
}

const fn tracepoint(programs: &'static [ProgramSpec]) -> Candidate {
    in_mode(
        AttachMode::Tracepoint,
        ProgramAccess::Btf,
        ProgramType::TpBtf,
        programs,
    )
}

/// Perf events on the same tracepoints, whose programs run with preemption off.
const fn trace_event(programs: &'static [ProgramSpec]) -> Candidate {
    in_mode(
        AttachMode::Tracepoint,
        ProgramAccess::Shared,
        ProgramType::Tracepoint,
        programs,
    )
}

const fn fentry(programs: &'static [ProgramSpec]) -> Candidate {
    in_mode(
        AttachMode::Fentry,
        ProgramAccess::Btf,
        ProgramType::Fentry,
        programs,
    )
}

const fn kprobe(programs: &'static [ProgramSpec]) -> Candidate {
    in_mode(
        AttachMode::Kprobe,
        ProgramAccess::Raw,
        ProgramType::Kprobe,
        programs,
    )
}

const fn syscall(programs: &'static [ProgramSpec]) -> Candidate {
    in_mode(
        AttachMode::Syscall,
        ProgramAccess::Raw,
        ProgramType::RawTp,
        programs,
    )
}

/// As [`syscall`], through perf events, whose programs run with preemption off.
const fn perf_event(programs: &'static [ProgramSpec]) -> Candidate {
    in_mode(
        AttachMode::Syscall,
        ProgramAccess::Raw,
        ProgramType::Tracepoint,
        programs,
    )
}

/// Candidates of a hook that uses the same programs with any access.
const fn any_access(program_type: ProgramType, programs: &'static [ProgramSpec]) -> [Candidate; 3] {
    [
        in_all_modes(ProgramAccess::Btf, program_type, programs),
        in_all_modes(ProgramAccess::Raw, program_type, programs),
        in_all_modes(ProgramAccess::Shared, program_type, programs),
    ]
}

const READABLE: Hook = Hook {
    id: HookId::Readable,
    required: false,
    only_with: None,
    candidates: &[
        trace_event(&[event("event_readable", "sock/sk_data_ready")]),
        tracepoint(&[with_backup(entry("sk_data_ready", "sk_data_ready"))]),
        fentry(&[with_backup(entry("fentry_readable", "sock_def_readable"))]),
        kprobe(&[entry("kprobe_readable", "sock_def_readable")]),
    ],
};

const RECV: Hook = Hook {
    id: HookId::Recv,
    required: true,
    only_with: None,
    candidates: &[
        trace_event(&[event("event_recv", "sock/sock_recv_length")]),
        tracepoint(&[with_backup(entry("sock_recv_length", "sock_recv_length"))]),
        fentry(&[
            with_backup(returns("fexit_recv_inet", "inet_recvmsg")),
            optional(with_backup(returns("fexit_recv_inet6", "inet6_recvmsg"))),
            optional(with_backup(returns(
                "fexit_recv_unix",
                "unix_stream_recvmsg",
            ))),
        ]),
        kprobe(&[
            returns("kretprobe_recv", "inet_recvmsg"),
            optional(returns("kretprobe_recv", "inet6_recvmsg")),
            optional(returns("kretprobe_recv", "unix_stream_recvmsg")),
            entry("kprobe_recv", "inet_recvmsg"),
            optional(entry("kprobe_recv", "inet6_recvmsg")),
            optional(entry("kprobe_recv", "unix_stream_recvmsg")),
        ]),
        syscall(&[
            entry("syscall_exit_recv", "sys_exit"),
            entry("syscall_exit_send", "sys_exit"),
            entry("syscall_enter", "sys_enter"),
        ]),
        perf_event(&[
            entry("event_exit_recv", "raw_syscalls/sys_exit"),
            entry("event_exit_send", "raw_syscalls/sys_exit"),
            entry("event_enter", "raw_syscalls/sys_enter"),
        ]),
    ],
};

const SEND: Hook = Hook {
    id: HookId::Send,
    required: true,
    only_with: None,
    candidates: &[
        trace_event(&[event("event_send", "sock/sock_send_length")]),
        tracepoint(&[with_backup(entry("sock_send_length", "sock_send_length"))]),
        fentry(&[
            with_backup(returns("fexit_send_inet", "inet_sendmsg")),
            optional(with_backup(returns("fexit_send_inet6", "inet6_sendmsg"))),
            optional(with_backup(returns(
                "fexit_send_unix",
                "unix_stream_sendmsg",
            ))),
        ]),
        kprobe(&[
            returns("kretprobe_send", "inet_sendmsg"),
            optional(returns("kretprobe_send", "inet6_sendmsg")),
            optional(returns("kretprobe_send", "unix_stream_sendmsg")),
            entry("kprobe_send", "inet_sendmsg"),
            optional(entry("kprobe_send", "inet6_sendmsg")),
            optional(entry("kprobe_send", "unix_stream_sendmsg")),
        ]),
        // The programs of `recv` report sends too.
        syscall(&[]),
        perf_event(&[]),
    ],
};

const SENDFILE: Hook = Hook {
    id: HookId::Sendfile,
    required: false,
    only_with: Some("inet_sendpage"),
    candidates: &[
        fentry(&[
            with_backup(returns("fexit_sendpage_inet", "inet_sendpage")),
            optional(with_backup(returns(
                "fexit_sendpage_unix",
                "unix_stream_sendpage",
            ))),
        ]),
        kprobe(&[
            returns("kretprobe_send", "inet_sendpage"),
            optional(returns("kretprobe_send", "unix_stream_sendpage")),
            entry("kprobe_sendpage", "inet_sendpage"),
            optional(entry("kprobe_sendpage", "unix_stream_sendpage")),
        ]),
        syscall(&[]),
        perf_event(&[]),
    ],
};

const SEND_START: Hook = Hook {
    id: HookId::SendStart,
    required: false,
    only_with: None,
    candidates: &[
        // The trace event of a send's start does not name the socket.
        in_mode(
            AttachMode::Tracepoint,
            ProgramAccess::Shared,
            ProgramType::Kprobe,
            &[ProgramSpec {
                backup: Backup::Other(ProgramType::TpBtf),
                ..entry("event_send_start", "tcp_sendmsg_locked")
            }],
        ),
        in_mode(
            AttachMode::Tracepoint,
            ProgramAccess::Shared,
            ProgramType::TpBtf,
            &[with_backup(entry(
                "event_send_start_typed",
                "tcp_sendmsg_locked",
            ))],
        ),
        tracepoint(&[with_backup(entry(
            "tcp_sendmsg_locked",
            "tcp_sendmsg_locked",
        ))]),
        fentry(&[
            with_backup(entry("fentry_send_start", "tcp_sendmsg_locked")),
            optional(with_backup(entry(
                "fentry_sendpage_start",
                "do_tcp_sendpages",
            ))),
        ]),
        kprobe(&[]),
        syscall(&[]),
        perf_event(&[]),
    ],
};

const STATE: Hook = Hook {
    id: HookId::State,
    required: true,
    only_with: None,
    candidates: &[
        in_all_modes(
            ProgramAccess::Btf,
            ProgramType::TpBtf,
            &[with_backup(entry(
                "inet_sock_set_state",
                "inet_sock_set_state",
            ))],
        ),
        in_all_modes(
            ProgramAccess::Raw,
            ProgramType::TpBtf,
            &[with_backup(entry(
                "inet_sock_set_state_plain",
                "inet_sock_set_state",
            ))],
        ),
        in_all_modes(
            ProgramAccess::Shared,
            ProgramType::Tracepoint,
            &[event("event_state", "sock/inet_sock_set_state")],
        ),
    ],
};

/// Needed if connection state is in hash maps: otherwise the kernel frees the state with the socket.
const UNIX_RELEASE: Hook = Hook {
    id: HookId::UnixRelease,
    required: false,
    only_with: None,
    candidates: &[
        kprobe(&[entry("kprobe_unix_release", "unix_release")]),
        in_mode(
            AttachMode::Tracepoint,
            ProgramAccess::Shared,
            ProgramType::Kprobe,
            &[ProgramSpec {
                backup: Backup::Other(ProgramType::Fentry),
                ..entry("event_unix_release", "unix_release")
            }],
        ),
        // The program at the entry of a system call notices that the address belongs to a new socket.
        syscall(&[]),
        perf_event(&[]),
    ],
};

const LISTENERS: Hook = Hook {
    id: HookId::Listeners,
    required: true,
    only_with: None,
    candidates: &[
        in_all_modes(
            ProgramAccess::Btf,
            ProgramType::Iter,
            &[
                entry("scan_listeners", "task_file"),
                entry("scan_open", "task_file"),
            ],
        ),
        in_all_modes(
            ProgramAccess::Raw,
            ProgramType::Iter,
            &[
                entry("scan_listeners_plain", "task_file"),
                entry("scan_open_plain", "task_file"),
            ],
        ),
        in_all_modes(
            ProgramAccess::Shared,
            ProgramType::Iter,
            &[
                entry("scan_listeners_shared", "task_file"),
                entry("scan_open_shared", "task_file"),
            ],
        ),
    ],
};

/// The hooks in the order in which they are attached: processes and connections first, so that the agent misses no end of
/// one that another hook reports on.
pub const HOOKS: [Hook; 11] = [
    Hook {
        id: HookId::Exec,
        required: true,
        only_with: None,
        candidates: &any_access(
            ProgramType::TpBtf,
            &[entry("sched_process_exec", "sched_process_exec")],
        ),
    },
    Hook {
        id: HookId::Exit,
        required: true,
        only_with: None,
        candidates: &any_access(
            ProgramType::TpBtf,
            &[entry("sched_process_exit", "sched_process_exit")],
        ),
    },
    Hook {
        id: HookId::Fork,
        required: true,
        only_with: None,
        candidates: &any_access(
            ProgramType::TpBtf,
            &[entry("sched_process_fork", "sched_process_fork")],
        ),
    },
    STATE,
    READABLE,
    RECV,
    SEND,
    SENDFILE,
    SEND_START,
    UNIX_RELEASE,
    LISTENERS,
];

/// Returns of the system calls `accept` and `accept4`.
///
/// Attached only with `--accept-wait`, because it makes the kernel use a slower path for every system call of the host.
pub const ACCEPT: Hook = Hook {
    id: HookId::Accept,
    required: true,
    only_with: None,
    candidates: &any_access(
        ProgramType::Tracepoint,
        &[
            entry("sys_exit_accept", "syscalls/sys_exit_accept"),
            entry("sys_exit_accept4", "syscalls/sys_exit_accept4"),
        ],
    ),
};
