//! The table of hooks: for each thing that the agent wants to be told, the programs that can tell it, best first.
//!
//! Knows no kernel: what is to be had of these is the loader's to find out.

use crate::bpf::attach_mode::{AttachMode, ProgramType};

/// How programs keep the state of sockets. All programs of one run do it the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// In the sockets' own storage (5.11): programs whose arguments the verifier knows by type.
    Typed,
    /// In tables by address: any other program.
    Plain,
}

/// One program, and what it is to be on.
#[derive(Debug, Clone, Copy)]
pub struct ProgramSpec {
    /// Name in the object.
    pub program: &'static str,
    /// Function or tracepoint, of events with its group.
    pub target: &'static str,
    /// Whether it is at the return of the function.
    pub at_return: bool,
    /// Whether a kernel may lack the target, because it is built without what the target serves, or does that otherwise.
    pub optional: bool,
    /// Whether the object has a second copy of the program, for kernels that may pass the first over.
    pub twice: bool,
}

impl ProgramSpec {
    /// Name of the second copy of the program in the object.
    pub fn second(&self) -> String {
        format!("{}_second", self.program)
    }
}

/// One way to be told something: all of its programs together.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Where on the ladder it stands; `None`: it is the same on all rungs.
    pub rung: Option<AttachMode>,
    /// Flavour that it is for.
    pub flavour: Flavour,
    /// ProgramType of its programs.
    pub kind: ProgramType,
    /// The programs; none: it comes with those of the hook `send`.
    pub parts: &'static [ProgramSpec],
}

/// One thing that the agent wants to be told.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// Name of it.
    pub name: &'static str,
    /// Whether nothing can be measured without it.
    pub needed: bool,
    /// Function without which the kernel tells this through the hook `send`.
    pub unless: Option<&'static str>,
    /// The ways, best first.
    pub ways: &'static [Candidate],
}

impl Hook {
    /// Whether programs of the flavour could ever tell it.
    pub fn is_for(&self, flavour: Flavour) -> bool {
        self.ways.iter().any(|way| way.flavour == flavour)
    }
}

const fn part(program: &'static str, target: &'static str) -> ProgramSpec {
    ProgramSpec {
        program,
        target,
        at_return: false,
        optional: false,
        twice: false,
    }
}

const fn returns(program: &'static str, target: &'static str) -> ProgramSpec {
    ProgramSpec {
        at_return: true,
        ..part(program, target)
    }
}

const fn optional(part: ProgramSpec) -> ProgramSpec {
    ProgramSpec {
        optional: true,
        ..part
    }
}

const fn twice(part: ProgramSpec) -> ProgramSpec {
    ProgramSpec {
        twice: true,
        ..part
    }
}

const fn way(
    rung: AttachMode,
    flavour: Flavour,
    kind: ProgramType,
    parts: &'static [ProgramSpec],
) -> Candidate {
    Candidate {
        rung: Some(rung),
        flavour,
        kind,
        parts,
    }
}

const fn on_all(flavour: Flavour, kind: ProgramType, parts: &'static [ProgramSpec]) -> Candidate {
    Candidate {
        rung: None,
        flavour,
        kind,
        parts,
    }
}

const fn tracepoint(parts: &'static [ProgramSpec]) -> Candidate {
    way(
        AttachMode::Tracepoint,
        Flavour::Typed,
        ProgramType::TpBtf,
        parts,
    )
}

const fn fentry(parts: &'static [ProgramSpec]) -> Candidate {
    way(
        AttachMode::Fentry,
        Flavour::Typed,
        ProgramType::Fentry,
        parts,
    )
}

const fn kprobe(parts: &'static [ProgramSpec]) -> Candidate {
    way(
        AttachMode::Kprobe,
        Flavour::Plain,
        ProgramType::Kprobe,
        parts,
    )
}

const fn syscall(parts: &'static [ProgramSpec]) -> Candidate {
    way(
        AttachMode::Syscall,
        Flavour::Plain,
        ProgramType::RawTp,
        parts,
    )
}

/// As [`syscall`], by programs during which a task keeps its CPU.
const fn event(parts: &'static [ProgramSpec]) -> Candidate {
    way(
        AttachMode::Syscall,
        Flavour::Plain,
        ProgramType::Tracepoint,
        parts,
    )
}

/// A hook that is a typed tracepoint in both flavours.
const fn typed(parts: &'static [ProgramSpec]) -> [Candidate; 2] {
    [
        on_all(Flavour::Typed, ProgramType::TpBtf, parts),
        on_all(Flavour::Plain, ProgramType::TpBtf, parts),
    ]
}

/// Bytes, or a connection, became readable.
const READABLE: Hook = Hook {
    name: "readable",
    needed: false,
    unless: None,
    ways: &[
        tracepoint(&[twice(part("sk_data_ready", "sk_data_ready"))]),
        fentry(&[twice(part("fentry_readable", "sock_def_readable"))]),
        kprobe(&[part("kprobe_readable", "sock_def_readable")]),
    ],
};

/// Bytes were taken out of a socket.
const RECV: Hook = Hook {
    name: "recv",
    needed: true,
    unless: None,
    ways: &[
        tracepoint(&[twice(part("sock_recv_length", "sock_recv_length"))]),
        fentry(&[
            twice(returns("fexit_recv_inet", "inet_recvmsg")),
            optional(twice(returns("fexit_recv_inet6", "inet6_recvmsg"))),
            optional(twice(returns("fexit_recv_unix", "unix_stream_recvmsg"))),
        ]),
        kprobe(&[
            returns("kretprobe_recv", "inet_recvmsg"),
            optional(returns("kretprobe_recv", "inet6_recvmsg")),
            optional(returns("kretprobe_recv", "unix_stream_recvmsg")),
            part("kprobe_recv", "inet_recvmsg"),
            optional(part("kprobe_recv", "inet6_recvmsg")),
            optional(part("kprobe_recv", "unix_stream_recvmsg")),
        ]),
        syscall(&[
            part("syscall_exit_recv", "sys_exit"),
            part("syscall_exit_send", "sys_exit"),
            part("syscall_enter", "sys_enter"),
        ]),
        event(&[
            part("event_exit_recv", "raw_syscalls/sys_exit"),
            part("event_exit_send", "raw_syscalls/sys_exit"),
            part("event_enter", "raw_syscalls/sys_enter"),
        ]),
    ],
};

/// Bytes were given to a socket.
const SEND: Hook = Hook {
    name: "send",
    needed: true,
    unless: None,
    ways: &[
        tracepoint(&[twice(part("sock_send_length", "sock_send_length"))]),
        fentry(&[
            twice(returns("fexit_send_inet", "inet_sendmsg")),
            optional(twice(returns("fexit_send_inet6", "inet6_sendmsg"))),
            optional(twice(returns("fexit_send_unix", "unix_stream_sendmsg"))),
        ]),
        kprobe(&[
            returns("kretprobe_send", "inet_sendmsg"),
            optional(returns("kretprobe_send", "inet6_sendmsg")),
            optional(returns("kretprobe_send", "unix_stream_sendmsg")),
            part("kprobe_send", "inet_sendmsg"),
            optional(part("kprobe_send", "inet6_sendmsg")),
            optional(part("kprobe_send", "unix_stream_sendmsg")),
        ]),
        // The programs of `recv` see both.
        syscall(&[]),
        event(&[]),
    ],
};

/// A file was given to a socket, where that does not go through `send`: before 6.5.
const SENDFILE: Hook = Hook {
    name: "sendfile",
    needed: false,
    unless: Some("inet_sendpage"),
    ways: &[
        fentry(&[
            twice(returns("fexit_sendpage_inet", "inet_sendpage")),
            optional(twice(returns(
                "fexit_sendpage_unix",
                "unix_stream_sendpage",
            ))),
        ]),
        kprobe(&[
            returns("kretprobe_send", "inet_sendpage"),
            optional(returns("kretprobe_send", "unix_stream_sendpage")),
            part("kprobe_sendpage", "inet_sendpage"),
            optional(part("kprobe_sendpage", "unix_stream_sendpage")),
        ]),
        syscall(&[]),
        event(&[]),
    ],
};

/// A send begins.
const SEND_START: Hook = Hook {
    name: "send_start",
    needed: false,
    unless: None,
    ways: &[
        tracepoint(&[twice(part("tcp_sendmsg_locked", "tcp_sendmsg_locked"))]),
        fentry(&[
            twice(part("fentry_send_start", "tcp_sendmsg_locked")),
            optional(twice(part("fentry_sendpage_start", "do_tcp_sendpages"))),
        ]),
        kprobe(&[]),
        syscall(&[]),
        event(&[]),
    ],
};

/// A connection is made, or ends; a listener begins.
const STATE: Hook = Hook {
    name: "state",
    needed: true,
    unless: None,
    ways: &[
        on_all(
            Flavour::Typed,
            ProgramType::TpBtf,
            &[twice(part("inet_sock_set_state", "inet_sock_set_state"))],
        ),
        on_all(
            Flavour::Plain,
            ProgramType::TpBtf,
            &[twice(part(
                "inet_sock_set_state_plain",
                "inet_sock_set_state",
            ))],
        ),
    ],
};

/// An AF_UNIX socket is given up: its state has to go, where the socket does not take it along.
const UNIX_RELEASE: Hook = Hook {
    name: "unix_release",
    needed: false,
    unless: None,
    ways: &[
        kprobe(&[part("kprobe_unix_release", "unix_release")]),
        // The entry of a call finds out that its socket is another one.
        syscall(&[]),
        event(&[]),
    ],
};

/// The listeners that are there already.
const LISTENERS: Hook = Hook {
    name: "listeners",
    needed: true,
    unless: None,
    ways: &[
        on_all(
            Flavour::Typed,
            ProgramType::Iter,
            &[part("scan_listeners", "task_file")],
        ),
        on_all(
            Flavour::Plain,
            ProgramType::Iter,
            &[part("scan_listeners_plain", "task_file")],
        ),
    ],
};

/// The hooks in the order in which they are attached: what tells of a loss comes first, and of processes before all else.
pub const HOOKS: [Hook; 11] = [
    Hook {
        name: "exec",
        needed: true,
        unless: None,
        ways: &typed(&[part("sched_process_exec", "sched_process_exec")]),
    },
    Hook {
        name: "exit",
        needed: true,
        unless: None,
        ways: &typed(&[part("sched_process_exit", "sched_process_exit")]),
    },
    Hook {
        name: "fork",
        needed: true,
        unless: None,
        ways: &typed(&[part("sched_process_fork", "sched_process_fork")]),
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

/// System calls whose return tells of an accept: attached only if that is wanted, for the kernel then takes a longer way
/// through every system call of the host.
pub const ACCEPT: Hook = Hook {
    name: "accept",
    needed: true,
    unless: None,
    ways: &typed_accept(),
};

const fn typed_accept() -> [Candidate; 2] {
    const PARTS: &[ProgramSpec] = &[
        part("sys_exit_accept", "syscalls/sys_exit_accept"),
        part("sys_exit_accept4", "syscalls/sys_exit_accept4"),
    ];
    [
        on_all(Flavour::Typed, ProgramType::Tracepoint, PARTS),
        on_all(Flavour::Plain, ProgramType::Tracepoint, PARTS),
    ]
}
