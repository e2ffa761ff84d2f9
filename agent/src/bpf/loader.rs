//! Loads the programs into the kernel and attaches them; detaches by being dropped.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness, include_bytes_aligned,
    programs::{Iter, ProgramFd},
};
use inferprobe_ebpf::globals::{Features, Offsets, SyscallAbi};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, setrlimit},
};
use tracing::{debug, warn};

use crate::bpf::{
    attach::{self, Kernel, NOT_PERMITTED},
    attach_mode::{AttachMode, HookReport, ProgramType, Refused},
    btf::Types,
    hooks::{ACCEPT, Candidate, Flavour, HOOKS, Hook},
    kretprobe::Kretprobe,
    maps::Maps,
    offsets,
    options::Wanted,
    preemption::Preemption,
    preflight::BTF_PATH,
    recursion_misses, report,
    selftest::{self, Seen},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/inferprobe-ebpf"));

/// Why the probes could not be attached, as one line with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The embedded object is empty: `build.rs` had no toolchain for it, or was asked to skip it.
    #[error(
        "built without the eBPF programs: there was no toolchain for them, or INFERPROBE_SKIP_EBPF=1 was set; run \
         `cargo xtask build`"
    )]
    NoPrograms,
    /// The kernel takes a hook in none of its ways.
    #[error(
        "this kernel takes the hook {} in none of its ways ({}); run on a newer kernel, or with --no-probes for host and \
         GPU figures alone; `inferprobe doctor` shows all hooks",
        .failed.hook, why(.failed)
    )]
    NoHook {
        /// The hook.
        failed: HookReport,
        /// What became of the hooks before it.
        before: Vec<HookReport>,
    },
    /// The kernel has nothing of the kind that was asked for.
    #[error(
        "--rung {rung}: {reason}; leave the option out to have the best that this kernel takes"
    )]
    NoRung {
        /// The kind.
        rung: AttachMode,
        /// What stood in the way.
        reason: String,
    },
    /// An accept cannot be seen.
    #[error(
        "--accept-wait: {}; run as root, on a kernel with CONFIG_FTRACE_SYSCALLS=y, or leave the option out",
        why(.0)
    )]
    NoAccept(HookReport),
    /// The kernel does not let this process load programs.
    #[error(
        "the kernel refused the probes: run with CAP_BPF and CAP_PERFMON outside of any user namespace, before Linux 5.11 \
         also with an unlimited RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=infinity), or with --no-probes for host and GPU \
         figures alone"
    )]
    NotPermitted,
    /// The kernel refused something else.
    #[error("{0:#}")]
    Refused(#[from] anyhow::Error),
}

fn why(report: &HookReport) -> String {
    report::why(report).join("; ")
}

/// One try at all hooks together: the flavour of the programs, and where on the ladder they may stand.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    flavour: Flavour,
    rungs: &'static [AttachMode],
    /// Whether it is only worth while if arrivals are seen.
    sees_arrivals: bool,
    /// Whether system calls are told of by events of perf, which cost more than raw tracepoints, and during whose programs
    /// a task keeps its CPU.
    by_events: bool,
}

/// On typed tracepoints and through trampolines, each hook on the better one.
const TYPED: Attempt = Attempt {
    flavour: Flavour::Typed,
    rungs: &[AttachMode::Tracepoint, AttachMode::Fentry],
    sees_arrivals: true,
    by_events: false,
};
/// On kprobes.
const KPROBES: Attempt = Attempt {
    flavour: Flavour::Plain,
    rungs: &[AttachMode::Kprobe],
    ..TYPED
};
/// On raw tracepoints of system calls.
const SYSCALLS: Attempt = Attempt {
    rungs: &[AttachMode::Syscall],
    sees_arrivals: false,
    ..KPROBES
};
/// On events of system calls.
const EVENTS: Attempt = Attempt {
    by_events: true,
    ..SYSCALLS
};

impl Attempt {
    /// The attempts, best first; with `rung`, those that hold to it.
    fn all(rung: Option<AttachMode>, preemption: Preemption) -> Vec<Self> {
        let events = preemption.reaches_programs().then_some(EVENTS);
        match rung {
            None => [TYPED, KPROBES]
                .into_iter()
                .chain(events)
                .chain([SYSCALLS])
                .collect(),
            Some(AttachMode::Tracepoint) => vec![Self {
                rungs: &[AttachMode::Tracepoint],
                ..TYPED
            }],
            Some(AttachMode::Fentry) => vec![Self {
                rungs: &[AttachMode::Fentry],
                ..TYPED
            }],
            Some(AttachMode::Kprobe) => vec![KPROBES],
            Some(AttachMode::Syscall) => events.into_iter().chain([SYSCALLS]).collect(),
        }
    }

    /// The ways to have a hook, best first.
    fn ways(self, hook: &Hook) -> impl Iterator<Item = &Candidate> {
        hook.ways.iter().filter(move |way| {
            let is_allowed = match way.rung {
                None => true,
                Some(AttachMode::Syscall) => {
                    self.rungs.contains(&AttachMode::Syscall)
                        && self.by_events == (way.kind == ProgramType::Tracepoint)
                }
                Some(rung) => self.rungs.contains(&rung),
            };
            way.flavour == self.flavour && is_allowed
        })
    }

    fn takes(self, hook: &Hook) -> bool {
        hook.needed || (self.sees_arrivals && hook.name == READABLE)
    }
}

/// Name of the hook that tells of arrivals.
const READABLE: &str = "readable";
/// Helper that typed programs cannot do without: all others that they use are older.
const LOOP: &str = "bpf_loop";
/// Name of the hook that tells of reads.
const RECV: &str = "recv";
/// What a hook that is on something, and told something wrong, is said to have failed at.
pub const SELF_TEST: &str = "self-test";
/// Name of the hook that tells of the start of a send.
const SEND_START: &str = "send_start";
/// Name of the hook that other hooks may come with.
const SEND: &str = "send";

/// Attached programs. Dropping it detaches them and frees every map.
#[derive(Debug)]
pub struct Probes {
    ebpf: Ebpf,
    /// Goes behind the programs that are on them.
    _kept: Vec<Kretprobe>,
    /// Programs by name, with their second copies.
    copies: BTreeMap<&'static str, Vec<ProgramFd>>,
    flavour: Flavour,
    hooks: Vec<HookReport>,
    own_id: u32,
}

impl LoadError {
    /// What became of the hooks, as far as they were tried.
    pub fn hooks(&self) -> Vec<HookReport> {
        match self {
            Self::NoHook { failed, before } => {
                let others = before.iter().filter(|report| report.hook != failed.hook);
                others.chain([failed]).cloned().collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Probes {
    /// Loads and attaches the best programs that this kernel takes for what is `wanted`, and has them prove themselves.
    pub fn attach(wanted: Wanted) -> Result<(Self, Maps), LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NoPrograms);
        }
        let raw = fs::read(BTF_PATH).with_context(|| format!("read {BTF_PATH}"))?;
        let types = Types::parse(&raw).context("index the kernel's BTF")?;
        let btf = Btf::parse(&raw, Endianness::default()).context("parse the kernel's BTF")?;
        let kernel = Kernel {
            types: &types,
            btf: &btf,
        };
        let preemption = Preemption::look();
        debug!(%preemption, "whether a task may lose its CPU within a program");
        let loading = Loading {
            kernel,
            offsets: offsets::resolve(&types).context("resolve kernel field offsets")?,
            features: Features {
                payload: wanted.payload.into(),
                accept_wait: wanted.accept_wait.into(),
                attached_twice: preemption.reaches_programs().into(),
                ..offsets::features(&types)
            },
            preemption,
            wanted,
        };
        raise_memory_lock();
        let mut refused = Reasons::default();
        let mut last = None;
        for attempt in Attempt::all(wanted.rung, preemption) {
            match loading.attempt(attempt, &mut refused) {
                Err(err @ LoadError::NoHook { .. }) => last = Some(err),
                outcome => return outcome,
            }
        }
        Err(match (last.expect("there are attempts"), wanted.rung) {
            (LoadError::NoHook { failed, .. }, Some(rung)) => LoadError::NoRung {
                rung,
                reason: format!("hook {}: {}", failed.hook, why(&failed)),
            },
            (err, _) => err,
        })
    }

    /// What each hook is on.
    pub fn hooks(&self) -> &[HookReport] {
        &self.hooks
    }

    /// This process's id, as the kernel's records have it.
    pub fn own_id(&self) -> u32 {
        self.own_id
    }

    /// Whether the start of a TCP send is seen.
    fn sees_send_start(&self) -> bool {
        self.has(SEND_START)
    }

    /// Whether it is seen when bytes arrive.
    fn sees_arrivals(&self) -> bool {
        self.has(READABLE)
    }

    fn has(&self, name: &str) -> bool {
        kind_of(&self.hooks, name).is_some()
    }

    /// Times that the kernel passed each program over, because it was running on that CPU already; of a program that is
    /// there twice, what it passed both copies over is at most the smaller count, which is this.
    pub fn skipped(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.copies.iter().filter_map(|(name, copies)| {
            let counts = copies.iter().map(|fd| recursion_misses::count(fd.as_fd()));
            Some((*name, counts.min()?))
        });
        counts.collect()
    }

    /// Marks the listeners that watched processes and ports have already.
    pub fn scan_listeners(&mut self) -> Result<()> {
        let name = match self.flavour {
            Flavour::Typed => "scan_listeners",
            Flavour::Plain => "scan_listeners_plain",
        };
        let scan: &mut Iter = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("find program {name}"))?
            .try_into()
            .with_context(|| format!("open program {name}"))?;
        let id = scan.attach().with_context(|| format!("attach {name}"))?;
        let link = scan
            .take_link(id)
            .with_context(|| format!("take the link of {name}"))?;
        let mut pass = link
            .into_file()
            .with_context(|| format!("open the iterator {name}"))?;
        // The program writes nothing: reading to the end is what walks every open file.
        pass.read_to_end(&mut Vec::new())
            .with_context(|| format!("run the iterator {name}"))?;
        Ok(())
    }
}

/// The programs that are loaded, each with its second copy where that is.
fn copies(ebpf: &Ebpf) -> io::Result<BTreeMap<&'static str, Vec<ProgramFd>>> {
    let mut loaded = BTreeMap::new();
    let ways = HOOKS.iter().chain([&ACCEPT]).flat_map(|hook| hook.ways);
    for part in ways.flat_map(|way| way.parts) {
        let names = [part.program.to_owned(), part.second()];
        let fds = names
            .iter()
            .filter_map(|name| ebpf.program(name)?.fd().ok());
        let copies = fds
            .map(ProgramFd::try_clone)
            .collect::<io::Result<Vec<_>>>()?;
        if !copies.is_empty() {
            loaded.insert(part.program, copies);
        }
    }
    Ok(loaded)
}

/// What the hook called `name` is on.
fn kind_of(hooks: &[HookReport], name: &str) -> Option<ProgramType> {
    hooks.iter().find(|report| report.hook == name)?.kind
}

/// Before 5.11 maps count against this limit; where it cannot be raised, the kernel says so when the maps are made.
fn raise_memory_lock() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(err) = setrlimit(Resource::Memlock, unlimited) {
        debug!(%err, "RLIMIT_MEMLOCK not raised");
    }
}

fn is_permission(err: &anyhow::Error) -> bool {
    err.chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.raw_os_error() == Some(Errno::PERM.raw_os_error()))
}

/// Why hooks were not attached better, by the hook's name.
#[derive(Default)]
struct Reasons(Vec<(&'static str, Refused)>);

impl Reasons {
    /// Notes that the hooks, as far as they stand on rungs, are not tried.
    fn give_up(&mut self, hooks: &[Hook], attempt: Attempt, reason: &str) {
        for hook in hooks {
            let ways = attempt.ways(hook).filter(|way| way.rung.is_some());
            self.0.extend(ways.filter_map(|way| {
                let refused = Refused {
                    kind: way.kind,
                    target: way.parts.first()?.target,
                    reason: reason.to_owned(),
                };
                Some((hook.name, refused))
            }));
        }
    }

    fn report(&self, hook: &'static str, kind: Option<ProgramType>) -> HookReport {
        let of_hook = self.0.iter().filter(|(name, _)| *name == hook);
        HookReport {
            hook,
            kind,
            refused: of_hook.map(|(_, refused)| refused.clone()).collect(),
        }
    }
}

/// What every attempt has in common.
struct Loading<'a> {
    kernel: Kernel<'a>,
    offsets: Offsets,
    features: Features,
    preemption: Preemption,
    wanted: Wanted,
}

impl Loading<'_> {
    fn attempt(
        &self,
        attempt: Attempt,
        refused: &mut Reasons,
    ) -> Result<(Probes, Maps), LoadError> {
        if attempt.flavour == Flavour::Typed && !self.kernel.types.has_function(LOOP) {
            let reason = "needs bpf_loop, which this kernel lacks (Linux 5.17)";
            refused.give_up(&HOOKS, attempt, reason);
            return Err(LoadError::NoHook {
                failed: refused.report(RECV, None),
                before: Vec::new(),
            });
        }
        let mut ebpf = self.load(attempt)?;
        let mut hooks: Vec<HookReport> = Vec::new();
        let mut kept = Vec::new();
        for (index, hook) in HOOKS.iter().enumerate() {
            let is_sent = hook
                .unless
                .is_some_and(|function| !self.kernel.types.has_function(function));
            let kind = if is_sent {
                kind_of(&hooks, SEND)
            } else {
                self.climb(&mut ebpf, &mut kept, hook, attempt, refused)
            };
            let report = refused.report(hook.name, kind);
            if kind.is_some() {
                hooks.push(report);
            } else if attempt.takes(hook) {
                let is_forbidden = |refused: &Refused| refused.reason == NOT_PERMITTED;
                // Of the first hook there is no other way.
                if hooks.is_empty() && report.refused.iter().any(is_forbidden) {
                    return Err(LoadError::NotPermitted);
                }
                let others = HOOKS.get(index + 1..).unwrap_or_default();
                let reason = format!("not tried without the hook {}", hook.name);
                refused.give_up(others, attempt, &reason);
                return Err(LoadError::NoHook {
                    failed: report,
                    before: hooks,
                });
            } else if hook.is_for(attempt.flavour) {
                hooks.push(report);
            }
        }
        if self.wanted.accept_wait {
            let kind = self.climb(&mut ebpf, &mut kept, &ACCEPT, attempt, refused);
            let report = refused.report(ACCEPT.name, kind);
            if kind.is_none() {
                return Err(LoadError::NoAccept(report));
            }
            hooks.push(report);
        }
        let mut rings = Maps::take(&mut ebpf)?;
        let probes = Probes {
            copies: copies(&ebpf).context("keep the programs at hand")?,
            ebpf,
            _kept: kept,
            flavour: attempt.flavour,
            hooks,
            own_id: 0,
        };
        let seen = Seen {
            arrivals: probes.sees_arrivals(),
            send_start: probes.sees_send_start(),
        };
        match selftest::run(&mut rings, seen, self.wanted) {
            Ok(own_id) => Ok((Probes { own_id, ..probes }, rings)),
            Err(err) => {
                let reason = format!("{err:#}");
                warn!(rungs = ?attempt.rungs, reason, "hooks that do not tell the truth here are left out");
                let before = probes.hooks;
                if let Some(kind) = kind_of(&before, RECV) {
                    let target = SELF_TEST;
                    refused.0.push((
                        RECV,
                        Refused {
                            kind,
                            target,
                            reason,
                        },
                    ));
                }
                let failed = refused.report(RECV, None);
                Err(LoadError::NoHook { failed, before })
            }
        }
    }

    /// Attaches the hook in the best way that the attempt allows; what it is on then.
    fn climb(
        &self,
        ebpf: &mut Ebpf,
        kept: &mut Vec<Kretprobe>,
        hook: &Hook,
        attempt: Attempt,
        refused: &mut Reasons,
    ) -> Option<ProgramType> {
        for way in attempt.ways(hook) {
            match attach::attach(ebpf, self.kernel, way, self.preemption.reaches_programs()) {
                Ok(probes) => {
                    kept.extend(probes);
                    return Some(way.kind);
                }
                Err(err) => refused.0.push((hook.name, err)),
            }
        }
        None
    }

    /// Loads the object, with the maps that the flavour needs.
    fn load(&self, attempt: Attempt) -> Result<Ebpf, LoadError> {
        let Attempt { flavour, rungs, .. } = attempt;
        let features = Features {
            kernel_vectors: rungs.contains(&AttachMode::Kprobe).into(),
            ..self.features
        };
        let syscalls = match self.wanted.payload || flavour == Flavour::Plain {
            true => offsets::SYSCALLS,
            false => SyscallAbi::NONE,
        };
        let mut loader = EbpfLoader::new();
        if !self.wanted.accept_wait {
            loader.map_max_entries("ACCEPTS", 1);
        }
        if flavour == Flavour::Typed {
            for map in [
                "CONNS_BY_ADDRESS",
                "ANSWERS_BY_ADDRESS",
                "MARKED",
                "INODES",
                "CALLS",
            ] {
                loader.map_max_entries(map, 1);
            }
        }
        loader
            .btf(Some(self.kernel.btf))
            .override_global("OFFSETS", bytemuck::bytes_of(&self.offsets), true)
            .override_global("SYSCALLS", bytemuck::bytes_of(&syscalls), true)
            .override_global("FEATURES", bytemuck::bytes_of(&features), true)
            .load(OBJECT)
            .map_err(|err| {
                let err = anyhow::Error::new(err);
                match is_permission(&err) {
                    true => LoadError::NotPermitted,
                    false => LoadError::Refused(err.context("load the eBPF object")),
                }
            })
    }
}
