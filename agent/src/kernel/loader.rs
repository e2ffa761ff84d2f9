//! Loads the programs into the kernel and attaches them; detaches by being dropped.

use std::{
    fs,
    io::{self, Read as _},
};

use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness, include_bytes_aligned,
    programs::{BtfTracePoint, Iter, ProgramError, TracePoint},
};
use inferprobe_ebpf::abi::SyscallAbi;
use tracing::debug;

use crate::kernel::{
    btf::Types,
    ladder::{HookReport, Kind, Refused, Rung},
    offsets,
    preflight::BTF_PATH,
    rings::Rings,
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/inferprobe-ebpf"));

/// Hooks that the agent cannot do without, and the kernel that brought each.
const REQUIRED_HOOKS: [(&str, &str); 7] = [
    ("sk_data_ready", "Linux 6.3"),
    ("sock_recv_length", "Linux 6.3"),
    ("sock_send_length", "Linux 6.3"),
    ("inet_sock_set_state", "Linux 4.16"),
    ("sched_process_exec", "Linux 3.4"),
    ("sched_process_exit", "Linux 2.6"),
    ("sched_process_fork", "Linux 2.6"),
];

/// What the report calls them.
const HOOK_NAMES: [&str; 7] = ["readable", "recv", "send", "state", "exec", "exit", "fork"];

/// The start of a TCP send: without it the first write is known at its return alone. Linux 6.16.
const SEND_START_HOOK: &str = "tcp_sendmsg_locked";

/// System calls whose return tells of an accept: attached only if that is wanted, for the kernel then takes a longer way
/// through every system call of the host.
const ACCEPT_HOOKS: [&str; 2] = ["sys_exit_accept", "sys_exit_accept4"];

/// What the programs are to tell beside the times of requests.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The beginnings of requests and answers: without it no program reads the memory of a process.
    pub payload: bool,
    /// When connections were accepted.
    pub accept_wait: bool,
    /// The one kind of hook that may be used; `None`: the best that works, each.
    pub rung: Option<Rung>,
}

/// Why the probes could not be attached, as one line with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel lacks a hook.
    #[error(
        "this kernel has no tracepoint {hook} ({since} brought it); run on a newer kernel, \
         or with --no-probes for host and GPU figures alone"
    )]
    NoHook {
        /// Name of the hook.
        hook: &'static str,
        /// First kernel that has it.
        since: &'static str,
    },
    /// The kernel has nothing of the kind that was asked for.
    #[error(
        "--rung {rung}: {reason}; leave the option out to have the best that this kernel takes"
    )]
    NoRung {
        /// The kind.
        rung: Rung,
        /// What stood in the way.
        reason: String,
    },
    /// The kernel refused something else.
    #[error("{0:#}")]
    Refused(anyhow::Error),
}

impl From<anyhow::Error> for LoadError {
    fn from(err: anyhow::Error) -> Self {
        let refused = err
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            // EACCES, which has the same kind, is the verifier's.
            .any(|cause| cause.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()));
        Self::Refused(match refused {
            true => err.context(
                "the kernel refused the probes: run with CAP_BPF and CAP_PERFMON outside of any user namespace, \
                 or with --no-probes for host and GPU figures alone",
            ),
            false => err,
        })
    }
}

/// Attached programs. Dropping it detaches them and frees every map.
#[derive(Debug)]
pub struct Probes {
    ebpf: Ebpf,
    /// Whether the start of a TCP send is seen.
    pub sees_send_start: bool,
    hooks: Vec<HookReport>,
}

impl Probes {
    /// Loads and attaches every program that is needed for what is `wanted`.
    pub fn attach(wanted: Wanted) -> Result<(Self, Rings), LoadError> {
        if let Some(rung) = wanted.rung
            && rung != Rung::Tracepoint
        {
            let reason = "this build has no hooks of that kind".into();
            return Err(LoadError::NoRung { rung, reason });
        }
        let raw = fs::read(BTF_PATH).with_context(|| format!("read {BTF_PATH}"))?;
        let types = Types::parse(&raw).context("index the kernel's BTF")?;
        let offsets = offsets::resolve(&types).context("resolve kernel field offsets")?;
        drop(types);
        let btf = Btf::parse(&raw, Endianness::default()).context("parse the kernel's BTF")?;
        drop(raw);
        let syscalls = match wanted.payload {
            true => offsets::SYSCALLS,
            false => SyscallAbi::NONE,
        };
        let accept_wait = u32::from(wanted.accept_wait);
        let mut loader = EbpfLoader::new();
        if !wanted.accept_wait {
            loader.map_max_entries("ACCEPTS", 1);
        }
        let mut ebpf = loader
            .btf(Some(&btf))
            .override_global("OFFSETS", bytemuck::bytes_of(&offsets), true)
            .override_global("SYSCALLS", bytemuck::bytes_of(&syscalls), true)
            .override_global("ACCEPT_WAIT", &accept_wait, true)
            .load(OBJECT)
            .context("load the eBPF object")?;
        for (hook, since) in REQUIRED_HOOKS {
            if !attach_hook(&mut ebpf, hook, &btf)? {
                return Err(LoadError::NoHook { hook, since });
            }
        }
        let sees_send_start = attach_hook(&mut ebpf, SEND_START_HOOK, &btf)?;
        let mut hooks: Vec<HookReport> = HOOK_NAMES
            .into_iter()
            .map(|hook| HookReport {
                hook,
                kind: Some(Kind::TpBtf),
                refused: Vec::new(),
            })
            .collect();
        hooks.push(HookReport {
            hook: "send_start",
            kind: sees_send_start.then_some(Kind::TpBtf),
            refused: if sees_send_start {
                Vec::new()
            } else {
                vec![Refused {
                    kind: Kind::TpBtf,
                    target: SEND_START_HOOK,
                    reason: "no such tracepoint (Linux 6.16)".into(),
                }]
            },
        });
        if wanted.accept_wait {
            for hook in ACCEPT_HOOKS {
                attach_syscall(&mut ebpf, hook)?;
            }
        }
        let scan: &mut Iter = ebpf
            .program_mut("scan_listeners")
            .context("find program scan_listeners")?
            .try_into()
            .context("open program scan_listeners")?;
        scan.load("task_file", &btf)
            .map_err(|err| refusal("scan_listeners", err))?;
        let rings = Rings::take(&mut ebpf)?;
        Ok((
            Self {
                ebpf,
                sees_send_start,
                hooks,
            },
            rings,
        ))
    }

    /// What each hook is on.
    pub fn hooks(&self) -> &[HookReport] {
        &self.hooks
    }

    /// Marks the listeners that watched processes and ports have already.
    pub fn scan_listeners(&mut self) -> Result<()> {
        let scan: &mut Iter = self
            .ebpf
            .program_mut("scan_listeners")
            .context("find program scan_listeners")?
            .try_into()
            .context("open program scan_listeners")?;
        let id = scan.attach().context("attach scan_listeners")?;
        let link = scan
            .take_link(id)
            .context("take the link of scan_listeners")?;
        let mut pass = link
            .into_file()
            .context("open the iterator scan_listeners")?;
        // The program writes nothing: reading to the end is what walks every open file.
        pass.read_to_end(&mut Vec::new())
            .context("run the iterator scan_listeners")?;
        Ok(())
    }
}

/// Loads and attaches one hook; `false` when the kernel does not have it.
fn attach_hook(ebpf: &mut Ebpf, hook: &'static str, btf: &Btf) -> Result<bool, LoadError> {
    let program: &mut BtfTracePoint = ebpf
        .program_mut(hook)
        .with_context(|| format!("find program {hook}"))?
        .try_into()
        .with_context(|| format!("open program {hook}"))?;
    match program.load(hook, btf) {
        Ok(()) => {}
        Err(ProgramError::Btf(_)) => return Ok(false),
        Err(err) => return Err(refusal(hook, err).into()),
    }
    program.attach().with_context(|| format!("attach {hook}"))?;
    Ok(true)
}

/// Loads and attaches the hook of a system call.
fn attach_syscall(ebpf: &mut Ebpf, hook: &'static str) -> Result<()> {
    let program: &mut TracePoint = ebpf
        .program_mut(hook)
        .with_context(|| format!("find program {hook}"))?
        .try_into()
        .with_context(|| format!("open program {hook}"))?;
    program.load().map_err(|err| refusal(hook, err))?;
    match program.attach("syscalls", hook) {
        Ok(_) => Ok(()),
        // The tracepoint's number could not be read.
        Err(err @ (ProgramError::TracePointError(_) | ProgramError::IOError(_))) => {
            Err(anyhow::Error::new(err).context(format!(
                "--accept-wait: cannot find tracepoint {hook}; run as root, with tracefs mounted (mount -t tracefs \
                 tracefs /sys/kernel/tracing), on a kernel with CONFIG_FTRACE_SYSCALLS=y, or leave the option out"
            )))
        }
        Err(err) => Err(anyhow::Error::new(err).context(format!("attach {hook}"))),
    }
}

/// Why a program was not loaded, in a line: the verifier's log, of thousands, goes to the debug log.
fn refusal(hook: &str, err: ProgramError) -> anyhow::Error {
    match err {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            debug!(hook, %verifier_log, "refused");
            anyhow::Error::new(io_error).context(format!(
                "load {hook} (RUST_LOG=debug shows the verifier's log)"
            ))
        }
        err => anyhow::Error::new(err).context(format!("load {hook}")),
    }
}
