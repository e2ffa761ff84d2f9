//! `iter/task_file`: marks the watched listeners that were there before the watch. Runs when the agent asks.

use core::ffi::c_void;

use inferprobe_ebpf::abi::DropReason;

use crate::{
    backend::{Flavour, Plain, Typed},
    maps,
    probes::done,
    sock::{self, Family, Sock},
};

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c, 5.8): the verifier knows its fields by their place.
#[repr(C)]
struct TaskFile {
    meta: *mut c_void,
    task: *mut c_void,
    fd: u32,
    file: *mut c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_listeners(ctx: *mut TaskFile) -> i32 {
    // SAFETY: the kernel passes a context of this layout; both pointers are null on the last call.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    done(match Sock::<Typed>::of_file(file) {
        Some(sk) => try_scan_listener(task, sk),
        None => Ok(()),
    })
}

/// The same, where state lies in tables by address.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_listeners_plain(ctx: *mut TaskFile) -> i32 {
    // SAFETY: as above.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    done(match Sock::<Plain>::of_file(file) {
        Some(sk) => try_scan_listener(task, sk),
        None => Ok(()),
    })
}

#[inline(always)]
fn try_scan_listener<F: Flavour>(task: *mut c_void, sk: Sock<F>) -> Result<(), DropReason> {
    let Some(family) = sk.family() else {
        return Ok(());
    };
    if !sk.listens() {
        return Ok(());
    }
    let by_process = maps::watches(sock::task_ids(task).0);
    let by_port = family == Family::Inet && maps::watches_port(sk.local_port());
    if !by_process && !by_port {
        return Ok(());
    }
    maps::mark(sk)?;
    if family == Family::Unix {
        maps::watch_address(sk.unix_address())?;
    }
    Ok(())
}
