//! Whether procfs tells of the processes that the kernel's records name: in a pid namespace of its own it has others.
//!
//! Knows nothing of namespaces but that: what both say of this one process is compared.

use tracing::warn;

use crate::discovery::{
    procfs,
    watch::{Target, Watch},
};

/// Nothing could be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the agent runs in a pid namespace of its own, or without /proc: it sees no process of the host; run it in the \
     host's pid namespace (docker and podman: --pid=host; Kubernetes: hostPID: true), or name ports with --watch-port"
)]
pub struct Blind;

/// This process's id, where procfs and the kernel's records agree on it; `None` where they do not, and what is wanted
/// can be watched all the same.
///
/// `in_records`: what records call this process. `demo`: whether the example server is wanted where nothing else is
/// watched.
pub fn look(in_records: u32, watches: &[Watch], demo: bool) -> Result<Option<u32>, Blind> {
    let own_pid = judge(in_records, procfs::own_id(), watches, demo)?;
    if own_pid.is_none() {
        warn!(
            "the agent runs in a pid namespace of its own, or without /proc: only servers on ports that were named are \
             measured, as server \"unknown\" where no name was given; to see the host's processes, run it in the host's \
             pid namespace (docker and podman: --pid=host; Kubernetes: hostPID: true)"
        );
    }
    Ok(own_pid)
}

fn judge(
    in_records: u32,
    in_procfs: Option<u32>,
    watches: &[Watch],
    demo: bool,
) -> Result<Option<u32>, Blind> {
    if in_procfs == Some(in_records) {
        return Ok(in_procfs);
    }
    let is_port = |watch: &Watch| matches!(watch.target, Target::Port(_));
    // The example server is started where nothing is watched, and watched by its port.
    if watches.iter().any(is_port) || demo && watches.is_empty() {
        return Ok(None);
    }
    Err(Blind)
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn watch(target: Target) -> Watch {
        Watch {
            target,
            model: None,
            version: None,
            server: None,
        }
    }

    #[test]
    fn without_sight_of_processes_ports_can_be_watched() {
        let port = || watch(Target::Port(80));
        let exe = || watch(Target::Exe(Regex::new("x").unwrap()));
        let cases = [
            (Some(7), vec![], false, Ok(Some(7))),
            (Some(7), vec![port()], true, Ok(Some(7))),
            (Some(1), vec![port(), exe()], false, Ok(None)),
            (None, vec![port()], false, Ok(None)),
            (Some(1), vec![], true, Ok(None)),
            (Some(1), vec![exe()], true, Err(Blind)),
            (Some(1), vec![], false, Err(Blind)),
            (None, vec![], false, Err(Blind)),
        ];
        for (in_procfs, watches, demo, expected) in cases {
            assert_eq!(
                judge(7, in_procfs, &watches, demo),
                expected,
                "{in_procfs:?} {watches:?} {demo}"
            );
        }
    }

    #[test]
    fn blindness_is_one_line_with_remedies() {
        let line = Blind.to_string();
        assert!(!line.contains('\n'));
        for remedy in ["--pid=host", "hostPID", "--watch-port"] {
            assert!(line.contains(remedy), "{line}");
        }
    }
}
