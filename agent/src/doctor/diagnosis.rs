//! What will be missing from the metrics, why, and what would bring it back: conclusions from facts.
//!
//! Looks at nothing itself.

use crate::{
    bpf::capabilities::{Capabilities, Capability},
    doctor::{
        degraded_hooks,
        facts::{
            Facts,
            filesystems::Tracefs,
            gpus::{Gpus, Nvml},
            host::{Host, RingBuffer},
            probing::{Probing, SelfTest},
            processes::{PidNamespace, UserNamespace},
            security::Lockdown,
        },
        finding::{Finding, OLDER_LISTENERS, Severity},
        missing_hooks,
    },
    metrics::families,
};

/// Every loss that follows from `facts`, the heaviest first.
pub(crate) fn findings(facts: &Facts) -> Vec<Finding> {
    let Facts {
        rung,
        host,
        gpus,
        probing,
    } = facts;
    let mut losses = of_probes(host, probing);
    losses.extend(of_capabilities(host));
    losses.extend(of_processes(host));
    if losses
        .iter()
        .all(|loss| loss.severity != Severity::Everything)
    {
        losses.extend(missing_hooks::findings(&probing.hooks, *rung));
        losses.extend(degraded_hooks::findings(
            &probing.hooks,
            host.preemption,
            *rung,
        ));
    }
    losses.extend(of_gpus(gpus));
    losses.extend(of_tracefs(host.tracefs));
    losses.sort_by_key(|loss| loss.severity);
    losses
}

/// Each thing that keeps the probes from being attached; nothing if they are, and tell the truth.
fn of_probes(host: &Host, probing: &Probing) -> Vec<Finding> {
    let every_request = |why: String, remedy: &str| Finding {
        severity: Severity::Everything,
        what: "every figure of requests, models and workers; those of host and GPUs stay".into(),
        why,
        remedy: remedy.into(),
    };
    if let SelfTest::Failed { reason } = &probing.self_test {
        const REMEDY: &str =
            "see that the loopback interface is up (ip link set lo up); else run on another kernel";
        return vec![every_request(reason.clone(), REMEDY)];
    }
    let Some(refusal) = &probing.refusal else {
        return Vec::new();
    };
    let mut losses: Vec<Finding> = missing(
        host.capabilities,
        &[Capability::BPF, Capability::PERFMON],
        Capability::SYS_ADMIN,
    )
    .into_iter()
    .map(|capability| every_request(format!("{capability} is missing"), GRANT))
    .collect();
    if host.user_namespace == UserNamespace::Nested {
        let why =
            "the agent runs in a user namespace of its own: its capabilities do not hold for eBPF";
        losses.push(every_request(
            why.into(),
            "run outside of any user namespace (docker run --userns=host; podman: as root)",
        ));
    }
    if host.lockdown == Some(Lockdown::Confidentiality) {
        let why =
            "kernel lockdown is in confidentiality mode: no eBPF program may read kernel memory";
        losses.push(every_request(
            why.into(),
            "boot with lockdown=integrity or none",
        ));
    }
    if host.btf_bytes.is_none() {
        let why = "the kernel has no BTF (/sys/kernel/btf/vmlinux)";
        losses.push(every_request(
            why.into(),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ));
    }
    if host.ring_buffer == RingBuffer::Unknown {
        let why = "the kernel has no ring buffers";
        losses.push(every_request(why.into(), "run on Linux 5.8 or later"));
    }
    if losses.is_empty() {
        // Errors say the remedy behind a semicolon.
        let (why, remedy) = refusal.split_once("; ").unwrap_or((
            refusal,
            "see with RUST_LOG=debug what the kernel said: a security module or a container's limits may forbid it, or \
             the kernel is not supported",
        ));
        losses.push(every_request(why.into(), remedy));
    }
    losses
}

/// How to be granted what loading takes.
const GRANT: &str = "run as root, or grant CAP_BPF and CAP_PERFMON (systemd: AmbientCapabilities=CAP_BPF \
                     CAP_PERFMON; Kubernetes: securityContext.capabilities.add)";

/// Those of `wanted` that are not held, unless `instead` is.
fn missing(held: Capabilities, wanted: &[Capability], instead: Capability) -> Vec<Capability> {
    if held.holds(instead) {
        return Vec::new();
    }
    let lacks = |capability: &Capability| !held.holds(*capability);
    wanted.iter().copied().filter(lacks).collect()
}

/// What procfs keeps back of other users' processes.
fn of_capabilities(host: &Host) -> Option<Finding> {
    let held = host.capabilities;
    let mut lacking = missing(held, &[Capability::SYS_PTRACE], Capability::SYS_PTRACE);
    lacking.extend(missing(
        held,
        &[Capability::DAC_READ_SEARCH],
        Capability::DAC_OVERRIDE,
    ));
    let names: Vec<String> = lacking.iter().map(Capability::to_string).collect();
    let (last, others) = names.split_last()?;
    let why = match others {
        [] => format!("{last} is missing"),
        others => format!("{} and {last} are missing", others.join(", ")),
    };
    let hides = lacking
        .contains(&Capability::SYS_PTRACE)
        .then_some(host.hidepid.as_ref())
        .flatten();
    let models = format!(
        "the model or version of some TorchServe workers of other users ({}, {}): their working folders cannot be read",
        families::WORKERS.name,
        families::WORKER_LOAD.name,
    );
    let remedy = format!(
        "run as root, as the servers' user, or grant {}",
        names.join(" and ")
    );
    Some(match hides {
        None => Finding {
            severity: Severity::Some,
            what: models,
            why,
            remedy,
        },
        Some(hidepid) => Finding {
            severity: Severity::Some,
            what: "every server of other users that is not watched by its port: it is not found"
                .into(),
            why: format!("{why}, and /proc is mounted with hidepid={hidepid}"),
            remedy: format!("{remedy}; or mount /proc without hidepid"),
        },
    })
}

fn of_processes(host: &Host) -> Option<Finding> {
    let what = match host.pid_namespace {
        PidNamespace::Host => return None,
        PidNamespace::NestedWithOuterProc => OLDER_LISTENERS,
        PidNamespace::Nested => {
            "servers that are found by their command lines, and the names of processes: those of this pid namespace \
             have other ids on the host, and those outside are not seen; watched ports are"
        }
        PidNamespace::Unknown => "servers that are found by their command lines",
    };
    let why = match host.pid_namespace {
        PidNamespace::Unknown => "/proc does not tell of this process",
        _ => "the agent runs in a pid namespace of its own",
    };
    let remedy = match host.pid_namespace {
        PidNamespace::Unknown => "mount procfs on /proc",
        _ => "run in the host's pid namespace (docker run --pid=host; Kubernetes: hostPID: true)",
    };
    Some(Finding {
        severity: Severity::Some,
        what: what.into(),
        why: why.into(),
        remedy: remedy.into(),
    })
}

fn of_gpus(gpus: &Gpus) -> Option<Finding> {
    let all = [
        families::GPU_UTILIZATION.name,
        families::GPU_MEMORY_UTILIZATION.name,
        families::GPU_MEMORY_USED.name,
    ]
    .join(", ");
    match &gpus.nvml {
        Nvml::Unusable { reason } if gpus.present || gpus.expected => Some(Finding {
            severity: Severity::Some,
            what: all,
            why: format!("NVML cannot be used: {reason}"),
            remedy: match gpus.expected {
                true => "give --nvml-library the path of a libnvidia-ml.so.1, or leave it out",
                false => {
                    "install the driver's libnvidia-ml.so.1, or name it with --nvml-library (containers: the NVIDIA \
                     runtime with NVIDIA_DRIVER_CAPABILITIES=utility)"
                }
            }
            .into(),
        }),
        Nvml::Loaded { refused, .. } if !refused.is_empty() => Some(Finding {
            severity: Severity::Some,
            what: format!("{all} of some GPUs"),
            why: refused.join(", "),
            remedy: "see what nvidia-smi says of them".into(),
        }),
        _ => None,
    }
}

fn of_tracefs(tracefs: Tracefs) -> Option<Finding> {
    let (why, remedy) = match tracefs {
        Tracefs::Usable => return None,
        Tracefs::Forbidden => (
            "tracefs is not readable",
            "run as root, or grant CAP_DAC_READ_SEARCH",
        ),
        Tracefs::WithoutSystemCalls => (
            "the kernel has no tracepoints of system calls",
            "boot a kernel built with CONFIG_FTRACE_SYSCALLS=y",
        ),
        Tracefs::NotMounted => (
            "tracefs is not mounted",
            "mount -t tracefs tracefs /sys/kernel/tracing",
        ),
    };
    Some(Finding {
        severity: Severity::Option,
        what: format!(
            "{}: --accept-wait cannot be given",
            families::ACCEPT_WAIT.name
        ),
        why: why.into(),
        remedy: remedy.into(),
    })
}
