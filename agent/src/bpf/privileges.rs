//! What the agent may still do once its programs run: whatever else it was allowed is given up for good.
//!
//! Capabilities belong to threads: this comes before any other thread is started.

use anyhow::{Context as _, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use tracing::warn;

use crate::bpf::capabilities::{Capabilities, Capability};

/// What reading procfs of other users' processes needs: their working directories (`proc_pid_get_link`,
/// fs/proc/base.c), and what lies in those that are closed to others.
const FOR_PROCFS: [Capability; 2] = [Capability::SYS_PTRACE, Capability::DAC_READ_SEARCH];
/// What maps and iterators of one's own may need, in the order in which it is tried: before Linux 5.19 the system call
/// `bpf` is closed to all without CAP_BPF, or CAP_SYS_ADMIN, where `kernel.unprivileged_bpf_disabled` is set.
const FOR_MAPS: [Capability; 3] = [Capability::BPF, Capability::PERFMON, Capability::SYS_ADMIN];

/// Says what is lost for want of capabilities that the probes can do without.
pub fn warn_of_losses() {
    if !Capabilities::effective().holds(Capability::SYS_PTRACE) {
        warn!(
            "missing capability {}: TorchServe's workers of other users stay without model and version, and where /proc is \
             mounted with hidepid no server of theirs is found; grant it beside CAP_BPF and CAP_PERFMON, or run as root",
            Capability::SYS_PTRACE
        );
    }
}

/// Keeps what reading procfs needs, and as little more as `works`, which uses the maps, does with; what was kept.
///
/// # Errors
/// When the kernel refuses, which it does for no set of capabilities that a process may have.
pub fn narrow(mut works: impl FnMut() -> bool) -> Result<Capabilities> {
    let held = Capabilities::permitted();
    let mut wanted = FOR_PROCFS.to_vec();
    for one in FOR_MAPS {
        set(held.only(&wanted), held).context("lower the agent's capabilities")?;
        if works() {
            break;
        }
        wanted.push(one);
    }
    let kept = held.only(&wanted);
    give_up_all_but(kept)?;
    Ok(kept)
}

/// Gives everything up.
///
/// # Errors
/// As [`narrow`].
pub fn give_up() -> Result<()> {
    give_up_all_but(Capabilities::default())
}

fn give_up_all_but(kept: Capabilities) -> Result<()> {
    let held = Capabilities::permitted();
    set(held, held).context("take up the agent's capabilities")?;
    // Who may not change the bounding set gains nothing by it either: no program grants more from here on.
    if held.holds(Capability::SETPCAP) {
        let extra = Capabilities::bounding();
        for one in extra.iter().filter(|one| !kept.holds(*one)) {
            remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << one.number()))
                .with_context(|| format!("give up {one} for programs started later"))?;
        }
    }
    set_no_new_privs(true).context("refuse new privileges")?;
    clear_ambient_capability_set().context("clear the ambient capabilities")?;
    set(kept, kept).context("give up capabilities")?;
    Ok(())
}

/// Sets the calling thread's capabilities; nothing is left for programs to inherit.
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
    fn nothing_is_left_once_all_is_given_up() {
        // On a thread of its own: the other tests keep what they have.
        let left = std::thread::spawn(|| {
            give_up().unwrap();
            [Capabilities::effective(), Capabilities::permitted()]
        });
        assert_eq!(left.join().unwrap(), [Capabilities::default(); 2]);
    }

    #[test]
    fn no_more_is_kept_than_maps_do_with() {
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
