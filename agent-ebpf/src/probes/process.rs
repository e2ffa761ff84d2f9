//! `sched_process_exec`, `sched_process_exit`, `sched_process_fork`: the life of processes, so that none is polled for.

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::abi::{DropReason, ProcessEvent, process};

use crate::{kernel, maps, probes::done};

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(_ctx: BtfTracePointContext) -> i32 {
    let (tgid, _) = maps::current();
    // What the process was is gone; the agent looks at what it became.
    maps::unwatch(tgid);
    done(maps::emit_process(ProcessEvent {
        kind: process::EXEC,
        tgid,
        parent: 0,
        port: 0,
    }))
}

#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    done(try_sched_process_exit(ctx.arg(0)))
}

#[inline(always)]
fn try_sched_process_exit(task: *const c_void) -> Result<(), DropReason> {
    let (tgid, _) = maps::current();
    if !kernel::is_last_thread(task) || !maps::unwatch(tgid) {
        return Ok(());
    }
    maps::emit_process(ProcessEvent {
        kind: process::EXIT,
        tgid,
        parent: 0,
        port: 0,
    })
}

#[btf_tracepoint(function = "sched_process_fork")]
fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    done(try_sched_process_fork(ctx.arg(0), ctx.arg(1)))
}

#[inline(always)]
fn try_sched_process_fork(parent: *const c_void, child: *const c_void) -> Result<(), DropReason> {
    let (tgid, pid) = kernel::task_ids(child);
    if tgid != pid {
        return Ok(());
    }
    let (parent, _) = kernel::task_ids(parent);
    if !maps::watches(parent) {
        return Ok(());
    }
    maps::watch(tgid)?;
    maps::emit_process(ProcessEvent {
        kind: process::FORK,
        tgid,
        parent,
        port: 0,
    })
}
