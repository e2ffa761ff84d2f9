//! Entries and returns of system calls: the last rung, where no function of the kernel can be watched.
//!
//! Nobody tells here when bytes arrive, so that what a request waited stays unknown. Calls that move several messages
//! (`recvmmsg`, `sendmmsg`) and the work of io_uring are not seen.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use inferprobe_ebpf::{abi::DropReason, globals::SyscallAbi};

use crate::{
    backend::Plain,
    maps::{calls::direction, sockets},
    probes::{
        call::{begin, ended, is_of_interest},
        done,
    },
    sock::{Buffer, Family, Sock, is_call, register, syscalls},
};

/// `sys_enter(struct pt_regs *regs, long id)` (include/trace/events/syscalls.h)
#[raw_tracepoint(tracepoint = "sys_enter")]
fn syscall_enter(ctx: RawTracePointContext) -> i32 {
    let (regs, nr) = arguments(&ctx);
    let abi = syscalls();
    let argument = |index| {
        let offset = match index {
            0 => &abi.arg0,
            1 => &abi.arg1,
            2 => &abi.arg2,
            _ => &abi.arg3,
        };
        register(regs as *const c_void, offset)
    };
    done(enter(nr as u32, argument))
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
fn syscall_exit_recv(ctx: RawTracePointContext) -> i32 {
    read_ended(arguments(&ctx).1 as i32)
}

/// The same, for what sends: one program of both is more than the verifier follows.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn syscall_exit_send(ctx: RawTracePointContext) -> i32 {
    write_ended(arguments(&ctx).1 as i32)
}

/// The same as an event of perf, which keeps its CPU for as long as its programs run (include/trace/perf.h): for kernels
/// that may take it from the others.
#[tracepoint(category = "raw_syscalls", name = "sys_enter")]
fn event_enter(ctx: TracePointContext) -> u32 {
    let argument = |index: usize| word(&ctx, ARGUMENTS + index * size_of::<u64>());
    done(enter(word(&ctx, NUMBER) as u32, argument)) as u32
}

#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
fn event_exit_recv(ctx: TracePointContext) -> u32 {
    read_ended(word(&ctx, RETURNED) as i32) as u32
}

#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
fn event_exit_send(ctx: TracePointContext) -> u32 {
    write_ended(word(&ctx, RETURNED) as i32) as u32
}

/// Offsets in the events, bytes: behind their head, `long id`, and then `unsigned long args[6]` or `long ret`.
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
fn read_ended(ret: i32) -> i32 {
    done(ended(direction::RECV, ret))
}

/// As [`read_ended`].
#[inline(never)]
fn write_ended(ret: i32) -> i32 {
    done(ended(direction::SEND, ret))
}

#[inline(always)]
fn arguments(ctx: &RawTracePointContext) -> (u64, u64) {
    let args: *const u64 = ctx.as_ptr().cast();
    // SAFETY: both tracepoints have two arguments.
    unsafe { (*args, *args.add(1)) }
}

/// Which way a call's bytes go, and the shape of its buffer.
#[derive(Clone, Copy)]
enum Shape {
    Flat,
    Vectors,
    Message,
    Unknown,
}

/// `argument` says what the call was given, by its place.
#[inline(always)]
fn enter(nr: u32, argument: impl Fn(usize) -> u64) -> Result<(), DropReason> {
    let abi = syscalls();
    let Some((direction, shape)) = kind_of(abi, nr) else {
        return Ok(());
    };
    let fd = argument(0) as u32;
    let Some(sk) = Sock::<Plain>::of_descriptor(fd) else {
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
    let flags = if is_call(nr, &abi.recvfrom) {
        argument(3)
    } else if is_call(nr, &abi.recvmsg) {
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

#[inline(always)]
fn kind_of(abi: &'static SyscallAbi, nr: u32) -> Option<(u64, Shape)> {
    let kind = if is_call(nr, &abi.read) || is_call(nr, &abi.recvfrom) {
        (direction::RECV, Shape::Flat)
    } else if is_call(nr, &abi.write) || is_call(nr, &abi.sendto) {
        (direction::SEND, Shape::Flat)
    } else if is_call(nr, &abi.readv) {
        (direction::RECV, Shape::Vectors)
    } else if is_call(nr, &abi.writev) {
        (direction::SEND, Shape::Vectors)
    } else if is_call(nr, &abi.recvmsg) {
        (direction::RECV, Shape::Message)
    } else if is_call(nr, &abi.sendmsg) {
        (direction::SEND, Shape::Message)
    } else if is_call(nr, &abi.sendfile) {
        (direction::SEND, Shape::Unknown)
    } else {
        return None;
    };
    Some(kind)
}
