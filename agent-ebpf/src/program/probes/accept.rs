//! `sys_exit_accept`, `sys_exit_accept4`: a connection was given to its server. Run in the server's system call, at its
//! return, before any of its threads knows the descriptor; loaded only if the agent asks for accepts.
//!
//! No typed tracepoint tells of it.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{
    backend::Plain,
    maps,
    sock::{Sock, now_ns},
};

/// Offset of the return value behind the event's head and the call's number, the same on all 64-bit architectures
/// (include/trace/syscall.h, `struct syscall_trace_exit`).
const RET: usize = 16;

#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
fn sys_exit_accept(ctx: TracePointContext) -> u32 {
    on_accept(&ctx);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
fn sys_exit_accept4(ctx: TracePointContext) -> u32 {
    on_accept(&ctx);
    0
}

/// Notes when a watched connection was accepted: every other one has no entry.
#[inline(always)]
fn on_accept(ctx: &TracePointContext) {
    // SAFETY: the event has an i64 there.
    let Ok(ret) = (unsafe { ctx.read_at::<i64>(RET) }) else {
        return;
    };
    if ret < 0 {
        return;
    }
    let Some(sk) = Sock::<Plain>::of_descriptor(ret as u32) else {
        return;
    };
    if let Some(accept) = maps::accept_of(sk.address()) {
        // SAFETY: a map value; a connection is accepted once.
        unsafe { (*accept).accepted_ns = now_ns() };
    }
}
