//! `sched_process_exec`, `sched_process_exit`, `sched_process_fork`: the life of processes, so that the agent need not
//! poll.
//!
//! Does not depend on: sockets.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::bpf_get_current_comm, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use inferprobe_ebpf::abi::{DropReason, ProcessEvent, WORKER_THREAD, process};

use crate::{
    clock::now_ns,
    maps::{processes::emit, watched},
    probes::entry::done,
    task,
};

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(_ctx: BtfTracePointContext) -> i32 {
    let tgid = task::current_tgid();
    // The process runs another program now; the agent decides whether to watch that one.
    watched::remove_process(tgid);
    done(emit(ProcessEvent {
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
    let tgid = task::current_tgid();
    if !task::is_last_thread(task) || !watched::remove_process(tgid) {
        return Ok(());
    }
    emit(ProcessEvent {
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
    let (tgid, pid) = task::ids_of(child);
    let (parent, _) = task::ids_of(parent);
    if !watched::has_process(parent) {
        return Ok(());
    }
    if tgid != pid {
        return report_thread(tgid);
    }
    watched::add_process(tgid)?;
    emit(ProcessEvent {
        kind: process::FORK,
        tgid,
        parent,
        ..ProcessEvent::NONE
    })
}

/// Reports a thread that one of TorchServe's threads for its workers starts.
#[inline(always)]
fn report_thread(tgid: u32) -> Result<(), DropReason> {
    let Ok(name) = bpf_get_current_comm() else {
        return Ok(());
    };
    if name[0] != WORKER_THREAD[0] || name[1] != WORKER_THREAD[1] {
        return Ok(());
    }
    emit(ProcessEvent {
        kind: process::THREAD,
        tgid,
        at_ns: now_ns(),
        name,
        ..ProcessEvent::NONE
    })
}
