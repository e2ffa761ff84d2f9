//! `sock_send_length` and `tcp_sendmsg_locked`: bytes were given to a socket. Run in the writer's system call.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::{
    abi::{DropReason, kind, mode},
    conn::{Conn, phase},
    duplicate::Turn,
    segment::Looks,
    sniff::{looks_like_answer, looks_like_chunk},
};

use crate::{
    backend::{Flavour, Typed},
    http2_copy, maps,
    probes::{done, twice},
    sock::{Family, Sock, now_ns, reads_payload},
    upgrade,
    user_buffer::{self, Bytes},
};

twice! {
    /// The start of a send; 6.16 and later (net/ipv4/tcp.c, `tcp_sendmsg_locked`).
    #[btf_tracepoint(function = "tcp_sendmsg_locked")]
    fn tcp_sendmsg_locked, tcp_sendmsg_locked_second(ctx: BtfTracePointContext, _turn) {
        done(try_tcp_sendmsg_locked(Sock::<Typed>::new(ctx.arg(0))))
    }

    /// The return of a send.
    #[btf_tracepoint(function = "sock_send_length")]
    fn sock_send_length, sock_send_length_second(ctx: BtfTracePointContext, turn) {
        done(try_sock_send_length(turn, Sock::<Typed>::new(ctx.arg(0)), ctx.arg(1)))
    }
}

/// Notes that a write to `sk` begins, unless that is known.
#[inline(always)]
pub(crate) fn try_tcp_sendmsg_locked<F: Flavour>(sk: Sock<F>) -> Result<(), DropReason> {
    let conn = F::conn(sk);
    if conn.is_null() {
        return Ok(());
    }
    // SAFETY: a map value; the sender holds the socket lock.
    unsafe { &mut *conn }.on_send_start(now_ns);
    Ok(())
}

/// Takes in that a write to `sk` returned `ret`.
#[inline(always)]
pub(crate) fn try_sock_send_length<F: Flavour>(
    turn: Turn,
    sk: Sock<F>,
    ret: i32,
) -> Result<(), DropReason> {
    let conn = F::conn(sk);
    if conn.is_null() {
        return if ret > 0 && turn == Turn::First && answers_an_earlier_request(sk, ret as u32) {
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
    // With a start that nobody has taken in the mark is an earlier send's, whose second copy was passed over.
    if maps::is_told(turn, &mut conn.told.write) && conn.send_start_ns == 0 {
        return Ok(());
    }
    let shared = conn.fills_one_record();
    if shared && !maps::take(conn) {
        return Err(DropReason::Contended);
    }
    let bytes = ret as u32;
    let user = user_buffer::of_current::<F>(bytes).unwrap_or(Bytes::UNKNOWN);
    let user = Some(user.settled(conn));
    let now_ns = now_ns();
    let is_walked =
        conn.closed == 0 && conn.phase != phase::IDLE && take_write::<F>(conn, user, bytes, now_ns);
    if shared {
        maps::give_back(conn);
    }
    if !is_walked {
        return Ok(());
    }
    // SAFETY: a map value, non-null by `answers_or_new`; writers of one HTTP/2 connection take turns.
    let answers = unsafe { &mut *F::answers_or_new(sk)? };
    answers.on_stream_send(conn, now_ns, bytes);
    http2_copy::walk::<F>(answers, user, bytes, http2_copy::Side::Answers, now_ns);
    Ok(())
}

/// Takes in a write of `bytes`; `true`: they are to be walked.
#[inline(always)]
fn take_write<F: Flavour>(conn: &mut Conn, user: Option<Bytes>, bytes: u32, now_ns: u64) -> bool {
    conn.record.tgid = maps::current().0;
    if conn.switching != 0 {
        conn.switching = 0;
        if is_first_settings(user) {
            conn.switch();
        }
    }
    if conn.record.mode != mode::STREAMS {
        return take_message::<F>(conn, user, bytes, now_ns);
    }
    if conn.joined != 0 {
        if !is_server_sign(user) {
            conn.pass_over_send(bytes);
            return false;
        }
        conn.joined = 0;
    }
    true
}

/// Takes in a write of bytes that are not walked; `true`: they are to be walked after all.
#[inline(always)]
fn take_message<F: Flavour>(conn: &mut Conn, user: Option<Bytes>, bytes: u32, now_ns: u64) -> bool {
    let looks = if conn.phase == phase::WRITING && conn.record.mode == mode::MESSAGES {
        looks(user, bytes)
    } else {
        Looks::default()
    };
    if conn.send_cuts(looks) {
        maps::emit(conn, kind::PROGRESS, now_ns);
    }
    let Some(plan) = conn.on_send(now_ns, bytes, looks) else {
        return false;
    };
    let copied = match user {
        Some(user) => {
            conn.record.tail = user.tail(conn);
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
    if plan.emit == Some(kind::EXCHANGE)
        && conn.record.mode == mode::MESSAGES
        && upgrade::is_agreed(conn, plan.capture.at)
        && upgrade::switches::<F>(conn, bytes)
    {
        conn.take_back_write(bytes);
        maps::emit(conn, kind::READ, now_ns);
        conn.switch();
        return true;
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
    false
}

/// Whether bytes that a socket without state was given are a watched server's answer: its request was read before.
#[inline(always)]
fn answers_an_earlier_request<F: Flavour>(sk: Sock<F>, bytes: u32) -> bool {
    let watched = maps::watches(maps::current().0)
        || (sk.family() == Some(Family::Inet) && maps::watches_port(sk.local_port()));
    watched && looks(user_buffer::of_current::<F>(bytes), bytes).answer_like
}

#[inline(always)]
fn is_server_sign(user: Option<Bytes>) -> bool {
    match user {
        Some(user) => match user.frame_head() {
            Some(head) => head.is_server_sign(),
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
