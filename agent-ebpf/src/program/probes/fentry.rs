//! Entries and returns of the kernel's socket functions, through trampolines: for kernels without the tracepoints.
//!
//! The functions are in the sockets' tables of operations. They have had the same arguments since before 5.10, and no
//! compiler can inline them. Their callers, `sock_recvmsg` and `sock_sendmsg`, have other names in some kernels.
//! Does not depend on: what happens with a read or a write.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use inferprobe_ebpf::duplicate::Attached;

use crate::{
    access::Btf,
    probes::{
        entry::{done, primary_and_backup},
        readable::try_sk_data_ready,
        recv::try_sock_recv_length,
        send::{try_sock_send_length, try_tcp_sendmsg_locked},
    },
    sock::Sock,
};

primary_and_backup! {
    /// `void sock_def_readable(struct sock *sk)` (net/core/sock.c)
    #[fentry(function = "sock_def_readable")]
    fn fentry_readable, fentry_readable_second(ctx: FEntryContext, attached) {
        done(try_sk_data_ready(attached, Sock::<Btf>::new(ctx.arg(0))))
    }

    /// `int inet_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)` (net/ipv4/af_inet.c)
    #[fexit(function = "inet_recvmsg")]
    fn fexit_recv_inet, fexit_recv_inet_second(ctx: FExitContext, attached) {
        recv(attached, &ctx)
    }

    /// The same for IPv6 (net/ipv6/af_inet6.c).
    #[fexit(function = "inet6_recvmsg")]
    fn fexit_recv_inet6, fexit_recv_inet6_second(ctx: FExitContext, attached) {
        recv(attached, &ctx)
    }

    /// `int unix_stream_recvmsg(...)`, with the same arguments (net/unix/af_unix.c).
    #[fexit(function = "unix_stream_recvmsg")]
    fn fexit_recv_unix, fexit_recv_unix_second(ctx: FExitContext, attached) {
        recv(attached, &ctx)
    }

    /// `int inet_sendmsg(struct socket *sock, struct msghdr *msg, size_t size)` (net/ipv4/af_inet.c)
    #[fexit(function = "inet_sendmsg")]
    fn fexit_send_inet, fexit_send_inet_second(ctx: FExitContext, attached) {
        send(attached, &ctx, ctx.arg(3))
    }

    /// The same for IPv6 (net/ipv6/af_inet6.c).
    #[fexit(function = "inet6_sendmsg")]
    fn fexit_send_inet6, fexit_send_inet6_second(ctx: FExitContext, attached) {
        send(attached, &ctx, ctx.arg(3))
    }

    /// `int unix_stream_sendmsg(...)`, with the same arguments (net/unix/af_unix.c).
    #[fexit(function = "unix_stream_sendmsg")]
    fn fexit_send_unix, fexit_send_unix_second(ctx: FExitContext, attached) {
        send(attached, &ctx, ctx.arg(3))
    }

    /// `ssize_t inet_sendpage(struct socket *sock, struct page *page, int offset, size_t size, int flags)`, which sends
    /// files before 6.5 (net/ipv4/af_inet.c).
    #[fexit(function = "inet_sendpage")]
    fn fexit_sendpage_inet, fexit_sendpage_inet_second(ctx: FExitContext, attached) {
        send(attached, &ctx, ctx.arg(5))
    }

    /// `ssize_t unix_stream_sendpage(...)`, with the same arguments, before 6.5 (net/unix/af_unix.c).
    #[fexit(function = "unix_stream_sendpage")]
    fn fexit_sendpage_unix, fexit_sendpage_unix_second(ctx: FExitContext, attached) {
        send(attached, &ctx, ctx.arg(5))
    }

    /// `int tcp_sendmsg_locked(struct sock *sk, struct msghdr *msg, size_t size)` (net/ipv4/tcp.c)
    #[fentry(function = "tcp_sendmsg_locked")]
    fn fentry_send_start, fentry_send_start_second(ctx: FEntryContext, _attached) {
        done(try_tcp_sendmsg_locked(Sock::<Btf>::new(ctx.arg(0))))
    }

    /// `ssize_t do_tcp_sendpages(struct sock *sk, ...)`, before 6.5 (net/ipv4/tcp.c).
    #[fentry(function = "do_tcp_sendpages")]
    fn fentry_sendpage_start, fentry_sendpage_start_second(ctx: FEntryContext, _attached) {
        done(try_tcp_sendmsg_locked(Sock::<Btf>::new(ctx.arg(0))))
    }
}

#[inline(always)]
fn recv(attached: Attached, ctx: &FExitContext) -> i32 {
    done(try_sock_recv_length(
        attached,
        socket(ctx),
        ctx.arg(4),
        ctx.arg(3),
    ))
}

#[inline(always)]
fn send(attached: Attached, ctx: &FExitContext, ret: i32) -> i32 {
    done(try_sock_send_length(attached, socket(ctx), ret))
}

#[inline(always)]
fn socket(ctx: &FExitContext) -> Sock<Btf> {
    Sock::of_socket(ctx.arg::<*const c_void>(0))
}
