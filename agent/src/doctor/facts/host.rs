//! Reads the facts about the host that decide what the agent can measure.
//!
//! Reads the kernel's files; the files beside this one interpret them.
//! Does not depend on: the findings.

use std::{fs, io, path::Path};

use aya::{maps::MapType, sys::is_map_supported};
use serde::Serialize;

use crate::{
    bpf::{
        btf::Types,
        capabilities::{Capabilities, Capability},
        preemption::Preemption,
        preflight::{BTF_PATH, TRACEFS},
        user_namespace::UserNamespace,
    },
    doctor::facts::{
        filesystems::{Cgroups, Tracefs},
        processes::{self, PidNamespace},
        security::{self, Jit, Lockdown, Unprivileged},
    },
};

/// A tracepoint that `--accept-wait` needs.
const TRACEPOINT: &str = "events/syscalls/sys_exit_accept/id";

/// Facts about the host and about this process. `None`: unknown, because the kernel does not report it.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// Release of the kernel.
    pub kernel: String,
    /// Machine name, as `uname -m` prints it.
    pub architecture: String,
    /// Size of the kernel's type information; `None` if the kernel has none.
    pub btf_bytes: Option<u64>,
    /// Whether the kernel compiles eBPF programs.
    pub jit: Option<Jit>,
    /// Whether a ring buffer can be created.
    pub ring_buffer: RingBuffer,
    /// Kernel lockdown.
    pub lockdown: Option<Lockdown>,
    /// Active security modules.
    pub security_modules: Option<Vec<String>>,
    /// Whether eBPF is open to processes without capabilities.
    pub unprivileged_bpf: Option<Unprivileged>,
    /// Effective user id.
    pub user_id: u32,
    /// Effective capabilities.
    #[serde(serialize_with = "names")]
    pub capabilities: Capabilities,
    /// User namespace, which decides whether capabilities apply to eBPF.
    pub user_namespace: UserNamespace,
    /// PID namespace, and the one whose processes procfs shows.
    pub pid_namespace: PidNamespace,
    /// Mount option `hidepid` of procfs; `None` if no process is hidden.
    pub hidepid: Option<String>,
    /// Mounted version of control groups.
    pub cgroups: Cgroups,
    /// Whether the tracepoints of system calls are readable.
    pub tracefs: Tracefs,
    /// Preemption model.
    #[serde(serialize_with = "model")]
    pub preemption: Preemption,
}

/// Whether a ring buffer can be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RingBuffer {
    /// Yes.
    Usable,
    /// No: the kernel has no ring buffers.
    Unknown,
    /// No: the kernel refused it.
    Refused {
        /// The kernel's error.
        reason: String,
    },
}

fn names<S: serde::Serializer>(held: &Capabilities, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(
        held.iter()
            .map(|capability: Capability| capability.to_string()),
    )
}

fn model<S: serde::Serializer>(preemption: &Preemption, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(preemption.model.name())
}

fn preemption() -> Preemption {
    let raw = fs::read(BTF_PATH).unwrap_or_default();
    Preemption::detect(Types::parse(&raw).ok().as_ref())
}

/// Collects the facts.
pub(crate) fn collect() -> Host {
    let uname = rustix::system::uname();
    let sysctl = |name: &str| text(&format!("/proc/sys/{name}")).unwrap_or_default();
    let lockdown = text("/sys/kernel/security/lockdown");
    let modules = text("/sys/kernel/security/lsm");
    let mountinfo = text("/proc/self/mountinfo").unwrap_or_default();
    Host {
        kernel: uname.release().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        btf_bytes: fs::metadata(BTF_PATH).ok().map(|file| file.len()),
        jit: Jit::parse(&sysctl("net/core/bpf_jit_enable")),
        ring_buffer: ring_buffer(),
        lockdown: lockdown.and_then(|text| Lockdown::parse(&text)),
        security_modules: modules.map(|text| security::modules(&text)),
        unprivileged_bpf: Unprivileged::parse(&sysctl("kernel/unprivileged_bpf_disabled")),
        user_id: rustix::process::geteuid().as_raw(),
        capabilities: Capabilities::effective(),
        user_namespace: UserNamespace::of_this_process(),
        pid_namespace: pid_namespace(),
        hidepid: processes::hidepid(&mountinfo),
        cgroups: cgroups(Path::new("/sys/fs/cgroup")),
        tracefs: tracefs(),
        preemption: preemption(),
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn link(path: &str) -> Option<String> {
    Some(fs::read_link(path).ok()?.to_string_lossy().into_owned())
}

/// Creates a ring buffer and closes it.
fn ring_buffer() -> RingBuffer {
    match is_map_supported(MapType::RingBuf) {
        Ok(true) => RingBuffer::Usable,
        Ok(false) => RingBuffer::Unknown,
        Err(err) => RingBuffer::Refused {
            reason: err.io_error.to_string(),
        },
    }
}

fn pid_namespace() -> PidNamespace {
    let (namespace, proc_self) = (link("/proc/self/ns/pid"), link("/proc/self"));
    PidNamespace::of(
        namespace.as_deref(),
        proc_self.as_deref(),
        std::process::id(),
    )
}

fn cgroups(root: &Path) -> Cgroups {
    let magic = |path: &Path| Some(rustix::fs::statfs(path).ok()?.f_type);
    let has_trees = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
    Cgroups::of(magic(root), magic(&root.join("unified")), has_trees)
}

fn tracefs() -> Tracefs {
    let states = TRACEFS.map(|folder| {
        let folder = Path::new(folder);
        let reading = fs::read(folder.join(TRACEPOINT)).map(drop);
        let has_events = folder.join("events").is_dir();
        Tracefs::of(reading.map_err(|err: io::Error| err.kind()), has_events)
    });
    match states {
        [Tracefs::NotMounted, second] => second,
        [first, _] => first,
    }
}
