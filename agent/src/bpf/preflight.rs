//! Checks, before anything is loaded, whether this host lets the agent load its programs.
//!
//! `serve` and the doctor call it first, because its errors are clearer than those of the kernel.
//! Does not depend on: the programs.

use std::{fs, io, path::Path};

use crate::bpf::capabilities::{Capabilities, Capability};

/// Type information of the running kernel.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// Mount point of tracefs, which has the tracepoints of system calls.
const TRACEFS: &str = "/sys/kernel/tracing";

/// What prevents loading, as one line with the remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Obstacle {
    /// The kernel has no BTF.
    #[error(
        "this kernel has no BTF: {BTF_PATH} is missing; boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, or run with \
         --no-probes for host and GPU metrics only"
    )]
    NoBtf,
    /// A capability is missing.
    #[error(
        "missing capability {0}, {use_of}; run as root, or grant it together with the others \
         (setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep inferprobe; \
         systemd: AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYS_PTRACE; \
         Kubernetes: securityContext.capabilities.add), or run with --no-probes for host and GPU metrics only",
        use_of = use_of(*.0)
    )]
    NoCapability(Capability),
    /// `--accept-wait` needs a folder that is closed to this user.
    #[error(
        "--accept-wait: missing capability CAP_DAC_READ_SEARCH, without which only root can read {TRACEFS}; \
         grant it, open the folder (mount -o remount,mode=755 {TRACEFS}), or leave the option out"
    )]
    ClosedTracefs,
    /// Kernel lockdown is in confidentiality mode.
    #[error(
        "kernel lockdown is in confidentiality mode, which forbids eBPF programs to read kernel memory; boot with \
         lockdown=integrity or none, or run with --no-probes for host and GPU metrics only"
    )]
    Lockdown,
}

/// Returns what the probes need `capability` for.
fn use_of(capability: Capability) -> &'static str {
    match capability {
        Capability::BPF => "which the agent needs to load the probes",
        Capability::PERFMON => "which the probes need to read kernel memory",
        _ => "which the probes need",
    }
}

/// Checks this host; with `accept_wait`, also what `--accept-wait` needs.
pub fn check(accept_wait: bool) -> Result<(), Obstacle> {
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let held = Capabilities::effective();
    judge(Path::new(BTF_PATH).exists(), held, &lockdown)?;
    let events = Path::new(TRACEFS).join("events").metadata();
    if accept_wait && events.is_err_and(|err| err.kind() == io::ErrorKind::PermissionDenied) {
        return Err(Obstacle::ClosedTracefs);
    }
    Ok(())
}

fn judge(has_btf: bool, held: Capabilities, lockdown: &str) -> Result<(), Obstacle> {
    if !held.holds(Capability::SYS_ADMIN) {
        for needed in [Capability::BPF, Capability::PERFMON] {
            if !held.holds(needed) {
                return Err(Obstacle::NoCapability(needed));
            }
        }
    }
    if lockdown.contains("[confidentiality]") {
        return Err(Obstacle::Lockdown);
    }
    if !has_btf {
        return Err(Obstacle::NoBtf);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u64 = 0x1ff_ffff_ffff;
    const OPEN: &str = "[none] integrity confidentiality\n";

    #[test]
    fn judge_names_the_first_obstacle() {
        let mask = |held: &[Capability]| held.iter().map(|one| 1 << one.number()).sum();
        let (bpf, perfmon) = (Capability::BPF, Capability::PERFMON);
        let confidential = "none integrity [confidentiality]\n";
        let cases = [
            (true, ROOT, OPEN, Ok(())),
            (true, mask(&[bpf, perfmon]), "", Ok(())),
            (true, mask(&[Capability::SYS_ADMIN]), OPEN, Ok(())),
            (true, 0, OPEN, Err(Obstacle::NoCapability(bpf))),
            (
                true,
                mask(&[bpf]),
                OPEN,
                Err(Obstacle::NoCapability(perfmon)),
            ),
            (true, ROOT, confidential, Err(Obstacle::Lockdown)),
            (true, ROOT, "none [integrity] confidentiality\n", Ok(())),
            (false, ROOT, OPEN, Err(Obstacle::NoBtf)),
        ];
        for (has_btf, mask, lockdown, expected) in cases {
            let held = Capabilities::from_mask(mask);
            assert_eq!(
                judge(has_btf, held, lockdown),
                expected,
                "{held:?} {lockdown:?}"
            );
        }
    }

    #[test]
    fn obstacles_are_one_line_with_a_remedy() {
        for obstacle in [
            Obstacle::NoBtf,
            Obstacle::NoCapability(Capability::BPF),
            Obstacle::Lockdown,
        ] {
            let line = obstacle.to_string();
            assert!(!line.contains('\n'));
            assert!(line.contains("--no-probes"), "{line}");
        }
    }
}
