//! Reads the ids of tasks: the running one, and those that a hook gets as its argument.
//!
//! Does not depend on: maps, sockets.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use inferprobe_ebpf::conn::Waits;

use crate::{
    access::{Access, Btf},
    globals::{OFFSETS, constant, has_run_delay},
};

/// Returns the id of the running process.
#[inline(always)]
pub(crate) fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Returns the id of the running thread.
#[inline(always)]
pub(crate) fn current_tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// Returns what the scheduler counts of the running thread; `None` if this kernel does not count it.
#[inline(always)]
pub(crate) fn waits<A: Access>() -> Option<Waits> {
    if !has_run_delay() {
        return None;
    }
    let task = A::current_task();
    // SAFETY: `run_delay` is an unsigned long long, and `nvcsw` an unsigned long, of the running task.
    unsafe {
        Some(Waits {
            run_delay_ns: A::field(task, constant(&OFFSETS.task_run_delay)),
            sleeps: A::field(task, constant(&OFFSETS.task_nvcsw)),
        })
    }
}

/// Returns the process id and the thread id of a BTF-typed `task_struct`.
#[inline(always)]
pub(crate) fn ids_of(task: *const c_void) -> (u32, u32) {
    // SAFETY: `tgid` and `pid` are i32 fields of the typed task.
    unsafe {
        (
            Btf::field(task, constant(&OFFSETS.task_tgid)),
            Btf::field(task, constant(&OFFSETS.task_pid)),
        )
    }
}

/// Whether the last thread of a BTF-typed task's process is ending. `exit` counts the thread out before its hook runs
/// (kernel/exit.c, `do_exit`).
#[inline(always)]
pub(crate) fn is_last_thread(task: *const c_void) -> bool {
    // SAFETY: `signal` is a pointer to a `signal_struct`, whose `live` is an atomic i32.
    unsafe {
        let signal: *const c_void = Btf::field(task, constant(&OFFSETS.task_signal));
        Btf::field::<i32>(signal, constant(&OFFSETS.signal_live)) == 0
    }
}
