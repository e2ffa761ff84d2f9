//! Whether this host lets the agent load its programs at all; if not, which one thing stands in the way and the remedy.

use std::{fs, path::Path};

/// The kernel's own type information.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

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
        "missing capability {0}; run as root, or grant it (systemd: AmbientCapabilities=CAP_BPF CAP_PERFMON; \
         Kubernetes: securityContext.privileged), or run with --no-probes for host and GPU figures alone"
    )]
    NoCapability(&'static str),
    /// Kernel lockdown in confidentiality mode.
    #[error(
        "kernel lockdown is in confidentiality mode, which forbids reading kernel memory from eBPF; boot with \
         lockdown=integrity or none, or run with --no-probes for host and GPU figures alone"
    )]
    Lockdown,
}

/// `CAP_SYS_ADMIN`, which includes the two below.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Looks at this host.
pub fn check() -> Result<(), Obstacle> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    judge(Path::new(BTF_PATH).exists(), &status, &lockdown)
}

fn judge(has_btf: bool, status: &str, lockdown: &str) -> Result<(), Obstacle> {
    let capabilities = effective_capabilities(status);
    let holds = |capability: u32| capabilities >> capability & 1 == 1;
    if !holds(CAP_SYS_ADMIN) {
        if !holds(CAP_BPF) {
            return Err(Obstacle::NoCapability("CAP_BPF"));
        }
        if !holds(CAP_PERFMON) {
            return Err(Obstacle::NoCapability("CAP_PERFMON"));
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

/// The `CapEff` mask of `/proc/self/status`; 0 if it is not there.
fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "Name:\tx\nCapEff:\t000001ffffffffff\n";
    const OPEN: &str = "[none] integrity confidentiality\n";

    #[test]
    fn the_first_obstacle_is_named() {
        let none = "CapEff:\t0000000000000000\n";
        let bpf_only = "CapEff:\t0000008000000000\n";
        let both = "CapEff:\t000000c000000000\n";
        let admin = "CapEff:\t0000000000200000\n";
        let cases = [
            (true, ROOT, OPEN, Ok(())),
            (true, both, "", Ok(())),
            (true, admin, OPEN, Ok(())),
            (true, none, OPEN, Err(Obstacle::NoCapability("CAP_BPF"))),
            (true, "", OPEN, Err(Obstacle::NoCapability("CAP_BPF"))),
            (
                true,
                bpf_only,
                OPEN,
                Err(Obstacle::NoCapability("CAP_PERFMON")),
            ),
            (
                true,
                ROOT,
                "none integrity [confidentiality]\n",
                Err(Obstacle::Lockdown),
            ),
            (true, ROOT, "none [integrity] confidentiality\n", Ok(())),
            (false, ROOT, OPEN, Err(Obstacle::NoBtf)),
        ];
        for (has_btf, status, lockdown, expected) in cases {
            assert_eq!(
                judge(has_btf, status, lockdown),
                expected,
                "{status:?} {lockdown:?}"
            );
        }
    }

    #[test]
    fn every_obstacle_is_one_line_with_a_remedy() {
        for obstacle in [
            Obstacle::NoBtf,
            Obstacle::NoCapability("CAP_BPF"),
            Obstacle::Lockdown,
        ] {
            let line = obstacle.to_string();
            assert!(!line.contains('\n'));
            assert!(line.contains("--no-probes"), "{line}");
        }
    }
}
