//! Finds out whether a seccomp filter refuses bpf(2) to this process, whatever its capabilities are.
//!
//! Container engines install such filters: those of many releases allow bpf(2) for CAP_SYS_ADMIN, and not for CAP_BPF.
//! Does not depend on: the programs.

use std::{fs, io};

use crate::bpf::user_namespace::UserNamespace;

/// A size of attributes that no kernel accepts: more than a page.
const TOO_LARGE: usize = 1 << 20;

/// Whether a filter refuses bpf(2); the process must have the capability for it.
///
/// The kernel itself checks only that capability before the size of the attributes, and security modules come after both
/// (`__sys_bpf`, kernel/bpf/syscall.c, 5.8 and later). Any other error than the one for the size is thus the filter's.
pub(crate) fn refuses_bpf() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    has_filter(&status)
        && UserNamespace::of_this_process() == UserNamespace::Host
        && call_bpf().raw_os_error() != Some(libc::E2BIG)
}

/// Calls bpf(2) with attributes that are too large; returns the error.
fn call_bpf() -> io::Error {
    // SAFETY: the kernel refuses the size before it reads from the pointer.
    unsafe { libc::syscall(libc::SYS_bpf, 0, std::ptr::null::<u8>(), TOO_LARGE) };
    io::Error::last_os_error()
}

/// Whether a process with this `/proc/PID/status` has a filter (`SECCOMP_MODE_FILTER`).
fn has_filter(status: &str) -> bool {
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_mode_2() {
        assert!(has_filter("Name:\ta\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!has_filter("Name:\ta\nSeccomp:\t0\nSeccomp_filters:\t2\n"));
        assert!(!has_filter("Name:\ta\n"));
    }
}
