//! Entries and returns of the kernel's socket functions, through kprobes: for kernels without trampolines.
//!
//! One program is attached to several functions; `fentry.rs` lists their arguments.
//! Does not depend on: what happens with a read or a write.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use inferprobe_ebpf::{abi::DropReason, duplicate::Attached};

use crate::{
    access::Raw,
    backend::Backend,
    maps::calls::direction,
    probes::{
        call::{begin, end},
        entry::done,
        readable::try_sk_data_ready,
    },
    sock::Sock,
    syscall::message_buffer,
};

#[kprobe]
fn kprobe_readable(ctx: ProbeContext) -> u32 {
    let Some(sk) = ctx.arg(0) else { return 0 };
    done(try_sk_data_ready(Attached::Primary, Sock::<Raw>::new(sk))) as u32
}

/// On `inet_recvmsg`, `inet6_recvmsg` and `unix_stream_recvmsg`.
#[kprobe]
fn kprobe_recv(ctx: ProbeContext) -> u32 {
    let flags = ctx.arg(3).unwrap_or_default();
    done(enter(&ctx, direction::RECV, flags)) as u32
}

#[kretprobe]
fn kretprobe_recv(ctx: RetProbeContext) -> u32 {
    done(end(direction::RECV, ctx.ret())) as u32
}

/// On `inet_sendmsg`, `inet6_sendmsg` and `unix_stream_sendmsg`.
#[kprobe]
fn kprobe_send(ctx: ProbeContext) -> u32 {
    done(enter(&ctx, direction::SEND, 0)) as u32
}

/// On `inet_sendpage` and `unix_stream_sendpage`, whose bytes are in no buffer of a process.
#[kprobe]
fn kprobe_sendpage(ctx: ProbeContext) -> u32 {
    let Some(socket) = ctx.arg::<*const c_void>(0) else {
        return 0;
    };
    done(begin(Sock::of_socket(socket), direction::SEND, 0, || None)) as u32
}

/// On the returns of every function that sends.
#[kretprobe]
fn kretprobe_send(ctx: RetProbeContext) -> u32 {
    done(end(direction::SEND, ctx.ret())) as u32
}

/// `int unix_release(struct socket *sock)` (net/unix/af_unix.c): the only hook that reports the end of an AF_UNIX
/// socket.
#[kprobe]
fn kprobe_unix_release(ctx: ProbeContext) -> u32 {
    if let Some(socket) = ctx.arg::<*const c_void>(0) {
        Raw::remove(Sock::of_socket(socket));
    }
    0
}

#[inline(always)]
fn enter(ctx: &ProbeContext, direction: u64, flags: i32) -> Result<(), DropReason> {
    let (Some(socket), Some(msg)) = (ctx.arg::<*const c_void>(0), ctx.arg::<*const c_void>(1))
    else {
        return Ok(());
    };
    begin(Sock::of_socket(socket), direction, flags, || {
        message_buffer(msg)
    })
}
