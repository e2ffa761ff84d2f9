//! Checks whether procfs and the kernel's records use the same process ids: those of the host PID namespace.
//!
//! Compares what both report for this one process. The registry reads procfs only if they agree.
//! Does not depend on: how namespaces work.

use tracing::warn;

use crate::discovery::{
    procfs,
    watch::{Target, Watch},
};

/// The agent runs in another PID namespace than the host's, and no port is given that it could watch all the same.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "cannot find processes: the agent is not in the host PID namespace, or /proc is not mounted; run it in the host PID \
     namespace (docker and podman: --pid=host; Kubernetes: hostPID: true), or give ports with --watch-port"
)]
pub struct OtherPidNamespace;

/// Returns this process's id if procfs and the kernel's records agree on it.
///
/// Returns `None` with a warning if they differ but only ports are to be watched. `record_pid` is the id in records;
/// `demo` is whether the example server starts if nothing else is watched.
pub fn check(
    record_pid: u32,
    watches: &[Watch],
    demo: bool,
) -> Result<Option<u32>, OtherPidNamespace> {
    let own_pid = common_pid(record_pid, procfs::own_id(), watches, demo)?;
    if own_pid.is_none() {
        warn!(
            remedy = "run the agent in the host PID namespace (docker and podman: --pid=host; Kubernetes: hostPID: true)",
            "not in the host PID namespace, or /proc is not mounted: only servers on given ports are measured, as server \
             \"unknown\" if no name is given"
        );
    }
    Ok(own_pid)
}

fn common_pid(
    record_pid: u32,
    procfs_pid: Option<u32>,
    watches: &[Watch],
    demo: bool,
) -> Result<Option<u32>, OtherPidNamespace> {
    if procfs_pid == Some(record_pid) {
        return Ok(procfs_pid);
    }
    let is_port = |watch: &Watch| matches!(watch.target, Target::Port(_));
    // The example server starts only if nothing is watched, and is then watched by its port.
    if watches.iter().any(is_port) || demo && watches.is_empty() {
        return Ok(None);
    }
    Err(OtherPidNamespace)
}

#[cfg(test)]
mod tests {
    use regex_lite::Regex;

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
    fn in_another_pid_namespace_only_ports_can_be_watched() {
        let port = || watch(Target::Port(80));
        let exe = || watch(Target::Exe(Regex::new("x").unwrap()));
        let cases = [
            (Some(7), vec![], false, Ok(Some(7))),
            (Some(7), vec![port()], true, Ok(Some(7))),
            (Some(1), vec![port(), exe()], false, Ok(None)),
            (None, vec![port()], false, Ok(None)),
            (Some(1), vec![], true, Ok(None)),
            (Some(1), vec![exe()], true, Err(OtherPidNamespace)),
            (Some(1), vec![], false, Err(OtherPidNamespace)),
            (None, vec![], false, Err(OtherPidNamespace)),
        ];
        for (procfs_pid, watches, demo, expected) in cases {
            assert_eq!(
                common_pid(7, procfs_pid, &watches, demo),
                expected,
                "{procfs_pid:?} {watches:?} {demo}"
            );
        }
    }

    #[test]
    fn the_error_is_one_line_with_remedies() {
        let line = OtherPidNamespace.to_string();
        assert!(!line.contains('\n'));
        for remedy in ["--pid=host", "hostPID", "--watch-port"] {
            assert!(line.contains(remedy), "{line}");
        }
    }
}
