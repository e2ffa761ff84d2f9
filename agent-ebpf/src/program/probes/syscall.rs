//! Entries and returns of system calls: the last attach mode, for kernels whose socket functions cannot be hooked.
//!
//! No hook reports here when bytes arrive, so the queue time of a request stays unknown. Calls that move several
//! messages (`recvmmsg`, `sendmmsg`) and the work of io_uring are not observed.
//! Does not depend on: what happens with a read or a write.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use inferprobe_ebpf::abi::DropReason;

use crate::{
    access::Raw,
    globals::SYSCALLS,
    maps::{calls::direction, sockets},
    probes::{
        call::{begin, end, is_of_interest},
        entry::done,
    },
    sock::{Family, Sock},
    syscall::{is_call, register},
    user_buffer::Buffer,
};

/// `sys_enter(struct pt_regs *regs, long id)` (include/trace/events/syscalls.h)
#[raw_tracepoint(tracepoint = "sys_enter")]
fn syscall_enter(ctx: RawTracePointContext) -> i32 {
    let (regs, nr) = arguments(&ctx);
    let argument = |index| {
        let offset = match index {
            0 => &SYSCALLS.arg0,
            1 => &SYSCALLS.arg1,
            2 => &SYSCALLS.arg2,
            _ => &SYSCALLS.arg3,
        };
        register(regs as *const c_void, offset)
    };
    done(enter(nr as u32, argument))
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
fn syscall_exit_recv(ctx: RawTracePointContext) -> i32 {
    recv_returned(arguments(&ctx).1 as i32)
}

/// The same, for calls that send: one program for both is more than the verifier follows.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn syscall_exit_send(ctx: RawTracePointContext) -> i32 {
    send_returned(arguments(&ctx).1 as i32)
}

/// The same as a perf event, for preemptible kernels: a perf event's programs run with preemption off
/// (include/trace/perf.h).
#[tracepoint(category = "raw_syscalls", name = "sys_enter")]
fn event_enter(ctx: TracePointContext) -> u32 {
    let argument = |index: usize| word(&ctx, ARGUMENTS + index * size_of::<u64>());
    done(enter(word(&ctx, NUMBER) as u32, argument)) as u32
}

#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
fn event_exit_recv(ctx: TracePointContext) -> u32 {
    recv_returned(word(&ctx, RETURNED) as i32) as u32
}

#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
fn event_exit_send(ctx: TracePointContext) -> u32 {
    send_returned(word(&ctx, RETURNED) as i32) as u32
}

/// Offsets in the events, bytes: after the common head, `long id`, and then `unsigned long args[6]` or `long ret`.
const NUMBER: usize = 8;
const ARGUMENTS: usize = 16;
const RETURNED: usize = 16;

#[inline(always)]
fn word(ctx: &TracePointContext, offset: usize) -> u64 {
    // SAFETY: the events have a word there.
    unsafe { ctx.read_at(offset) }.unwrap_or_default()
}

/// A call of its own, for two programs.
#[inline(never)]
fn recv_returned(ret: i32) -> i32 {
    done(end(direction::RECV, ret))
}

/// As [`recv_returned`].
#[inline(never)]
fn send_returned(ret: i32) -> i32 {
    done(end(direction::SEND, ret))
}

#[inline(always)]
fn arguments(ctx: &RawTracePointContext) -> (u64, u64) {
    let args: *const u64 = ctx.as_ptr().cast();
    // SAFETY: both tracepoints have two arguments.
    unsafe { (*args, *args.add(1)) }
}

/// Shape of a call's buffer.
#[derive(Clone, Copy)]
enum Shape {
    Flat,
    Vectors,
    Message,
    Unknown,
}

/// Handles the entry of a system call. `argument` returns an argument by its index.
#[inline(always)]
fn enter(nr: u32, argument: impl Fn(usize) -> u64) -> Result<(), DropReason> {
    let Some((direction, shape)) = shape_of(nr) else {
        return Ok(());
    };
    let fd = argument(0) as u32;
    let Some(sk) = Sock::<Raw>::of_descriptor(fd) else {
        return Ok(());
    };
    match sk.family() {
        Some(Family::Inet) => {}
        Some(Family::Unix) if is_of_interest(sk) => {
            sockets::renew_at(sk.address(), sk.inode());
        }
        Some(Family::Unix) => return Ok(()),
        None => return Ok(()),
    }
    let flags = if is_call(nr, &SYSCALLS.recvfrom) {
        argument(3)
    } else if is_call(nr, &SYSCALLS.recvmsg) {
        argument(2)
    } else {
        0
    };
    begin(sk, direction, flags as i32, || {
        let start = argument(1);
        match shape {
            Shape::Flat => Some(Buffer::Flat { start }),
            Shape::Vectors => Some(Buffer::Vectors {
                start,
                count: argument(2),
            }),
            Shape::Message => Some(Buffer::Message { start }),
            Shape::Unknown => None,
        }
    })
}

/// Returns the direction of a call's bytes and the shape of its buffer; `None` if the call moves no socket bytes.
#[inline(always)]
fn shape_of(nr: u32) -> Option<(u64, Shape)> {
    let shape = if is_call(nr, &SYSCALLS.read) || is_call(nr, &SYSCALLS.recvfrom) {
        (direction::RECV, Shape::Flat)
    } else if is_call(nr, &SYSCALLS.write) || is_call(nr, &SYSCALLS.sendto) {
        (direction::SEND, Shape::Flat)
    } else if is_call(nr, &SYSCALLS.readv) {
        (direction::RECV, Shape::Vectors)
    } else if is_call(nr, &SYSCALLS.writev) {
        (direction::SEND, Shape::Vectors)
    } else if is_call(nr, &SYSCALLS.recvmsg) {
        (direction::RECV, Shape::Message)
    } else if is_call(nr, &SYSCALLS.sendmsg) {
        (direction::SEND, Shape::Message)
    } else if is_call(nr, &SYSCALLS.sendfile) {
        (direction::SEND, Shape::Unknown)
    } else {
        return None;
    };
    Some(shape)
}
