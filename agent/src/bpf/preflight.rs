//! Whether this host lets the agent load its programs at all; if not, which one thing stands in the way and the remedy.

use std::{fs, io, path::Path};

use crate::bpf::capabilities::{Capabilities, Capability};

/// The kernel's own type information.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// Where tracepoints of system calls are looked up.
const TRACEFS: &str = "/sys/kernel/tracing";

/// What stands in the way: each is one line that names the thing and the remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Obstacle {
    /// No BTF.
    #[error(
        "this kernel has no BTF ({BTF_PATH} is missing); boot one built with CONFIG_DEBUG_INFO_BTF=y, \
         or run with --no-probes for host and GPU figures alone"
    )]
    NoBtf,
    /// A capability is missing.
    #[error(
        "missing capability {0}, {use_of}; run as root, or grant it beside the others \
         (setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep inferprobe; \
         systemd: AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYS_PTRACE; \
         Kubernetes: securityContext.capabilities.add), or run with --no-probes for host and GPU figures alone",
        use_of = use_of(*.0)
    )]
    NoCapability(Capability),
    /// `--accept-wait` asks for a folder that is closed.
    #[error(
        "--accept-wait: missing capability CAP_DAC_READ_SEARCH, without which {TRACEFS} is closed to all but root; \
         grant it, open the folder (mount -o remount,mode=755 {TRACEFS}), or leave the option out"
    )]
    ClosedTracefs,
    /// Kernel lockdown in confidentiality mode.
    #[error(
        "kernel lockdown is in confidentiality mode, which forbids reading kernel memory from eBPF; boot with \
         lockdown=integrity or none, or run with --no-probes for host and GPU figures alone"
    )]
    Lockdown,
}

/// What the probes need `capability` for, behind a comma.
fn use_of(capability: Capability) -> &'static str {
    match capability {
        Capability::BPF => "which loading the probes takes",
        Capability::PERFMON => "which lets the probes read the kernel's memory",
        _ => "which the probes need",
    }
}

/// Looks at this host; `accept_wait`: whether that is to be measured too.
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
    fn the_first_obstacle_is_named() {
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
    fn every_obstacle_is_one_line_with_a_remedy() {
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
