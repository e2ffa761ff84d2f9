//! `inet_sock_set_state`: a TCP socket begins to listen, is connected, or can be written to no more.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::abi::{DropReason, ProcessEvent, process};

use crate::{
    kernel::{LISTEN, Sock, now_ns, tells_accepts},
    maps,
    probes::done,
};

/// `TCP_ESTABLISHED` (include/net/tcp_states.h).
const ESTABLISHED: i32 = 1;
/// TCP states in which the server's side has sent its last byte (include/net/tcp_states.h).
const FIN_WAIT1: i32 = 4;
const CLOSE: i32 = 7;
const LAST_ACK: i32 = 9;
const CLOSING: i32 = 11;

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    done(try_inet_sock_set_state(maps::socket(&ctx), ctx.arg(2)))
}

#[inline(always)]
fn try_inet_sock_set_state(sk: Sock, state: i32) -> Result<(), DropReason> {
    match state {
        LISTEN => on_listen(sk),
        ESTABLISHED if tells_accepts() => on_established(sk),
        FIN_WAIT1 | CLOSE | LAST_ACK | CLOSING => {
            on_close(sk);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Marks a watched listener: its connections inherit the mark. Runs in `listen`.
#[inline(always)]
fn on_listen(sk: Sock) -> Result<(), DropReason> {
    let (tgid, _) = maps::current();
    let port = sk.local_port();
    if maps::watches_port(port) || maps::watches(tgid) {
        maps::mark(sk)?;
    }
    maps::emit_process(ProcessEvent {
        kind: process::LISTEN,
        tgid,
        port: port as u32,
        ..ProcessEvent::NONE
    })
}

/// Notes when a connection to a watched listener was established: it has the listener's mark before (net/core/sock.c,
/// `sk_clone_lock`), and is not accepted before this hook is through, since `accept` takes the lock that is held here.
#[inline(always)]
fn on_established(sk: Sock) -> Result<(), DropReason> {
    if !maps::is_marked(sk) {
        return Ok(());
    }
    maps::note_established(sk.cookie(), now_ns())
}

#[inline(always)]
fn on_close(sk: Sock) {
    let conn = maps::conn(sk);
    if conn.is_null() {
        return;
    }
    // SAFETY: a map value; the kernel changes a socket's state under its lock.
    let conn = unsafe { &mut *conn };
    maps::close(conn, now_ns());
}
