//! `inet_sock_set_state`: a TCP socket begins to listen, is connected, or can be written to no more.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::abi::{DropReason, ProcessEvent, process};

use crate::{
    backend::{Flavour, Plain, Typed},
    maps,
    probes::{done, twice},
    sock::{CLOSED, LISTEN, Sock, now_ns, tells_accepts},
};

/// `TCP_ESTABLISHED` (include/net/tcp_states.h).
const ESTABLISHED: i32 = 1;
/// TCP states in which the server's side has sent its last byte (include/net/tcp_states.h).
const FIN_WAIT1: i32 = 4;
const LAST_ACK: i32 = 9;
const CLOSING: i32 = 11;

twice! {
    #[btf_tracepoint(function = "inet_sock_set_state")]
    fn inet_sock_set_state, inet_sock_set_state_second(ctx: BtfTracePointContext, _turn) {
        done(try_inet_sock_set_state(Sock::<Typed>::new(ctx.arg(0)), ctx.arg(2)))
    }

    /// The same, where state lies in tables by address.
    #[btf_tracepoint(function = "inet_sock_set_state")]
    fn inet_sock_set_state_plain, inet_sock_set_state_plain_second(
        ctx: BtfTracePointContext, _turn
    ) {
        done(try_inet_sock_set_state(Sock::<Plain>::new(ctx.arg(0)), ctx.arg(2)))
    }
}

/// Takes the state in; to do so twice changes nothing, but that a listener is told of again.
#[inline(always)]
fn try_inet_sock_set_state<F: Flavour>(sk: Sock<F>, state: i32) -> Result<(), DropReason> {
    match state {
        LISTEN => on_listen(sk),
        ESTABLISHED => on_established(sk),
        FIN_WAIT1 | CLOSED | LAST_ACK | CLOSING => {
            on_close(sk);
            if state == CLOSED {
                F::forget(sk);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Marks a watched listener: its connections inherit the mark. Runs in `listen`.
#[inline(always)]
fn on_listen<F: Flavour>(sk: Sock<F>) -> Result<(), DropReason> {
    let (tgid, _) = maps::current();
    let port = sk.local_port();
    if maps::watches_port(port) || maps::watches(tgid) {
        maps::mark(sk)?;
    } else {
        F::unmark(sk);
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
fn on_established<F: Flavour>(sk: Sock<F>) -> Result<(), DropReason> {
    F::inherit_mark(sk)?;
    if !tells_accepts() || !F::is_marked(sk) {
        return Ok(());
    }
    maps::note_established(sk.address(), now_ns())
}

#[inline(always)]
fn on_close<F: Flavour>(sk: Sock<F>) {
    let conn = F::conn(sk);
    if conn.is_null() {
        return;
    }
    // SAFETY: a map value; the kernel changes a socket's state under its lock.
    let conn = unsafe { &mut *conn };
    maps::close(conn, now_ns());
}
