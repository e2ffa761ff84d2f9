//! `sk_data_ready`: bytes, or a connection, became readable. Runs in softirq, or in the sender for AF_UNIX.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::{abi::DropReason, duplicate::Turn};

use crate::{
    backend::{Flavour, Typed},
    maps,
    probes::{done, twice},
    sock::{Family, Sock, now_ns},
};

twice! {
    #[btf_tracepoint(function = "sk_data_ready")]
    fn sk_data_ready, sk_data_ready_second(ctx: BtfTracePointContext, turn) {
        done(try_sk_data_ready(turn, Sock::<Typed>::new(ctx.arg(0))))
    }
}

/// Notes that bytes came to `sk`; watches a connection of AF_UNIX that is made.
#[inline(always)]
pub(crate) fn try_sk_data_ready<F: Flavour>(turn: Turn, sk: Sock<F>) -> Result<(), DropReason> {
    let mut conn = F::conn(sk);
    if conn.is_null() {
        let marked = F::is_marked(sk);
        if marked && sk.listens() {
            return if sk.family() == Some(Family::Unix) {
                maps::watch_address(sk.unix_address())
            } else {
                Ok(())
            };
        }
        if !marked && !is_unix_child(sk)? {
            note_unix_send(sk);
            return Ok(());
        }
        conn = F::conn_or_new(sk)?;
        // SAFETY: a map value, non-null by `conn_or_new`.
        unsafe { (*conn).tracked = 1 };
    }
    // SAFETY: a map value; the mark is this hook's alone.
    if maps::is_told(turn, unsafe { &mut (*conn).told.arrival }) {
        return Ok(());
    }
    // SAFETY: a map value; `arrivals`, `unix_produced` and `unix_floor` are written by this hook alone. TCP runs it
    // under the socket lock; AF_UNIX senders that share one socket may run it at once, and then miscount an arrival.
    unsafe {
        if let Some((read, end)) = sk.tcp_positions() {
            if (*conn).positioned == 0 {
                (*conn).consumed = read;
                (*conn).positioned = 1;
            }
            (*conn)
                .arrivals
                .on_readable(end, (*conn).consumed, now_ns());
        } else {
            let produced = (*conn).unix_produced.wrapping_add(1);
            (*conn).unix_produced = produced;
            if sk.queued() <= 1 {
                (*conn).unix_floor = produced.wrapping_sub(1);
            }
            (*conn)
                .arrivals
                .on_readable(produced, (*conn).consumed, now_ns());
        }
    }
    Ok(())
}

/// Notes that a watched AF_UNIX server's send begins: its first bytes became readable at the client's end, `sk`.
#[inline(always)]
fn note_unix_send<F: Flavour>(sk: Sock<F>) {
    if sk.family() != Some(Family::Unix) {
        return;
    }
    let Some(server) = sk.unix_peer() else {
        return;
    };
    let conn = F::conn(server);
    if conn.is_null() {
        return;
    }
    // SAFETY: a map value; this hook runs in the sender's own system call, as the send hook does after it.
    unsafe { &mut *conn }.on_send_start(now_ns);
}

/// Whether an unknown socket is a connection to a watched AF_UNIX listener. Learns listeners on the way.
#[inline(always)]
fn is_unix_child<F: Flavour>(sk: Sock<F>) -> Result<bool, DropReason> {
    if sk.family() != Some(Family::Unix) {
        return Ok(false);
    }
    let address = sk.unix_address();
    if address == 0 {
        return Ok(false);
    }
    if !sk.listens() {
        return Ok(maps::watches_address(address));
    }
    // Each connection is announced by its listener first: what the address meant to an earlier listener ends here.
    if maps::watches(sk.listener_tgid()) {
        maps::watch_address(address)?;
    } else {
        maps::unwatch_address(address);
    }
    Ok(false)
}
