//! `inet_sock_set_state`: a TCP socket begins to listen, is connected, or can be written to no more.
//!
//! Does not depend on: reads and writes.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::{
    abi::{DropReason, ProcessEvent, process},
    conn::{Conn, phase},
    unobserved::Unobserved,
};

use crate::{
    access::{Btf, Raw},
    backend::{Backend, mark_listener},
    clock::now_ns,
    globals::reports_accepts,
    maps::{accepts, clients, processes::emit_and_wake, records, watched},
    probes::entry::{done, primary_and_backup},
    sock::{CLOSED, ESTABLISHED, LISTEN, Sock},
    task, unobserved,
};

/// `TCP_SYN_SENT` (include/net/tcp_states.h).
const SYN_SENT: i32 = 2;
/// TCP states in which the server's side has sent its last byte (include/net/tcp_states.h).
const FIN_WAIT1: i32 = 4;
const LAST_ACK: i32 = 9;
const CLOSING: i32 = 11;

primary_and_backup! {
    #[btf_tracepoint(function = "inet_sock_set_state")]
    fn inet_sock_set_state, inet_sock_set_state_second(ctx: BtfTracePointContext, _attached) {
        done(try_inet_sock_set_state(Sock::<Btf>::new(ctx.arg(0)), ctx.arg(2)))
    }

    /// The same, with state in hash maps by address.
    #[btf_tracepoint(function = "inet_sock_set_state")]
    fn inet_sock_set_state_plain, inet_sock_set_state_plain_second(
        ctx: BtfTracePointContext, _attached
    ) {
        done(try_inet_sock_set_state(Sock::<Raw>::new(ctx.arg(0)), ctx.arg(2)))
    }
}

/// Handles the new state. Doing so twice changes nothing, except that a listener is reported again.
#[inline(always)]
pub(crate) fn try_inet_sock_set_state<B: Backend>(
    sk: Sock<B>,
    state: i32,
) -> Result<(), DropReason> {
    match state {
        LISTEN => on_listen(sk),
        // Runs in `connect`.
        SYN_SENT => clients::note_connecting(sk),
        ESTABLISHED => {
            clients::note_connected(sk)?;
            on_established(sk)
        }
        FIN_WAIT1 | CLOSED | LAST_ACK | CLOSING => {
            on_close(sk, state);
            if state == CLOSED {
                B::remove(sk);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Marks a watched listener: its connections inherit the mark. Runs in `listen`.
#[inline(always)]
fn on_listen<B: Backend>(sk: Sock<B>) -> Result<(), DropReason> {
    let tgid = task::current_tgid();
    let port = sk.local_port();
    let by_port = watched::has_port(port) && !watched::is_undecided(port);
    if by_port || watched::has_process(tgid) {
        mark_listener(sk)?;
    } else {
        B::unmark(sk);
    }
    emit_and_wake(ProcessEvent {
        kind: process::LISTEN,
        tgid,
        port: port as u32,
        ..ProcessEvent::NONE
    })
}

/// Notes when a connection to a watched listener was established.
///
/// The connection has the listener's mark by then (net/core/sock.c, `sk_clone_lock`). It is not accepted before this
/// hook ends, because `accept` takes the lock that the kernel holds here.
#[inline(always)]
fn on_established<B: Backend>(sk: Sock<B>) -> Result<(), DropReason> {
    B::inherit_mark(sk)?;
    let port = sk.local_port();
    if watched::take_armed(port) {
        emit_and_wake(ProcessEvent {
            kind: process::CONNECTED,
            port: port as u32,
            ..ProcessEvent::NONE
        })?;
    }
    if !reports_accepts() || !B::is_marked(sk) {
        return Ok(());
    }
    accepts::note_established(sk.address(), now_ns())
}

#[inline(always)]
fn on_close<B: Backend>(sk: Sock<B>, state: i32) {
    let conn = B::conn(sk);
    if conn.is_null() {
        return;
    }
    // SAFETY: a map value; the kernel changes a socket's state under its lock.
    let conn = unsafe { &mut *conn };
    if conn.lock.candidate != 0 {
        return;
    }
    note_unobserved(conn, sk, state);
    records::close(conn, now_ns());
}

/// Emits what moved on a connection and no hook handled: what left its queue since the latest read, what was written since the
/// latest write, and what was written although nothing was ever read.
#[inline(never)]
fn note_unobserved<B: Backend>(conn: &mut Conn, sk: Sock<B>, state: i32) {
    if conn.lock.closed != 0 || conn.lock.busy != 0 {
        return;
    }
    let mut bytes = Unobserved::NONE;
    if let Some((position, _)) = sk.tcp_positions() {
        bytes.read = conn.read_before(position);
        // A reset may arrive while a send runs, whose return comes later.
        if conn.progress.send_start_ns == 0 || state != CLOSED {
            bytes.written =
                conn.written_since(sk.write_position().unwrap_or(conn.progress.written));
        }
    }
    if conn.progress.phase == phase::IDLE {
        bytes.written += conn.record.written_bytes as i32;
    }
    if bytes.is_none() {
        return;
    }
    if conn.record.cookie == 0 {
        conn.record.cookie = B::cookie(sk);
        conn.record.local_port = sk.local_port();
        conn.record.peer_port = sk.peer_port();
    }
    unobserved::report(conn, sk, bytes);
}
