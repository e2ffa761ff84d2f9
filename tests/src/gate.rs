//! Whether a test that needs root and the kernel can run here, and the rule that skipping may itself be a failure.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Set to `1` where a skipped test must count as a failed one.
const REQUIRE: &str = "INFERPROBE_REQUIRE_KERNEL";

/// Held by the one test of a file that may have probes attached.
static TURN: Mutex<()> = Mutex::new(());

/// A turn at the kernel; `None`, with the reason printed, where there is no kernel to be had.
///
/// # Panics
/// When something is missing and `INFERPROBE_REQUIRE_KERNEL=1`.
pub fn kernel() -> Option<MutexGuard<'static, ()>> {
    if !rustix::process::geteuid().is_root() {
        skip("needs root to load programs into the kernel");
        return None;
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        skip("needs a kernel with BTF (/sys/kernel/btf/vmlinux)");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
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
