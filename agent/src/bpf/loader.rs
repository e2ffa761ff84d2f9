//! Loads the eBPF programs, attaches them in the best mode of this kernel, and detaches them when dropped.
//!
//! `serve` and the doctor call [`Probes::attach`]; a self-test decides whether an attempt counts.
//! Does not depend on: what the records mean.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result};
use aya::{Btf, Ebpf, EbpfLoader, Endianness, programs::ProgramFd};
use flate2::read::GzDecoder;
use inferprobe_ebpf::{
    abi::OpenSocket,
    globals::{Features, Offsets, SyscallAbi},
};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, setrlimit},
};
use tracing::{debug, warn};

use crate::bpf::{
    attach::{self, Attachment, Kernel},
    attach_mode::{AttachMode, ProgramType},
    attempt::Attempt,
    btf::Types,
    error::LoadError,
    hook_id::HookId,
    hooks::{ACCEPT, HOOKS, Hook, ProgramAccess},
    maps::Maps,
    offsets, open_sockets,
    options::Wanted,
    plaintext::PlaintextPrograms,
    preemption::Preemption,
    preflight::BTF_PATH,
    report::{HookReport, RefusalKind, Refused},
    selftest::{self, Expected},
    syscall,
};

/// The object, compressed with gzip; empty if the agent was built without it.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inferprobe-ebpf.gz"));

/// Kernel helper that BTF-typed programs need; their other helpers are older.
const LOOP_HELPER: &str = "bpf_loop";
/// Target of the refusal that reports a failed self-test.
const SELF_TEST: &str = "self-test";

/// Maps that only programs of one access use.
const RAW_MAPS: [&str; 4] = ["CONNS_BY_ADDRESS", "ANSWERS_BY_ADDRESS", "INODES", "CALLS"];
const SHARED_MAPS: [&str; 2] = ["SHARED_CONNS", "SHARED_ANSWERS"];

/// Marks of listeners and connections in these: each connection has one.
const SHARED_MARKS: u32 = 81_920;

/// Attached programs. Dropping it detaches them and frees every map.
///
/// It keeps their descriptors only. The object that they were loaded from has every instruction in memory.
#[derive(Debug)]
pub struct Probes {
    attached: Vec<(HookId, Attachment)>,
    /// Copies of each loaded program, by the name of the primary one.
    copies: BTreeMap<&'static str, Vec<ProgramFd>>,
    access: ProgramAccess,
    hooks: Vec<HookReport>,
    own_id: u32,
    /// Those that read plaintext; `None` if they are not wanted, or were taken.
    plaintext: Option<PlaintextPrograms>,
}

impl Probes {
    /// Loads and attaches the programs for `wanted` in the best mode that passes the self-test on this kernel.
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
        let preemption = Preemption::detect(Some(&types));
        debug!(%preemption, in_tracepoints = preemption.in_tracepoints, "kernel preemption model");
        let mut object = Vec::new();
        let read = GzDecoder::new(OBJECT).read_to_end(&mut object);
        read.context("decompress the eBPF object")?;
        let loading = Loading {
            object,
            kernel,
            offsets: offsets::resolve(&types).context("resolve kernel field offsets")?,
            features: Features {
                payload: wanted.payload.into(),
                accept_wait: wanted.accept_wait.into(),
                copied_bytes: wanted.copied_bytes,
                attached_twice: preemption.reaches(ProgramType::Fentry).into(),
                ..offsets::features(&types)
            },
            preemption,
            wanted,
        };
        raise_memory_lock();
        let mut refusals = Refusals::default();
        let mut last = None;
        for attempt in Attempt::all(wanted.attach_mode, preemption) {
            match loading.attempt(attempt, &mut refusals) {
                Err(err @ LoadError::HookUnavailable { .. }) => last = Some(err),
                outcome => return outcome,
            }
        }
        let err = last.expect("every mode has an attempt");
        Err(match (err, wanted.attach_mode) {
            (LoadError::HookUnavailable { failed, .. }, Some(mode)) => {
                LoadError::AttachModeUnavailable { mode, failed }
            }
            (err, _) => err,
        })
    }

    /// Takes the programs that read plaintext, if they were wanted.
    pub fn take_plaintext(&mut self) -> Option<PlaintextPrograms> {
        self.plaintext.take()
    }

    /// Outcome of each hook.
    pub fn hooks(&self) -> &[HookReport] {
        &self.hooks
    }

    /// Id of this process in the kernel's records, which is its id in the host's PID namespace.
    pub fn own_id(&self) -> u32 {
        self.own_id
    }

    fn is_attached(&self, hook: HookId) -> bool {
        program_type(&self.hooks, hook).is_some()
    }

    /// Reads how often the kernel's recursion guard skipped each program.
    ///
    /// For a program with a backup copy this is the smaller count: the upper bound for events that both copies missed.
    pub fn recursion_misses(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.copies.iter().filter_map(|(name, copies)| {
            let counts = copies
                .iter()
                .map(|fd| syscall::recursion_misses(fd.as_fd()));
            Some((*name, counts.min()?))
        });
        counts.collect()
    }

    /// Attaches the hooks of sockets again, or detaches them, so that no socket of the host pays for them.
    ///
    /// Only BTF-typed programs are detached: most others run through perf events, and only a capability that the agent
    /// drops can attach these again.
    pub fn read_sockets(&mut self, reads: bool) -> Result<()> {
        let of_sockets = self
            .attached
            .iter_mut()
            .filter(|(id, _)| id.is_of_sockets());
        for (hook, attachment) in of_sockets {
            match reads {
                true => attachment
                    .attach()
                    .with_context(|| format!("attach the hook {hook} again"))?,
                false => attachment.detach(),
            }
        }
        Ok(())
    }

    /// Whether any hook of sockets is attached.
    pub fn reads_sockets(&self) -> bool {
        let mut of_sockets = self.attached.iter().filter(|(id, _)| id.is_of_sockets());
        of_sockets.any(|(_, attachment)| attachment.is_attached())
    }

    /// Marks the sockets on which watched processes and ports already listen; returns the TCP ones.
    pub fn scan_listeners(&mut self) -> Result<Vec<OpenSocket>> {
        let written = self.pass([
            "scan_listeners",
            "scan_listeners_plain",
            "scan_listeners_shared",
        ])?;
        Ok(open_sockets::parse(&written)
            .map(|open| open.socket)
            .collect())
    }

    /// Visits every watched connection; returns what [`open_sockets::parse`] reads.
    pub fn scan_open(&mut self) -> Result<Vec<u8>> {
        self.pass(["scan_open", "scan_open_plain", "scan_open_shared"])
    }

    /// Runs the iterator of the access in use over every open file; returns what it wrote.
    fn pass(&mut self, [btf, raw, shared]: [&'static str; 3]) -> Result<Vec<u8>> {
        let name = match self.access {
            ProgramAccess::Btf => btf,
            ProgramAccess::Raw => raw,
            ProgramAccess::Shared => shared,
        };
        let program = self.copies.get(name).and_then(|copies| copies.first());
        let program = program.with_context(|| format!("find program {name}"))?;
        let mut pass = syscall::start_iterator(program.as_fd())
            .with_context(|| format!("start the iterator {name}"))?;
        let mut written = Vec::new();
        pass.read_to_end(&mut written)
            .with_context(|| format!("run the iterator {name}"))?;
        Ok(written)
    }
}

/// Returns the loaded programs, each with its copies.
fn loaded_copies(ebpf: &Ebpf) -> io::Result<BTreeMap<&'static str, Vec<ProgramFd>>> {
    let mut loaded = BTreeMap::new();
    let hooks = HOOKS.iter().chain([&ACCEPT]);
    let candidates = hooks.flat_map(|hook| hook.candidates);
    for program in candidates.flat_map(|candidate| candidate.programs) {
        let names = [program.name.to_owned(), program.backup_name()];
        let fds = names
            .iter()
            .filter_map(|name| ebpf.program(name)?.fd().ok());
        let copies = fds
            .map(ProgramFd::try_clone)
            .collect::<io::Result<Vec<_>>>()?;
        if !copies.is_empty() {
            loaded.insert(program.name, copies);
        }
    }
    Ok(loaded)
}

/// Returns the type of the programs that are attached for a hook.
fn program_type(hooks: &[HookReport], hook: HookId) -> Option<ProgramType> {
    hooks
        .iter()
        .find(|report| report.hook == hook)?
        .program_type
}

/// Raises the limit that maps count against before 5.11. If that fails, the kernel may refuse the maps later.
fn raise_memory_lock() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(err) = setrlimit(Resource::Memlock, unlimited) {
        debug!(%err, "RLIMIT_MEMLOCK not raised");
    }
}

fn is_not_permitted(err: &anyhow::Error) -> bool {
    err.chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.raw_os_error() == Some(Errno::PERM.raw_os_error()))
}

/// Refusals of all attempts so far, each with its hook.
#[derive(Default)]
struct Refusals(Vec<(HookId, Refused)>);

impl Refusals {
    /// Adds a refusal for each hook that an attempt leaves untried. Hooks that do not depend on the mode are not affected.
    fn add_untried(&mut self, hooks: &[Hook], attempt: Attempt, reason: &str) {
        for hook in hooks {
            let candidates = attempt
                .candidates(hook)
                .filter(|candidate| candidate.mode.is_some());
            self.0.extend(candidates.filter_map(|candidate| {
                let refused = Refused {
                    program_type: candidate.program_type,
                    target: candidate.programs.first()?.target,
                    kind: RefusalKind::Unavailable,
                    reason: reason.to_owned(),
                };
                Some((hook.id, refused))
            }));
        }
    }

    fn report(&self, hook: HookId, program_type: Option<ProgramType>) -> HookReport {
        let of_hook = self.0.iter().filter(|(id, _)| *id == hook);
        HookReport {
            hook,
            program_type,
            refused: of_hook.map(|(_, refused)| refused.clone()).collect(),
        }
    }
}

/// Input that all attempts share.
struct Loading<'a> {
    object: Vec<u8>,
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
        refusals: &mut Refusals,
    ) -> Result<(Probes, Maps), LoadError> {
        let has_loop = self.kernel.types.has_function(LOOP_HELPER);
        if attempt.access != ProgramAccess::Raw && !has_loop {
            let reason = "needs bpf_loop, which this kernel lacks (Linux 5.17)";
            refusals.add_untried(&HOOKS, attempt, reason);
            return Err(LoadError::HookUnavailable {
                failed: refusals.report(HookId::Recv, None),
                before: Vec::new(),
            });
        }
        let mut ebpf = self.load(attempt)?;
        let mut hooks: Vec<HookReport> = Vec::new();
        let mut attached = Vec::new();
        for (index, hook) in HOOKS.iter().enumerate() {
            let is_with_send = hook
                .only_with
                .is_some_and(|function| !self.kernel.types.has_function(function));
            let program_type = if is_with_send {
                program_type(&hooks, HookId::Send)
            } else {
                self.attach_hook(&mut ebpf, &mut attached, hook, attempt, refusals)
            };
            let report = refusals.report(hook.id, program_type);
            if program_type.is_some() {
                hooks.push(report);
            } else if attempt.requires(hook) {
                let is_forbidden = |refused: &Refused| refused.kind == RefusalKind::NotPermitted;
                // The first hook has a single candidate: without permission for it, no other attempt can succeed.
                if hooks.is_empty() && report.refused.iter().any(is_forbidden) {
                    return Err(LoadError::NotPermitted);
                }
                let others = HOOKS.get(index + 1..).unwrap_or_default();
                let reason = format!("not tried without the hook {}", hook.id);
                refusals.add_untried(others, attempt, &reason);
                return Err(LoadError::HookUnavailable {
                    failed: report,
                    before: hooks,
                });
            } else if hook.supports(attempt.access) {
                hooks.push(report);
            }
        }
        if self.wanted.accept_wait {
            let program_type =
                self.attach_hook(&mut ebpf, &mut attached, &ACCEPT, attempt, refusals);
            let report = refusals.report(ACCEPT.id, program_type);
            if program_type.is_none() {
                return Err(LoadError::AcceptUnavailable(report));
            }
            hooks.push(report);
        }
        let plaintext = match self.wanted.plaintext {
            true => Some(PlaintextPrograms::load(&mut ebpf)?),
            false => None,
        };
        let mut maps = Maps::take(&mut ebpf)?;
        let probes = Probes {
            copies: loaded_copies(&ebpf).context("keep the programs open")?,
            attached,
            access: attempt.access,
            hooks,
            own_id: 0,
            plaintext,
        };
        let expected = Expected {
            arrivals: probes.is_attached(HookId::Readable),
            send_start: probes.is_attached(HookId::SendStart),
        };
        match selftest::run(&mut maps, expected, self.wanted) {
            Ok(own_id) => Ok((Probes { own_id, ..probes }, maps)),
            Err(err) => {
                let reason = format!("{err:#}");
                warn!(attach_modes = ?attempt.modes, reason, "self-test failed; trying the next attach mode");
                let before = probes.hooks;
                if let Some(program_type) = program_type(&before, HookId::Recv) {
                    let refused = Refused {
                        program_type,
                        target: SELF_TEST,
                        kind: RefusalKind::SelfTestFailed,
                        reason,
                    };
                    refusals.0.push((HookId::Recv, refused));
                }
                let failed = refusals.report(HookId::Recv, None);
                Err(LoadError::HookUnavailable { failed, before })
            }
        }
    }

    /// Attaches the first candidate of a hook that the attempt allows and the kernel accepts; returns its program type.
    fn attach_hook(
        &self,
        ebpf: &mut Ebpf,
        attached: &mut Vec<(HookId, Attachment)>,
        hook: &Hook,
        attempt: Attempt,
        refusals: &mut Refusals,
    ) -> Option<ProgramType> {
        for candidate in attempt.candidates(hook) {
            match attach::attach(ebpf, self.kernel, candidate, self.preemption) {
                Ok(attachments) => {
                    let attachments = attachments.into_iter();
                    attached.extend(attachments.map(|attachment| (hook.id, attachment)));
                    return Some(candidate.program_type);
                }
                Err(refused) => refusals.0.push((hook.id, refused)),
            }
        }
        None
    }

    /// Loads the object, and shrinks the maps that the attempt does not use.
    fn load(&self, attempt: Attempt) -> Result<Ebpf, LoadError> {
        let Attempt { access, modes, .. } = attempt;
        let features = Features {
            kernel_vectors: modes.contains(&AttachMode::Kprobe).into(),
            ..self.features
        };
        let syscalls = match self.wanted.payload || access == ProgramAccess::Raw {
            true => offsets::SYSCALLS,
            false => SyscallAbi::NONE,
        };
        let mut loader = EbpfLoader::new();
        if !self.wanted.accept_wait {
            loader.map_max_entries("ACCEPTS", 1);
        }
        if !self.wanted.plaintext {
            loader.map_max_entries("PLAINTEXTS", 1);
        }
        let unused: &[&str] = match access {
            ProgramAccess::Btf => &[&RAW_MAPS[..], &SHARED_MAPS, &["MARKED"]].concat(),
            ProgramAccess::Raw => &SHARED_MAPS,
            ProgramAccess::Shared => &RAW_MAPS,
        };
        for map in unused {
            loader.map_max_entries(map, 1);
        }
        if access == ProgramAccess::Shared {
            loader.map_max_entries("MARKED", SHARED_MARKS);
        }
        loader
            .btf(Some(self.kernel.btf))
            .override_global("OFFSETS", bytemuck::bytes_of(&self.offsets), true)
            .override_global("SYSCALLS", bytemuck::bytes_of(&syscalls), true)
            .override_global("FEATURES", bytemuck::bytes_of(&features), true)
            .load(&self.object)
            .map_err(|err| {
                let err = anyhow::Error::new(err);
                match is_not_permitted(&err) {
                    true => LoadError::NotPermitted,
                    false => LoadError::Other(err.context("load the eBPF object")),
                }
            })
    }
}
