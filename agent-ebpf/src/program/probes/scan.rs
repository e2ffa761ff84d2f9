//! `iter/task_file`: marks the watched listeners that were open before the watch. Runs when the agent asks for it.
//!
//! Does not depend on: connections.

use core::ffi::c_void;

use inferprobe_ebpf::abi::DropReason;

use crate::{
    access::{Btf, Raw},
    backend::{Backend, mark_listener},
    maps::watched,
    probes::entry::done,
    sock::{Family, Sock},
    task,
};

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c, 5.8): the verifier knows its fields by their offset.
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
    done(match Sock::<Btf>::of_file(file) {
        Some(sk) => try_scan_listener(task, sk),
        None => Ok(()),
    })
}

/// The same, with state in hash maps by address.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_listeners_plain(ctx: *mut TaskFile) -> i32 {
    // SAFETY: as above.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    done(match Sock::<Raw>::of_file(file) {
        Some(sk) => try_scan_listener(task, sk),
        None => Ok(()),
    })
}

#[inline(always)]
fn try_scan_listener<B: Backend>(task: *mut c_void, sk: Sock<B>) -> Result<(), DropReason> {
    let Some(family) = sk.family() else {
        return Ok(());
    };
    if !sk.listens() {
        return Ok(());
    }
    let by_process = watched::has_process(task::ids_of(task).0);
    let by_port = family == Family::Inet && watched::has_port(sk.local_port());
    if !by_process && !by_port {
        return Ok(());
    }
    mark_listener(sk)?;
    if family == Family::Unix {
        watched::add_address(sk.unix_address())?;
    }
    Ok(())
}
