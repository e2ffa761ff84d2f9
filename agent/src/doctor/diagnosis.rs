//! Concludes from the facts what will be missing from the metrics, why, and how to fix it.
//!
//! Pure functions of the facts; the report lists the findings.
//! Does not depend on: how facts are collected.

use crate::{
    bpf::{
        capabilities::{Capabilities, Capability},
        user_namespace::UserNamespace,
    },
    doctor::{
        degraded_hooks,
        facts::{
            Facts,
            filesystems::Tracefs,
            gpus::{Gpus, Nvml},
            host::{Host, RingBuffer},
            pods::Pods,
            probing::{Probing, SelfTest},
            processes::PidNamespace,
            security::Lockdown,
        },
        finding::{Finding, OLDER_LISTENERS, Severity},
        missing_hooks,
    },
    metrics::families,
};

/// Returns the findings that follow from `facts`, the most severe first.
pub(crate) fn findings(facts: &Facts) -> Vec<Finding> {
    let Facts {
        attach_mode,
        host,
        pods,
        gpus,
        probing,
        ..
    } = facts;
    let mut findings = of_probes(host, probing);
    findings.extend(of_capabilities(host));
    findings.extend(of_processes(host));
    if findings
        .iter()
        .all(|finding| finding.severity != Severity::Everything)
    {
        findings.extend(missing_hooks::findings(&probing.hooks, *attach_mode));
        findings.extend(degraded_hooks::findings(
            &probing.hooks,
            host.preemption,
            *attach_mode,
        ));
    }
    findings.extend(of_pods(pods));
    findings.extend(of_gpus(gpus));
    findings.extend(of_tracefs(host.tracefs));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Returns each cause that prevents attaching the probes; empty if they passed the self-test.
fn of_probes(host: &Host, probing: &Probing) -> Vec<Finding> {
    let every_request = |why: String, remedy: &str| Finding {
        severity: Severity::Everything,
        what: "all request, model and worker metrics; host and GPU metrics remain".into(),
        why,
        remedy: remedy.into(),
    };
    if let SelfTest::Failed { reason } = &probing.self_test {
        const REMEDY: &str = "check that the loopback interface is up (ip link set lo up); otherwise run on another kernel";
        return vec![every_request(format!("self-test failed: {reason}"), REMEDY)];
    }
    let Some(refusal) = &probing.refusal else {
        return Vec::new();
    };
    let mut findings: Vec<Finding> = missing(
        host.capabilities,
        &[Capability::BPF, Capability::PERFMON],
        Capability::SYS_ADMIN,
    )
    .into_iter()
    .map(|capability| every_request(format!("{capability} is missing"), GRANT))
    .collect();
    if host.user_namespace == UserNamespace::Nested {
        let why =
            "the agent runs in a user namespace of its own: its capabilities do not apply to eBPF";
        findings.push(every_request(
            why.into(),
            "run outside of any user namespace (docker run --userns=host; podman: as root)",
        ));
    }
    if host.lockdown == Some(Lockdown::Confidentiality) {
        let why =
            "kernel lockdown is in confidentiality mode: eBPF programs may not read kernel memory";
        findings.push(every_request(
            why.into(),
            "boot with lockdown=integrity or none",
        ));
    }
    if host.btf_bytes.is_none() {
        let why = "the kernel has no BTF (/sys/kernel/btf/vmlinux)";
        findings.push(every_request(
            why.into(),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ));
    }
    if host.ring_buffer == RingBuffer::Unknown {
        let why = "the kernel has no ring buffers";
        findings.push(every_request(why.into(), "run on Linux 5.8 or later"));
    }
    if findings.is_empty() {
        // An error gives its remedy after a semicolon.
        let (why, remedy) = refusal.split_once("; ").unwrap_or((
            refusal,
            "run with RUST_LOG=debug to see the kernel's error: a security module or a container's limits may forbid \
             eBPF, or the kernel is not supported",
        ));
        findings.push(every_request(why.into(), remedy));
    }
    findings
}

/// How to get the capabilities that loading the probes needs.
const GRANT: &str = "run as root, or grant CAP_BPF and CAP_PERFMON (systemd: AmbientCapabilities=CAP_BPF \
                     CAP_PERFMON; Kubernetes: securityContext.capabilities.add)";

/// Returns those of `wanted` that are not held; none if `instead`, which implies them, is held.
fn missing(held: Capabilities, wanted: &[Capability], instead: Capability) -> Vec<Capability> {
    if held.holds(instead) {
        return Vec::new();
    }
    let lacks = |capability: &Capability| !held.holds(*capability);
    wanted.iter().copied().filter(lacks).collect()
}

/// Returns what procfs hides about other users' processes.
fn of_capabilities(host: &Host) -> Option<Finding> {
    let held = host.capabilities;
    let mut lacked = missing(held, &[Capability::SYS_PTRACE], Capability::SYS_PTRACE);
    lacked.extend(missing(
        held,
        &[Capability::DAC_READ_SEARCH],
        Capability::DAC_OVERRIDE,
    ));
    let names: Vec<String> = lacked.iter().map(Capability::to_string).collect();
    let (last, others) = names.split_last()?;
    let why = match others {
        [] => format!("{last} is missing"),
        others => format!("{} and {last} are missing", others.join(", ")),
    };
    let hides = lacked
        .contains(&Capability::SYS_PTRACE)
        .then_some(host.hidepid.as_ref())
        .flatten();
    let models = format!(
        "the model or version of some TorchServe workers of other users ({}, {}): the agent cannot read their working \
         directories",
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
            what: "servers of other users: they are not found, unless their port is watched".into(),
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
            "servers that are found by their command lines, and process names: the agent does not see processes outside \
             its pid namespace, and those inside have other ids on the host; watched ports are measured"
        }
        PidNamespace::Unknown => "servers that are found by their command lines",
    };
    let why = match host.pid_namespace {
        PidNamespace::Unknown => "/proc has no entry for this process",
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

/// Returns which labels of pods stay empty, and why.
fn of_pods(pods: &Pods) -> Option<Finding> {
    const REMEDY: &str = "mount the host's /var/log/pods and /var/log/containers at the same paths, read-only (Helm chart: \
                          podLogs), or give --host-root; to drop the labels, --no-label";
    if pods.unnamed == 0 {
        return None;
    }
    let refused = pods.folders.iter().find(|folder| folder.refusal.is_some());
    let why = match refused {
        Some(folder) => format!(
            "{} is not readable: {}",
            folder.path.display(),
            folder.refusal.as_deref().unwrap_or_default()
        ),
        None => {
            let paths = pods.folders.iter().map(|folder| folder.path.display());
            let paths: Vec<String> = paths.map(|path| path.to_string()).collect();
            format!("{} do not name them", paths.join(" and "))
        }
    };
    Some(Finding {
        severity: Severity::Some,
        what: format!(
            "labels namespace, pod and container of {} of {} containers in pods: they stay empty",
            pods.unnamed, pods.containers
        ),
        why,
        remedy: REMEDY.into(),
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
                true => "set --nvml-library to the path of a libnvidia-ml.so.1, or leave the option out",
                false => {
                    "install the driver's libnvidia-ml.so.1, or set --nvml-library to its path (containers: the NVIDIA \
                     runtime with NVIDIA_DRIVER_CAPABILITIES=utility)"
                }
            }
            .into(),
        }),
        Nvml::Loaded { refused, .. } if !refused.is_empty() => Some(Finding {
            severity: Severity::Some,
            what: format!("{all} of some GPUs"),
            why: refused.join(", "),
            remedy: "run nvidia-smi to see the error of each GPU".into(),
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
            "the kernel has no tracepoints for system calls",
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
