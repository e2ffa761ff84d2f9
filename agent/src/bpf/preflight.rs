//! Checks, before anything is loaded, whether this host lets the agent load its programs.
//!
//! `serve` and the doctor call it first, because its errors are clearer than those of the kernel.
//! Does not depend on: the programs.

use std::{fs, io, path::Path};

use crate::bpf::{
    capabilities::{Capabilities, Capability},
    seccomp,
};

/// Type information of the running kernel.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// Mount points of tracefs, in the order in which the agent tries them.
pub const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

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
    /// A seccomp filter refuses bpf(2), although the capabilities are held.
    #[error(
        "a seccomp profile refuses bpf(2), although CAP_BPF and CAP_PERFMON are held; replace the container engine's \
         default profile (Docker, Podman: --security-opt seccomp=unconfined; Kubernetes: securityContext.seccompProfile: \
         {{type: Unconfined}}; systemd: SystemCallFilter=@system-service bpf perf_event_open), or run with --no-probes for \
         host and GPU metrics only"
    )]
    Seccomp,
    /// `--accept-wait` needs tracefs, and this user may not read it.
    #[error(
        "--accept-wait: missing capability CAP_DAC_READ_SEARCH, without which only root can read {0}; \
         grant it, open the folder (mount -o remount,mode=755 {0}), or leave the option out"
    )]
    ClosedTracefs(&'static str),
    /// `--accept-wait` needs tracefs, and it is not mounted.
    #[error(
        "--accept-wait: tracefs is mounted neither on {} nor on {}; run `mount -t tracefs tracefs {}` \
         (Kubernetes: add that folder of the host as a hostPath volume), or leave the option out",
        TRACEFS[0], TRACEFS[1], TRACEFS[0]
    )]
    NoTracefs,
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
    let has_btf = Path::new(BTF_PATH).exists();
    judge(has_btf, held, &lockdown, seccomp::refuses_bpf)?;
    if accept_wait {
        judge_tracefs(|folder| Path::new(folder).join("events").metadata().map(drop))?;
    }
    Ok(())
}

/// Returns an obstacle unless one of the folders is a tracefs that this process may read; `look` opens its folder of events.
fn judge_tracefs(look: impl Fn(&str) -> io::Result<()>) -> Result<(), Obstacle> {
    let mut obstacle = Obstacle::NoTracefs;
    for folder in TRACEFS {
        match look(folder).map_err(|err| err.kind()) {
            Ok(()) => return Ok(()),
            Err(io::ErrorKind::PermissionDenied) if obstacle == Obstacle::NoTracefs => {
                obstacle = Obstacle::ClosedTracefs(folder);
            }
            Err(_) => {}
        }
    }
    Err(obstacle)
}

fn judge(
    has_btf: bool,
    held: Capabilities,
    lockdown: &str,
    seccomp_refuses: impl FnOnce() -> bool,
) -> Result<(), Obstacle> {
    if !held.holds(Capability::SYS_ADMIN) {
        for needed in [Capability::BPF, Capability::PERFMON] {
            if !held.holds(needed) {
                return Err(Obstacle::NoCapability(needed));
            }
        }
    }
    if seccomp_refuses() {
        return Err(Obstacle::Seccomp);
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
                judge(has_btf, held, lockdown, || false),
                expected,
                "{held:?} {lockdown:?}"
            );
        }
    }

    #[test]
    fn a_seccomp_profile_is_named_once_the_capabilities_are_held() {
        let held = Capabilities::from_mask(ROOT);
        let (with, without) = (
            judge(true, held, OPEN, || true),
            judge(true, Capabilities::default(), OPEN, || true),
        );
        assert_eq!(with, Err(Obstacle::Seccomp));
        assert_eq!(without, Err(Obstacle::NoCapability(Capability::BPF)));
        let line = Obstacle::Seccomp.to_string();
        for part in [
            "seccomp profile refuses bpf(2)",
            "--security-opt seccomp=unconfined",
            "seccompProfile: {type: Unconfined}",
        ] {
            assert!(line.contains(part), "{line:?} lacks {part:?}");
        }
    }

    #[test]
    fn tracefs_in_either_folder_is_found() {
        let found = |errors: [Option<io::ErrorKind>; 2]| {
            judge_tracefs(|folder| {
                let index = TRACEFS.iter().position(|known| *known == folder).unwrap();
                errors[index].map_or(Ok(()), |kind| Err(kind.into()))
            })
        };
        let (absent, denied) = (
            Some(io::ErrorKind::NotFound),
            Some(io::ErrorKind::PermissionDenied),
        );
        let closed = |index: usize| Err(Obstacle::ClosedTracefs(TRACEFS[index]));
        for (errors, expected) in [
            ([None, absent], Ok(())),
            ([absent, None], Ok(())),
            ([denied, None], Ok(())),
            ([denied, absent], closed(0)),
            ([denied, denied], closed(0)),
            ([absent, denied], closed(1)),
            ([absent, absent], Err(Obstacle::NoTracefs)),
        ] {
            assert_eq!(found(errors), expected, "{errors:?}");
        }
    }

    #[test]
    fn missing_tracefs_is_reported_with_both_remedies() {
        let line = Obstacle::NoTracefs.to_string();
        assert!(!line.contains('\n'));
        for part in [
            "--accept-wait",
            "/sys/kernel/debug/tracing",
            "`mount -t tracefs tracefs /sys/kernel/tracing`",
            "hostPath",
        ] {
            assert!(line.contains(part), "{line:?} lacks {part:?}");
        }
    }

    #[test]
    fn obstacles_are_one_line_with_a_remedy() {
        for obstacle in [
            Obstacle::NoBtf,
            Obstacle::NoCapability(Capability::BPF),
            Obstacle::Lockdown,
            Obstacle::Seccomp,
        ] {
            let line = obstacle.to_string();
            assert!(!line.contains('\n'));
            assert!(line.contains("--no-probes"), "{line}");
        }
    }
}
