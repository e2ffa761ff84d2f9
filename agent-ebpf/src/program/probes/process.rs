//! `sched_process_exec`, `sched_process_exit`, `sched_process_fork`: the life of processes, so that none is polled for.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::bpf_get_current_comm, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use inferprobe_ebpf::abi::{DropReason, ProcessEvent, WORKER_THREAD, process};

use crate::{maps, probes::done, sock};

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(_ctx: BtfTracePointContext) -> i32 {
    let (tgid, _) = maps::current();
    // What the process was is gone; the agent looks at what it became.
    maps::unwatch(tgid);
    done(maps::emit_process(ProcessEvent {
        kind: process::EXEC,
        tgid,
        ..ProcessEvent::NONE
    }))
}

#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    done(try_sched_process_exit(ctx.arg(0)))
}

#[inline(always)]
fn try_sched_process_exit(task: *const c_void) -> Result<(), DropReason> {
    let (tgid, _) = maps::current();
    if !sock::is_last_thread(task) || !maps::unwatch(tgid) {
        return Ok(());
    }
    maps::emit_process(ProcessEvent {
        kind: process::EXIT,
        tgid,
        ..ProcessEvent::NONE
    })
}

#[btf_tracepoint(function = "sched_process_fork")]
fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    done(try_sched_process_fork(ctx.arg(0), ctx.arg(1)))
}

#[inline(always)]
fn try_sched_process_fork(parent: *const c_void, child: *const c_void) -> Result<(), DropReason> {
    let (tgid, pid) = sock::task_ids(child);
    let (parent, _) = sock::task_ids(parent);
    if !maps::watches(parent) {
        return Ok(());
    }
    if tgid != pid {
        return note_thread(tgid);
    }
    maps::watch(tgid)?;
    maps::emit_process(ProcessEvent {
        kind: process::FORK,
        tgid,
        parent,
        ..ProcessEvent::NONE
    })
}

/// Tells of a thread that one of TorchServe's threads for its workers starts.
#[inline(always)]
fn note_thread(tgid: u32) -> Result<(), DropReason> {
    let Ok(name) = bpf_get_current_comm() else {
        return Ok(());
    };
    if name[0] != WORKER_THREAD[0] || name[1] != WORKER_THREAD[1] {
        return Ok(());
    }
    maps::emit_thread(ProcessEvent {
        kind: process::THREAD,
        tgid,
        at_ns: sock::now_ns(),
        name,
        ..ProcessEvent::NONE
    })
}
