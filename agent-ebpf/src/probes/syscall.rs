//! Entries and returns of system calls: the last rung, where no function of the kernel can be watched.
//!
//! Nobody tells here when bytes arrive, so that what a request waited stays unknown. Calls that move several messages
//! (`recvmmsg`, `sendmmsg`) and the work of io_uring are not seen.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, macros::raw_tracepoint, programs::RawTracePointContext};
use inferprobe_ebpf::{abi::DropReason, host::SyscallAbi};

use crate::{
    flavour::Plain,
    kernel::{Buffer, Family, Sock, is_call, register, syscalls},
    maps::{calls::direction, sockets},
    probes::{
        call::{begin, ended, is_of_interest},
        done,
    },
};

/// `sys_enter(struct pt_regs *regs, long id)` (include/trace/events/syscalls.h)
#[raw_tracepoint(tracepoint = "sys_enter")]
fn syscall_enter(ctx: RawTracePointContext) -> i32 {
    let (regs, nr) = arguments(&ctx);
    done(enter(regs as *const c_void, nr as u32))
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
fn syscall_exit_recv(ctx: RawTracePointContext) -> i32 {
    let (_, ret) = arguments(&ctx);
    done(ended(direction::RECV, ret as i32))
}

/// The same, for what sends: one program of both is more than the verifier follows.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn syscall_exit_send(ctx: RawTracePointContext) -> i32 {
    let (_, ret) = arguments(&ctx);
    done(ended(direction::SEND, ret as i32))
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

#[inline(always)]
fn enter(regs: *const c_void, nr: u32) -> Result<(), DropReason> {
    let abi = syscalls();
    let Some((direction, shape)) = kind_of(abi, nr) else {
        return Ok(());
    };
    let fd = register(regs, &abi.arg0) as u32;
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
        register(regs, &abi.arg3)
    } else if is_call(nr, &abi.recvmsg) {
        register(regs, &abi.arg2)
    } else {
        0
    };
    begin(sk, direction, flags as i32, || {
        let start = register(regs, &abi.arg1);
        match shape {
            Shape::Flat => Some(Buffer::Flat { start }),
            Shape::Vectors => Some(Buffer::Vectors {
                start,
                count: register(regs, &abi.arg2),
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
