//! Whether a test that needs root and the kernel can run here, and the rule that skipping may itself be a failure.

use std::{
    fs::File,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FlockOperation, flock};

/// Set to `1` where a skipped test must count as a failed one.
const REQUIRE: &str = "INFERPROBE_REQUIRE_KERNEL";

/// Held by the one test of a process that may have probes attached.
static TURN: Mutex<()> = Mutex::new(());
/// Locked by the one process whose tests may: an agent sees every server of the host, another checkout's too.
const LOCK: &str = "inferprobe-kernel-tests.lock";

/// A turn at the kernel; it ends when dropped.
pub struct Turn {
    _lock: File,
    _guard: MutexGuard<'static, ()>,
}

/// A turn at the kernel; `None`, with the reason printed, where there is no kernel to be had.
///
/// # Panics
/// When something is missing and `INFERPROBE_REQUIRE_KERNEL=1`.
pub fn kernel() -> Option<Turn> {
    if !rustix::process::geteuid().is_root() {
        skip("needs root to load programs into the kernel");
        return None;
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        skip("needs a kernel with BTF (/sys/kernel/btf/vmlinux)");
        return None;
    }
    let guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let lock = File::create(std::env::temp_dir().join(LOCK)).expect("a file to lock");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock on a file of ours");
    Some(Turn {
        _lock: lock,
        _guard: guard,
    })
}

/// Prints why a test is skipped.
///
/// # Panics
/// When `INFERPROBE_REQUIRE_KERNEL=1`.
pub fn skip(reason: &str) {
    assert!(
        std::env::var(REQUIRE).as_deref() != Ok("1"),
        "{reason}, and {REQUIRE}=1 forbids skipping"
    );
    println!("skipped: {reason}");
}
