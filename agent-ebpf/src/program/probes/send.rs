//! `sock_send_length`, `tcp_sendmsg_locked`: a write gave bytes to a socket. Run in the writer's system call.
//!
//! Begins an HTTP/2 connection where a server switches to it.
//! Does not depend on: when a record is due (`segment`), what bytes mean (`sniff`).

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::{
    abi::{DropReason, kind, mode},
    conn::{Conn, phase},
    duplicate::Attached,
    segment::WriteHint,
    sniff::{ends_json, looks_like_chunk, looks_like_event, looks_like_line, looks_like_response},
    unobserved::Unobserved,
};

use crate::{
    access::Btf,
    backend::{Backend, of_current, runs_watched_process},
    clock::now_ns,
    globals::reads_payload,
    head_end,
    http2_copy::{Side, copy_transfer},
    maps::{drops, progress, records, watched},
    probes::entry::{already_handled, done, primary_and_backup},
    send_buffer,
    sock::{Family, Sock},
    task, unobserved, upgrade,
    user_buffer::{Bytes, copied_tail},
};

primary_and_backup! {
    /// The start of a send; 6.16 and later (net/ipv4/tcp.c, `tcp_sendmsg_locked`).
    #[btf_tracepoint(function = "tcp_sendmsg_locked")]
    fn tcp_sendmsg_locked, tcp_sendmsg_locked_second(ctx: BtfTracePointContext, _attached) {
        done(try_tcp_sendmsg_locked(Sock::<Btf>::new(ctx.arg(0))))
    }

    /// The return of a send.
    #[btf_tracepoint(function = "sock_send_length")]
    fn sock_send_length, sock_send_length_second(ctx: BtfTracePointContext, attached) {
        done(try_sock_send_length(attached, Sock::<Btf>::new(ctx.arg(0)), ctx.arg(1)))
    }
}

/// Notes that a write to `sk` begins, unless its start is known.
#[inline(always)]
pub(crate) fn try_tcp_sendmsg_locked<B: Backend>(sk: Sock<B>) -> Result<(), DropReason> {
    let conn = B::conn(sk);
    if conn.is_null() {
        return Ok(());
    }
    // SAFETY: a map value; the sender holds the socket lock.
    let conn = unsafe { &mut *conn };
    conn.progress.reports_starts = 1;
    conn.on_send_buffer_before(|| sk.unsent());
    conn.on_send_start(now_ns);
    conn.on_writer(task::current_tid(), task::waits::<B>);
    Ok(())
}

/// Handles that a write to `sk` returned `ret`.
#[inline(always)]
pub(crate) fn try_sock_send_length<B: Backend>(
    attached: Attached,
    sk: Sock<B>,
    ret: i32,
) -> Result<(), DropReason> {
    let conn = B::conn(sk);
    if conn.is_null() {
        if ret > 0
            && attached == Attached::Primary
            && responds_to_an_earlier_request(sk, ret as u32)
        {
            drops::count_of(
                DropReason::ReadBeforeWatch,
                task::current_tgid(),
                sk.local_port(),
            );
        }
        return Ok(());
    }
    // SAFETY: as in `recv.rs`.
    let conn = unsafe { &mut *conn };
    if ret <= 0 {
        conn.on_send_refused();
        return Ok(());
    }
    // If a send's start was noted and not yet used, the mark is an earlier send's, whose backup copy the kernel
    // skipped.
    if already_handled(attached, &mut conn.handled.write) && conn.progress.send_start_ns == 0 {
        return Ok(());
    }
    let shared = conn.shares_record();
    if shared && !records::acquire(conn) {
        drops::count_of(
            DropReason::Contended,
            conn.record.tgid,
            conn.record.local_port,
        );
        return Ok(());
    }
    let bytes = ret as u32;
    unobserved::before_write(conn, sk, bytes);
    let user = of_current::<B>(bytes).unwrap_or(Bytes::UNKNOWN);
    let user = Some(user.forgotten(conn));
    let now_ns = now_ns();
    if B::HAS_LOOPS {
        send_buffer::after_write(conn, sk, now_ns);
    }
    let copying = if conn.lock.closed != 0 {
        Copying::Done
    } else if conn.progress.phase == phase::IDLE {
        conn.record.tgid = task::current_tgid();
        conn.on_unread_send(bytes);
        Copying::Done
    } else {
        on_write::<B>(conn, user, bytes, now_ns)
    };
    if shared && copying != Copying::Pieces {
        records::release(conn);
    }
    let copied = match copying {
        Copying::Done => return Ok(()),
        Copying::Pieces => &mut *conn,
        Copying::Frames => {
            // SAFETY: a map value, non-null by `responses_or_new`; writers of one HTTP/2 connection exclude each other.
            let responses = unsafe { &mut *B::responses_or_new(sk)? };
            responses.on_stream_send(conn, now_ns);
            if conn.progress.unobserved != 0 {
                let unobserved = Unobserved {
                    read: 0,
                    written: conn.progress.unobserved,
                };
                unobserved::report(responses, sk, unobserved);
            }
            responses
        }
    };
    copy_transfer::<B>(copied, user, bytes, Side::Responses, now_ns);
    if copying == Copying::Pieces {
        records::release(conn);
    }
    Ok(())
}

/// Which bytes of a write are still to be copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copying {
    /// None.
    Done,
    /// Those of a long response, piece by piece.
    Pieces,
    /// Those of HTTP/2 frames.
    Frames,
}

/// Adds a write of `bytes` to the connection's records; returns what is to be copied from it instead.
#[inline(always)]
fn on_write<B: Backend>(conn: &mut Conn, user: Option<Bytes>, bytes: u32, now_ns: u64) -> Copying {
    conn.record.tgid = task::current_tgid();
    conn.on_writer(task::current_tid(), task::waits::<B>);
    if conn.h2.switching != 0 {
        conn.h2.switching = 0;
        if is_first_settings(user) {
            conn.switch_to_http2();
        }
    }
    if conn.record.mode == mode::RECORDS {
        return on_record_write(conn, bytes, now_ns);
    }
    if conn.record.mode != mode::STREAMS {
        return on_message_write::<B>(conn, user, bytes, now_ns);
    }
    if conn.h2.joined != 0 {
        if !may_be_server_frame(user) {
            conn.skip_send(bytes);
            return Copying::Done;
        }
        conn.h2.joined = 0;
    }
    Copying::Frames
}

/// Adds a write of TLS records; returns what is to be copied from it.
#[inline(always)]
fn on_record_write(conn: &mut Conn, bytes: u32, now_ns: u64) -> Copying {
    match conn.on_send(now_ns, bytes, WriteHint::default()) {
        Some(plan) => {
            conn.on_send_stepwise(bytes, plan, false, 0);
            Copying::Pieces
        }
        None => Copying::Done,
    }
}

/// Adds a write of a message; returns what is to be copied from it instead: pieces, or frames if HTTP/2 begins in it.
#[inline(always)]
fn on_message_write<B: Backend>(
    conn: &mut Conn,
    user: Option<Bytes>,
    bytes: u32,
    now_ns: u64,
) -> Copying {
    // The last bytes of a short response are among the copied ones: they need not be read apart.
    let tail_is_copied =
        B::HAS_LOOPS && conn.carries_whole(bytes) && user.is_some_and(Bytes::is_flat);
    let mut tail = match user {
        Some(user) if !tail_is_copied => user.tail(conn),
        _ => 0,
    };
    let hint = if conn.progress.phase == phase::WRITING && conn.record.mode == mode::MESSAGES {
        hint_of(user, bytes, tail)
    } else {
        WriteHint::default()
    };
    // Without loops, the verifier would follow too much.
    let scattered = match user {
        Some(user) => B::HAS_LOOPS && user.is_scattered(),
        None => false,
    };
    let may_exceed_head = B::HAS_LOOPS && conn.may_exceed_head(bytes, hint, scattered);
    let stepwise = !may_exceed_head && conn.is_written_stepwise(bytes, hint, tail, scattered);
    if conn.send_cuts(hint) || stepwise && conn.progress.pending != 0 {
        records::emit(conn, kind::PROGRESS, now_ns);
    }
    let Some(plan) = conn.on_send(now_ns, bytes, hint) else {
        return Copying::Done;
    };
    if stepwise {
        conn.on_send_stepwise(bytes, plan, false, tail);
        return Copying::Pieces;
    }
    let copied = match user {
        Some(user) => user.copy(conn, plan.capture),
        None => None,
    };
    if tail_is_copied && copied.is_some() {
        tail = copied_tail(conn, plan.capture.at, bytes);
    }
    conn.record.tail = tail;
    match copied {
        Some(copied) => conn.on_response_captured(plan.capture, copied),
        None => {
            conn.on_response_captured(plan.capture, 0);
            if plan.emit == Some(kind::EXCHANGE) && reads_payload() {
                drops::count_of(
                    DropReason::HeadUnreadable,
                    conn.record.tgid,
                    conn.record.local_port,
                );
            }
        }
    }
    if plan.emit == Some(kind::EXCHANGE)
        && conn.record.mode == mode::MESSAGES
        && upgrade::is_agreed(conn, plan.capture.at)
        && upgrade::switches::<B>(conn, bytes)
    {
        conn.undo_write(bytes);
        records::emit(conn, kind::READ, now_ns);
        conn.switch_to_http2();
        return Copying::Frames;
    }
    if may_exceed_head && let Some(copied) = copied {
        let in_head = copied < plan.capture.len
            || head_end::find::<B>(conn, plan.capture.at, copied) == head_end::NONE;
        if in_head || ends_json(tail) && bytes > copied as u32 {
            conn.on_send_stepwise(bytes, plan, in_head, tail);
            return Copying::Pieces;
        }
        conn.progress.head_left = 0;
    }
    if B::HAS_LOOPS {
        conn.end_head(tail);
    }
    match plan.emit {
        Some(record_kind) => records::emit(conn, record_kind, now_ns),
        None => {
            if progress::note(conn) {
                conn.progress.pending = 1;
            } else {
                records::emit(conn, kind::PROGRESS, now_ns);
            }
        }
    }
    Copying::Done
}

/// Whether bytes written to a socket without state are a watched server's response, whose request was read before the
/// watch.
#[inline(always)]
fn responds_to_an_earlier_request<B: Backend>(sk: Sock<B>, bytes: u32) -> bool {
    let watched = runs_watched_process::<B>()
        || (sk.family() == Some(Family::Inet) && watched::has_port(sk.local_port()));
    watched && hint_of(of_current::<B>(bytes), bytes, 0).response_like
}

#[inline(always)]
fn may_be_server_frame(user: Option<Bytes>) -> bool {
    match user {
        Some(user) => match user.frame_head() {
            Some(head) => head.may_be_server_frame(),
            None => false,
        },
        None => false,
    }
}

#[inline(always)]
fn is_first_settings(user: Option<Bytes>) -> bool {
    match user {
        Some(user) => match user.frame_head() {
            Some(head) => head.is_first_settings(),
            None => false,
        },
        None => false,
    }
}

#[inline(always)]
fn hint_of(user: Option<Bytes>, bytes: u32, tail: u64) -> WriteHint {
    let Some(user) = user else {
        return WriteHint::default();
    };
    match user.peek() {
        Some((first, len)) => WriteHint {
            response_like: looks_like_response(first, len),
            chunk_like: looks_like_chunk(first, len, bytes)
                || looks_like_event(first, len)
                || looks_like_line(first, len, tail),
        },
        None => WriteHint::default(),
    }
}
