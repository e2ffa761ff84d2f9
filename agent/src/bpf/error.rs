//! Defines why the probes could not be attached.
//!
//! Each error is one line with the remedy; the doctor splits it at the first semicolon.
//! Does not depend on: the loader.

use crate::bpf::{attach_mode::AttachMode, report::HookReport};

/// Why the probes could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The embedded object is empty: `build.rs` found no eBPF toolchain, or was asked to skip it.
    #[error(
        "cannot load the probes: this agent was built without the eBPF programs, because there was no toolchain for them or \
         INFERPROBE_SKIP_EBPF=1 was set; run `cargo xtask build`"
    )]
    NoPrograms,
    /// A required hook cannot be attached in any mode.
    #[error(
        "cannot attach hook `{}` on this kernel: {}; run on a newer kernel, or with --no-probes for host and GPU metrics \
         only; `inferprobe doctor` shows all hooks",
        .failed.hook, reasons(.failed)
    )]
    HookUnavailable {
        /// The hook.
        failed: HookReport,
        /// Outcome of the hooks before it.
        before: Vec<HookReport>,
    },
    /// The kernel does not support the mode that `--attach-mode` names.
    #[error(
        "--attach-mode {mode}: cannot attach hook `{}`: {}; leave the option out to use the best mode of this kernel",
        .failed.hook, reasons(.failed)
    )]
    AttachModeUnavailable {
        /// The mode.
        mode: AttachMode,
        /// The first required hook that it cannot attach.
        failed: HookReport,
    },
    /// The hook `accept` cannot be attached.
    #[error(
        "--accept-wait: cannot attach hook `accept`: {}; run as root, with tracefs mounted (mount -t tracefs tracefs \
         /sys/kernel/tracing), on a kernel with CONFIG_FTRACE_SYSCALLS=y, or leave the option out",
        reasons(.0)
    )]
    AcceptUnavailable(HookReport),
    /// The kernel does not let this process load programs.
    #[error(
        "the kernel refused the probes: operation not permitted; run with CAP_BPF and CAP_PERFMON outside of any user \
         namespace, allow bpf(2) in seccomp profiles and security modules, before Linux 5.11 also raise RLIMIT_MEMLOCK \
         (systemd: LimitMEMLOCK=infinity), or run with --no-probes for host and GPU metrics only"
    )]
    NotPermitted,
    /// Any other failure.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl LoadError {
    /// Outcome of the hooks that were tried.
    pub fn hooks(&self) -> Vec<HookReport> {
        match self {
            Self::HookUnavailable { failed, before } => {
                let others = before.iter().filter(|report| report.hook != failed.hook);
                others.chain([failed]).cloned().collect()
            }
            _ => Vec::new(),
        }
    }
}

fn reasons(report: &HookReport) -> String {
    report.reasons().join(", ")
}
