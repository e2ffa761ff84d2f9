//! Drops, for good, all capabilities that the agent no longer needs once its programs run.
//!
//! Capabilities belong to threads, so `serve` calls this before it starts any other thread.
//! Does not depend on: how the programs were attached.

use anyhow::{Context as _, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use tracing::warn;

use crate::bpf::capabilities::{Capabilities, Capability};

/// Needed to read the procfs entries of other users' processes: the working directory (`proc_pid_get_link`,
/// fs/proc/base.c), and files in directories that are closed to others.
const FOR_PROCFS: [Capability; 2] = [Capability::SYS_PTRACE, Capability::DAC_READ_SEARCH];
/// Needed on some kernels to use the agent's own maps and iterators, in the order in which they are tried. Before Linux
/// 5.19, `kernel.unprivileged_bpf_disabled` closes bpf(2) to processes without CAP_BPF or CAP_SYS_ADMIN.
const FOR_MAPS: [Capability; 3] = [Capability::BPF, Capability::PERFMON, Capability::SYS_ADMIN];

/// Needed to attach uprobes to processes of other users: kernels since 2025 ask for CAP_SYS_ADMIN, older ones for CAP_PERFMON.
const FOR_UPROBES: [Capability; 2] = [Capability::SYS_ADMIN, Capability::PERFMON];

/// Warns if CAP_SYS_PTRACE is missing: the probes work without it, but some metrics do not.
pub fn warn_without_ptrace() {
    if !Capabilities::effective().holds(Capability::SYS_PTRACE) {
        warn!(
            "missing capability {}: TorchServe workers of other users have no model and version, and if /proc is mounted \
             with hidepid, servers of other users are not found; grant it together with CAP_BPF and CAP_PERFMON, or run as \
             root",
            Capability::SYS_PTRACE
        );
    }
}

/// Drops all capabilities except those for procfs and the fewest with which `works`, which uses the maps, succeeds.
///
/// Returns the capabilities that were kept.
///
/// # Errors
/// If the kernel refuses. It does not do so for any set of capabilities that a process can have.
pub fn narrow(mut works: impl FnMut() -> bool) -> Result<Capabilities> {
    let held = Capabilities::permitted();
    let mut wanted = FOR_PROCFS.to_vec();
    for one in FOR_MAPS {
        set(held.only(&wanted), held).context("lower the effective capabilities")?;
        if works() {
            break;
        }
        wanted.push(one);
    }
    let kept = held.only(&wanted);
    drop_all_except(kept)?;
    Ok(kept)
}

/// Drops all capabilities except those with which the files of processes are opened, and uprobes attached.
///
/// # Errors
/// As [`narrow`].
pub fn keep_for_uprobes() -> Result<()> {
    let wanted = [&FOR_PROCFS[..], &FOR_UPROBES].concat();
    drop_all_except(Capabilities::permitted().only(&wanted))
}

/// Drops all capabilities.
///
/// # Errors
/// As [`narrow`].
pub fn drop_all() -> Result<()> {
    drop_all_except(Capabilities::default())
}

fn drop_all_except(kept: Capabilities) -> Result<()> {
    let held = Capabilities::permitted();
    set(held, held).context("raise the effective capabilities")?;
    // Without CAP_SETPCAP the bounding set cannot change. It does not matter: with no_new_privs, no program grants more.
    if held.holds(Capability::SETPCAP) {
        let extra = Capabilities::bounding();
        for one in extra.iter().filter(|one| !kept.holds(*one)) {
            remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << one.number()))
                .with_context(|| format!("drop {one} for programs started later"))?;
        }
    }
    set_no_new_privs(true).context("set no_new_privs")?;
    clear_ambient_capability_set().context("clear the ambient capabilities")?;
    set(kept, kept).context("drop capabilities")?;
    Ok(())
}

/// Sets the capabilities of the calling thread; its programs inherit none.
fn set(effective: Capabilities, permitted: Capabilities) -> rustix::io::Result<()> {
    let bits = |set: Capabilities| CapabilitySet::from_bits_retain(set.mask());
    let sets = CapabilitySets {
        effective: bits(effective),
        permitted: bits(permitted),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_all_leaves_nothing() {
        // In its own thread, so that other tests keep their capabilities.
        let left = std::thread::spawn(|| {
            drop_all().unwrap();
            [Capabilities::effective(), Capabilities::permitted()]
        });
        assert_eq!(left.join().unwrap(), [Capabilities::default(); 2]);
    }

    #[test]
    fn narrow_keeps_the_fewest_capabilities_that_work() {
        let held = Capabilities::permitted();
        for failures in 0..=FOR_MAPS.len() {
            let left = std::thread::spawn(move || {
                let mut tried = Vec::new();
                let kept = narrow(|| {
                    tried.push(Capabilities::effective());
                    tried.len() > failures
                });
                assert_eq!(kept.unwrap(), Capabilities::permitted());
                (tried, Capabilities::permitted())
            });
            let (tried, left) = left.join().unwrap();
            let wanted = [&FOR_PROCFS[..], &FOR_MAPS[..failures]].concat();
            assert_eq!(left, held.only(&wanted), "{failures}");
            assert_eq!(tried[0], held.only(&FOR_PROCFS));
            assert_eq!(tried.len(), FOR_MAPS.len().min(failures + 1));
        }
    }
}
