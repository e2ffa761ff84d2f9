//! Checks that a test can load programs into the kernel here, and lets such tests run one at a time.
//!
//! A test that cannot run skips itself, or fails where that is not allowed.

use std::{
    fs::File,
    path::Path,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use rustix::fs::{FlockOperation, flock};

use crate::{agent::artifacts::Session, report::append_line, running_test::running_test};

/// If set to `1`, a skipped test counts as failed.
const REQUIRE: &str = "INFERPROBE_REQUIRE_KERNEL";
/// Names the file to which each skipped test adds the line `TEST: REASON`.
const SKIPS_FILE: &str = "INFERPROBE_SKIPS_FILE";

/// Held by the only test of this process that may have probes attached, or by all that need no probes.
static MACHINE: RwLock<()> = RwLock::new(());
/// Name of the file locked by the only process that may: an agent finds every server of the host, also those that the
/// tests of another checkout started.
const LOCK: &str = "inferprobe-kernel-tests.lock";

/// Keeps other tests from attaching probes, and from loading the CPUs, until it is dropped.
pub struct KernelGuard {
    // First, for agents that the next test starts belong to the next session.
    _session: Session,
    _lock: File,
    _guard: RwLockWriteGuard<'static, ()>,
}

/// Waits until no other test uses the kernel. Returns `None`, and prints the reason, if this one cannot use it.
///
/// # Panics
/// If this one cannot use it and `INFERPROBE_REQUIRE_KERNEL=1`.
pub fn require_kernel() -> Option<KernelGuard> {
    if !rustix::process::geteuid().is_root() {
        skip("needs root to load programs into the kernel");
        return None;
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        skip("needs a kernel with BTF (/sys/kernel/btf/vmlinux)");
        return None;
    }
    let guard = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let lock = File::create(std::env::temp_dir().join(LOCK)).expect("a file to lock");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock on a file of ours");
    Some(KernelGuard {
        _session: Session::begin(),
        _lock: lock,
        _guard: guard,
    })
}

/// Waits until no test of this process uses the kernel, and keeps those that do from starting until it is dropped.
///
/// For tests that run beside each other, but whose servers an agent would find.
pub fn share_machine() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Prints why the running test is skipped, and adds it to the file that `INFERPROBE_SKIPS_FILE` names.
///
/// # Panics
/// If `INFERPROBE_REQUIRE_KERNEL=1`.
pub fn skip(reason: &str) {
    assert!(
        std::env::var(REQUIRE).as_deref() != Ok("1"),
        "{reason}, and {REQUIRE}=1 forbids skipping"
    );
    skip_always(reason);
}

/// As [`skip`], where the environment forbids what the test needs and no privilege helps: never a failure.
pub fn skip_always(reason: &str) {
    println!("skipped: {reason}");
    if let Some(path) = std::env::var_os(SKIPS_FILE) {
        append_line(Path::new(&path), &format!("{}: {reason}", running_test()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_appended_with_the_name_of_the_test() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for reason in ["needs root", "needs a kernel with BTF"] {
            append_line(file.path(), &format!("{}: {reason}", running_test()));
        }
        let name = "require_kernel::tests::skips_are_appended_with_the_name_of_the_test";
        assert_eq!(
            std::fs::read_to_string(file.path()).unwrap(),
            format!("{name}: needs root\n{name}: needs a kernel with BTF\n")
        );
    }
}
