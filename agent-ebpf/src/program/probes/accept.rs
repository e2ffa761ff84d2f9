//! `sys_exit_accept`, `sys_exit_accept4`: a server accepted a connection.
//!
//! Runs in the server's system call, at its return, before any of its threads knows the descriptor. No BTF-typed
//! tracepoint reports accepts. Loaded only if the agent asks for accepts.
//! Does not depend on: the state of a connection.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{access::Raw, clock::now_ns, maps::accepts, sock::Sock};

/// Offset of the return value, after the event's head and the call's number. It is the same on all 64-bit architectures
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

/// Notes when a watched connection was accepted. Any other connection has no entry.
#[inline(always)]
fn on_accept(ctx: &TracePointContext) {
    // SAFETY: the event has an i64 there.
    let Ok(ret) = (unsafe { ctx.read_at::<i64>(RET) }) else {
        return;
    };
    if ret < 0 {
        return;
    }
    let Some(sk) = Sock::<Raw>::of_descriptor(ret as u32) else {
        return;
    };
    if let Some(accept) = accepts::get(sk.address()) {
        // SAFETY: a map value; a connection is accepted once.
        unsafe { (*accept).accepted_ns = now_ns() };
    }
}
