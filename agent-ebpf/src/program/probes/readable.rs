//! `sk_data_ready`: bytes, or a connection, became readable. Runs in softirq (TCP), or in the sender (AF_UNIX).
//!
//! The only writer of the arrival log.
//! Does not depend on: the bytes, records.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::{
    abi::{DropReason, mode},
    arrival::Unkept,
    conn::{Conn, phase},
    duplicate::Attached,
};

use crate::{
    access::Btf,
    backend::Backend,
    clock::now_ns,
    maps::{records, watched},
    probes::entry::{already_handled, done, primary_and_backup},
    sock::{Family, Sock},
    task,
};

primary_and_backup! {
    #[btf_tracepoint(function = "sk_data_ready")]
    fn sk_data_ready, sk_data_ready_second(ctx: BtfTracePointContext, attached) {
        done(try_sk_data_ready(attached, Sock::<Btf>::new(ctx.arg(0))))
    }
}

/// Records that bytes arrived at `sk`. Begins the watch of a new AF_UNIX connection.
#[inline(always)]
pub(crate) fn try_sk_data_ready<B: Backend>(
    attached: Attached,
    sk: Sock<B>,
) -> Result<(), DropReason> {
    let mut conn = B::conn(sk);
    if conn.is_null() {
        let marked = B::is_marked(sk);
        if marked && sk.listens() {
            return if sk.family() == Some(Family::Unix) {
                watched::add_address(sk.unix_address())
            } else {
                Ok(())
            };
        }
        if !marked && !is_unix_child(sk)? {
            note_unix_send(sk);
            return Ok(());
        }
        conn = B::conn_or_new(sk)?;
        // SAFETY: a map value, non-null by `conn_or_new`.
        unsafe {
            (*conn).queue.tracked = 1;
            (*conn).lock.candidate = u8::from(B::is_candidate(sk));
        }
    }
    // SAFETY: a map value; only this hook writes the mark.
    if already_handled(attached, unsafe { &mut (*conn).handled.arrival }) {
        return Ok(());
    }
    // SAFETY: a map value; only this hook writes `arrivals`, `unix_produced` and `unix_floor`. TCP runs it under the
    // socket lock. AF_UNIX senders that share one socket may run it at once, and then miscount an arrival.
    unsafe {
        if let Some((read, end)) = sk.tcp_positions() {
            if (*conn).queue.positioned == 0 {
                (*conn).queue.consumed = read;
                (*conn).queue.positioned = 1;
                if let Some(position) = sk.write_position() {
                    (*conn).set_written(position);
                }
            }
            let consumed = (*conn).queue.consumed;
            if let Some(unkept) = (*conn).queue.arrivals.on_readable(end, consumed, now_ns()) {
                report_arrivals(&*conn, sk, unkept);
            }
        } else {
            let produced = (*conn).queue.unix_produced.wrapping_add(1);
            (*conn).queue.unix_produced = produced;
            if sk.queued() <= 1 {
                (*conn).queue.unix_floor = produced.wrapping_sub(1);
            }
            // A record of an AF_UNIX read says when its first bytes arrived, and no more.
            let _ = (*conn)
                .queue
                .arrivals
                .on_readable(produced, (*conn).queue.consumed, now_ns());
        }
    }
    Ok(())
}

/// Reports the arrivals that the log of an HTTP/2 connection cannot keep, or of one that may become one.
#[inline(always)]
fn report_arrivals<B: Backend>(conn: &Conn, sk: Sock<B>, unkept: Unkept) {
    let cookie = if conn.record.mode == mode::STREAMS {
        conn.record.cookie
    } else if conn.progress.phase == phase::IDLE && !B::KEEPS_BY_ADDRESS {
        B::cookie(sk)
    } else {
        // It is none, or its first read has yet to make up its cookie.
        return;
    };
    if let Some(before) = unkept.before {
        records::emit_arrived(cookie, before.start, before.end, before.ns);
    }
    let newest = unkept.newest;
    records::emit_arrived(cookie, newest.start, newest.end, newest.ns);
}

/// Notes that a watched AF_UNIX server's send begins: its first bytes became readable at the client's end, `sk`.
#[inline(always)]
fn note_unix_send<B: Backend>(sk: Sock<B>) {
    if sk.family() != Some(Family::Unix) {
        return;
    }
    let Some(server) = sk.unix_peer() else {
        return;
    };
    let conn = B::conn(server);
    if conn.is_null() {
        return;
    }
    // SAFETY: a map value; this hook runs in the sender's own system call, and the send hook after it.
    let conn = unsafe { &mut *conn };
    conn.progress.reports_starts = 1;
    conn.on_send_start(now_ns);
    conn.on_writer(task::current_tid(), task::waits::<B>);
}

/// Whether an unknown socket is a connection to a watched AF_UNIX listener. Learns listeners on the way.
#[inline(always)]
fn is_unix_child<B: Backend>(sk: Sock<B>) -> Result<bool, DropReason> {
    if sk.family() != Some(Family::Unix) {
        return Ok(false);
    }
    let address = sk.unix_address();
    if address == 0 {
        return Ok(false);
    }
    if !sk.listens() {
        return Ok(watched::has_address(address));
    }
    // The kernel reports each connection at its listener first. So what the address meant to an earlier listener ends
    // here.
    if watched::has_process(sk.peer_tgid()) {
        watched::add_address(address)?;
    } else {
        watched::remove_address(address);
    }
    Ok(false)
}
