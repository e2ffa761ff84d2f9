//! Trace events of sockets, through perf: for kernels on which a task may lose its CPU inside a program on a tracepoint.
//!
//! The kernel runs the programs of a perf event with preemption off (include/trace/perf.h, 7.0). It skips them while
//! another such program, or a kprobe's, runs on the CPU, which is only so in an interrupt; and while a task is inside a
//! `bpf(2)` call on a map (kernel/trace/bpf_trace.c, `trace_call_bpf`). So a program on the tracepoint itself, which has a
//! guard of its own, is the backup copy of each.
//! Does not depend on: what happens with an arrival, a read or a write.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fentry, kprobe, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, TracePointContext},
};
use inferprobe_ebpf::duplicate::Attached;

use crate::{
    access::{Btf, Raw},
    backend::{Backend, Shared},
    probes::{
        entry::{done, primary_and_backup},
        readable::try_sk_data_ready,
        recv::try_sock_recv_length,
        send::{try_sock_send_length, try_tcp_sendmsg_locked},
        state::try_inet_sock_set_state,
    },
    sock::Sock,
};

/// Offset of the socket's address in each of the events, bytes: it follows the common head (include/trace/events/sock.h).
const SOCKET: usize = 8;
/// Offset of `int newstate` in `inet_sock_set_state`.
const STATE: usize = 20;
/// Offsets of `int ret` and `int flags` in `sock_recv_length` and `sock_send_length`.
const RETURNED: usize = 20;
const FLAGS: usize = 24;

#[tracepoint(category = "sock", name = "sk_data_ready")]
fn event_readable(ctx: TracePointContext) -> u32 {
    done(try_sk_data_ready(Attached::Primary, socket(&ctx))) as u32
}

#[btf_tracepoint(function = "sk_data_ready")]
fn event_readable_second(ctx: BtfTracePointContext) -> i32 {
    done(try_sk_data_ready(Attached::Backup, typed_socket(&ctx)))
}

#[tracepoint(category = "sock", name = "sock_recv_length")]
fn event_recv(ctx: TracePointContext) -> u32 {
    let (ret, flags) = (int(&ctx, RETURNED), int(&ctx, FLAGS));
    done(try_sock_recv_length(
        Attached::Primary,
        socket(&ctx),
        ret,
        flags,
    )) as u32
}

#[btf_tracepoint(function = "sock_recv_length")]
fn event_recv_second(ctx: BtfTracePointContext) -> i32 {
    done(try_sock_recv_length(
        Attached::Backup,
        typed_socket(&ctx),
        ctx.arg(1),
        ctx.arg(2),
    ))
}

#[tracepoint(category = "sock", name = "sock_send_length")]
fn event_send(ctx: TracePointContext) -> u32 {
    let ret = int(&ctx, RETURNED);
    done(try_sock_send_length(Attached::Primary, socket(&ctx), ret)) as u32
}

#[btf_tracepoint(function = "sock_send_length")]
fn event_send_second(ctx: BtfTracePointContext) -> i32 {
    done(try_sock_send_length(
        Attached::Backup,
        typed_socket(&ctx),
        ctx.arg(1),
    ))
}

#[tracepoint(category = "sock", name = "inet_sock_set_state")]
fn event_state(ctx: TracePointContext) -> u32 {
    done(try_inet_sock_set_state(socket(&ctx), int(&ctx, STATE))) as u32
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn event_state_second(ctx: BtfTracePointContext) -> i32 {
    done(try_inet_sock_set_state(typed_socket(&ctx), ctx.arg(2)))
}

/// `int tcp_sendmsg_locked(struct sock *sk, struct msghdr *msg, size_t size)` (net/ipv4/tcp.c). The trace event of the same
/// name does not name the socket.
#[kprobe]
fn event_send_start(ctx: ProbeContext) -> u32 {
    let Some(sk) = ctx.arg(0) else { return 0 };
    done(try_tcp_sendmsg_locked(Sock::<Shared<Raw>>::new(sk))) as u32
}

#[btf_tracepoint(function = "tcp_sendmsg_locked")]
fn event_send_start_second(ctx: BtfTracePointContext) -> i32 {
    done(try_tcp_sendmsg_locked(typed_socket(&ctx)))
}

primary_and_backup! {
    /// For kernels without kprobes.
    #[btf_tracepoint(function = "tcp_sendmsg_locked")]
    fn event_send_start_typed, event_send_start_typed_second(ctx: BtfTracePointContext, _attached) {
        done(try_tcp_sendmsg_locked(typed_socket(&ctx)))
    }
}

/// `int unix_release(struct socket *sock)` (net/unix/af_unix.c): the only function that ends an AF_UNIX socket.
#[kprobe]
fn event_unix_release(ctx: ProbeContext) -> u32 {
    if let Some(socket) = ctx.arg::<*const c_void>(0) {
        Shared::<Raw>::remove(Sock::of_socket(socket));
    }
    0
}

#[fentry(function = "unix_release")]
fn event_unix_release_second(ctx: FEntryContext) -> i32 {
    Shared::<Btf>::remove(Sock::of_socket(ctx.arg::<*const c_void>(0)));
    0
}

#[inline(always)]
fn socket(ctx: &TracePointContext) -> Sock<Shared<Raw>> {
    // SAFETY: the events have a pointer there.
    Sock::new(unsafe { field::<u64>(ctx, SOCKET) } as *mut c_void)
}

#[inline(always)]
fn typed_socket(ctx: &BtfTracePointContext) -> Sock<Shared<Btf>> {
    Sock::new(ctx.arg(0))
}

#[inline(always)]
fn int(ctx: &TracePointContext, offset: usize) -> i32 {
    // SAFETY: the event has an int there.
    unsafe { field(ctx, offset) }
}

/// Reads a field of an event directly, which costs no call.
///
/// # Safety
///
/// The event has a `T` at `offset`.
#[inline(always)]
unsafe fn field<T: Copy>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: the caller's; the verifier refuses the program if the event is shorter.
    unsafe { core::ptr::read_volatile(ctx.as_ptr().cast::<u8>().add(offset).cast::<T>()) }
}
