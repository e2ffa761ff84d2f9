//! `sock_send_length` and `tcp_sendmsg_locked`: bytes were given to a socket. Run in the writer's system call.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::{
    abi::{DropReason, kind, mode},
    frame::{looks_like_answer, looks_like_chunk},
    segment::{Looks, phase},
};

use crate::{
    kernel::{Family, Sock, now_ns, reads_payload},
    maps,
    payload::{self, Bytes},
    probes::done,
    walker,
};

/// The start of a send; 6.16 and later (net/ipv4/tcp.c, `tcp_sendmsg_locked`).
#[btf_tracepoint(function = "tcp_sendmsg_locked")]
fn tcp_sendmsg_locked(ctx: BtfTracePointContext) -> i32 {
    done(try_tcp_sendmsg_locked(maps::socket(&ctx)))
}

#[inline(always)]
fn try_tcp_sendmsg_locked(sk: Sock) -> Result<(), DropReason> {
    let conn = maps::conn(sk);
    if conn.is_null() {
        return Ok(());
    }
    // SAFETY: a map value; the sender holds the socket lock.
    let conn = unsafe { &mut *conn };
    if conn.phase != phase::IDLE && conn.send_start_ns == 0 {
        conn.send_start_ns = now_ns();
    }
    Ok(())
}

/// The return of a send.
#[btf_tracepoint(function = "sock_send_length")]
fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    done(try_sock_send_length(maps::socket(&ctx), ctx.arg(1)))
}

#[inline(always)]
fn try_sock_send_length(sk: Sock, ret: i32) -> Result<(), DropReason> {
    let conn = maps::conn(sk);
    if conn.is_null() {
        return if ret > 0 && answers_an_earlier_request(sk, ret as u32) {
            Err(DropReason::ReadBeforeWatch)
        } else {
            Ok(())
        };
    }
    // SAFETY: as in `recv.rs`.
    let conn = unsafe { &mut *conn };
    if ret <= 0 {
        conn.send_start_ns = 0;
        return Ok(());
    }
    if conn.closed != 0 || conn.phase == phase::IDLE {
        return Ok(());
    }
    let bytes = ret as u32;
    conn.record.tgid = maps::current().0;
    let user = payload::of_current(bytes);
    if conn.record.mode == mode::STREAMS {
        let now_ns = now_ns();
        if let Some(record_kind) = conn.on_stream_send(now_ns, bytes) {
            walker::walk(
                conn,
                user,
                bytes,
                walker::Side::Answers(record_kind),
                now_ns,
            );
        }
        return Ok(());
    }
    let looks = if conn.phase == phase::WRITING && conn.record.mode == mode::MESSAGES {
        looks(user, bytes)
    } else {
        Looks::default()
    };
    let now_ns = now_ns();
    if conn.send_cuts(looks) {
        maps::emit(conn, kind::PROGRESS, now_ns);
    }
    let Some(plan) = conn.on_send(now_ns, bytes, looks) else {
        return Ok(());
    };
    let copied = match user {
        Some(user) => {
            conn.record.tail = user.tail(conn.record.tail);
            user.copy(conn, plan.capture)
        }
        None => {
            conn.record.tail = 0;
            None
        }
    };
    match copied {
        Some(copied) => conn.captured_answer(plan.capture, copied),
        None => {
            conn.captured_answer(plan.capture, 0);
            if plan.emit == Some(kind::EXCHANGE) && reads_payload() {
                maps::count(DropReason::HeadUnreadable);
            }
        }
    }
    match plan.emit {
        Some(record_kind) => maps::emit(conn, record_kind, now_ns),
        None => {
            if maps::note_progress(conn) {
                conn.pending = 1;
            } else {
                maps::emit(conn, kind::PROGRESS, now_ns);
            }
        }
    }
    Ok(())
}

/// Whether bytes that a socket without state was given are a watched server's answer: its request was read before.
#[inline(always)]
fn answers_an_earlier_request(sk: Sock, bytes: u32) -> bool {
    let watched = maps::watches(maps::current().0)
        || (sk.family() == Some(Family::Inet) && maps::watches_port(sk.local_port()));
    watched && looks(payload::of_current(bytes), bytes).answer_like
}

#[inline(always)]
fn looks(user: Option<Bytes>, bytes: u32) -> Looks {
    let Some(user) = user else {
        return Looks::default();
    };
    match user.peek() {
        Some((first, len)) => Looks {
            answer_like: looks_like_answer(first, len),
            chunk_like: looks_like_chunk(first, len, bytes),
        },
        None => Looks::default(),
    }
}
