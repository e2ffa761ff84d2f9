//! `sock_recv_length`: a read took bytes out of a socket. Runs in the reader's system call, at its return.
//!
//! Begins the watch of connections that were open before it, and reports a frontend's reads of its worker's replies.
//! Does not depend on: when a record is due (`segment`), what bytes mean (`sniff`).

use core::ptr;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::{
    abi::{DropReason, flag, kind, mode},
    arrival::Arrival,
    conn::{Conn, phase},
    duplicate::Attached,
    sniff::{PEEK, begins_frame, begins_tls, looks_like_request, mode_of},
};

use crate::{
    access::Btf,
    backend::{Backend, of_current, runs_watched_process},
    clock::now_ns,
    globals::{copied_bytes, reads_payload, reports_accepts},
    http2_copy::{Side, copy_transfer},
    maps::{accepts, clients, drops, progress, records, watched, workers},
    probes::entry::{already_handled, done, primary_and_backup},
    sock::{Family, Sock},
    task, unobserved,
    user_buffer::Bytes,
};

/// A read that leaves the bytes in the queue (include/linux/socket.h).
const MSG_PEEK: i32 = 2;
/// What a read returns, once, if the peer ended with bytes unread (include/uapi/asm-generic/errno.h).
const ECONNRESET: i32 = 104;

primary_and_backup! {
    #[btf_tracepoint(function = "sock_recv_length")]
    fn sock_recv_length, sock_recv_length_second(ctx: BtfTracePointContext, attached) {
        let sk = Sock::<Btf>::new(ctx.arg(0));
        done(try_sock_recv_length(attached, sk, ctx.arg(1), ctx.arg(2)))
    }
}

/// Handles that a read of `sk` returned `ret`.
#[inline(always)]
pub(crate) fn try_sock_recv_length<B: Backend>(
    attached: Attached,
    sk: Sock<B>,
    ret: i32,
    flags: i32,
) -> Result<(), DropReason> {
    if flags & MSG_PEEK != 0 {
        return Ok(());
    }
    if ret <= 0 {
        if ret == 0 || ret == -ECONNRESET {
            note_server_end(sk);
        }
        return Ok(());
    }
    let bytes = ret as u32;
    let mut conn = B::conn(sk);
    if conn.is_null() {
        let begins_with = first_bytes_of_watched(sk, bytes);
        if begins_with == FirstBytes::Other {
            return note_reply_read(attached, sk, bytes);
        }
        if B::KEEPS_BY_ADDRESS && sk.is_closed() {
            // State by address is removed at the close, which is over.
            return Ok(());
        }
        conn = B::conn_or_new(sk)?;
        if sk.family() == Some(Family::Inet) {
            // The server's listener may be another process's, which passes connections on.
            watched::note_served_port(sk.local_port());
        }
        if begins_with == FirstBytes::Http2Frame {
            // SAFETY: a map value, non-null by `conn_or_new`.
            unsafe { (*conn).join_midway() };
        }
    }
    // SAFETY: a map value, which stays valid for the program; `acquire` gives it to one hook at a time.
    let conn = unsafe { &mut *conn };
    if conn.lock.candidate != 0 {
        if !runs_watched_process::<B>() && !watched::has_port(sk.local_port()) {
            return Ok(());
        }
        conn.lock.candidate = 0;
    }
    if already_handled(attached, &mut conn.handled.read) && !has_moved(conn, sk) {
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
    if conn.lock.closed == 0 {
        on_read(conn, sk, bytes);
    }
    if shared {
        records::release(conn);
    }
    Ok(())
}

/// Whether TCP bytes were read after the latest read that was handled. The mark is then an earlier read's, whose backup
/// copy the kernel skipped. For AF_UNIX this is unknown, because its sender may be ahead of its reports.
#[inline(always)]
fn has_moved<B: Backend>(conn: &Conn, sk: Sock<B>) -> bool {
    match sk.tcp_positions() {
        Some((position, _)) => position != conn.queue.consumed,
        None => false,
    }
}

/// Adds a read of `bytes` to the connection's records.
#[inline(always)]
fn on_read<B: Backend>(conn: &mut Conn, sk: Sock<B>, bytes: u32) {
    identify(conn, sk);
    let user = of_current::<B>(bytes)
        .unwrap_or(Bytes::UNKNOWN)
        .forgotten(conn);
    let user = Some(user);
    let fresh = conn.progress.phase == phase::IDLE && conn.h2.joined == 0;
    let switching = conn.progress.phase == phase::WRITING && conn.h2.switching != 0;
    let mut request_like = false;
    if fresh || switching {
        let spoken = mode_of_first_read(user, bytes);
        conn.h2.switching = 0;
        if fresh {
            conn.set_mode(spoken);
            if spoken == mode::FRAMES && conn.record.flags & flag::UNIX == 0 {
                workers::note(&conn.record);
            }
            if reports_accepts() && conn.record.flags & flag::UNIX == 0 {
                accepts::emit(conn, sk.address());
            }
        } else if spoken == mode::STREAMS {
            conn.switch_to_http2();
        }
    } else if conn.progress.phase == phase::READING && conn.record.mode == mode::MESSAGES {
        request_like = is_request_like(user);
    }
    let now_ns = now_ns();
    let positions = sk.tcp_positions();
    if let Some((position, _)) = positions {
        unobserved::before_read(conn, sk, position, bytes);
    }
    let plan = conn.plan_recv(bytes, request_like);
    if let Some(cut) = plan.cut {
        records::emit(conn, cut, now_ns);
    }
    if conn.shares_record() {
        conn.on_reader(task::current_tid(), task::waits::<B>());
    }
    if conn.progress.phase == phase::WRITING {
        progress::free(conn);
    }
    let arrival = arrival(conn, sk, positions, bytes, now_ns, plan.begins);
    let capture = conn.on_recv(now_ns, bytes, arrival, plan, copied_bytes());
    if plan.begins && conn.record.flags & flag::UNIX == 0 {
        conn.on_steps(conn.queue.consumed.wrapping_sub(bytes));
    }
    if conn.is_copied_stepwise(bytes) {
        copy_transfer::<B>(conn, user, bytes, Side::Requests, now_ns);
        if conn.record.mode == mode::STREAMS {
            records::emit(conn, kind::READ, now_ns);
            conn.on_stream_read();
        }
        return;
    }
    let copied = match user {
        Some(user) => user.copy(conn, capture),
        None => None,
    };
    match copied {
        Some(copied) => conn.on_request_captured(capture, copied),
        None => {
            conn.on_request_captured(capture, 0);
            if capture.len > 0 && reads_payload() {
                drops::count_of(
                    DropReason::HeadUnreadable,
                    conn.record.tgid,
                    conn.record.local_port,
                );
            }
        }
    }
}

/// Reports that a watched frontend read its worker's reply. The worker is at the other end of the connection.
#[inline(always)]
fn note_reply_read<B: Backend>(
    attached: Attached,
    sk: Sock<B>,
    bytes: u32,
) -> Result<(), DropReason> {
    if !runs_watched_process::<B>() {
        return Ok(());
    }
    // SAFETY of both: map values; the cookies are written once, before the first reply, and the marks by this hook
    // only.
    let (cookie, mark) = match sk.family() {
        Some(Family::Unix) => {
            let conn = unix_worker(sk);
            if conn.is_null() {
                return Ok(());
            }
            unsafe { ((*conn).record.cookie, &mut (*conn).handled.reply_read) }
        }
        Some(Family::Inet) => {
            let Some(worker) = workers::get(sk.peer_port(), sk.local_port()) else {
                return Ok(());
            };
            unsafe { ((*worker).cookie, &mut (*worker).reply_read) }
        }
        None => return Ok(()),
    };
    if cookie == 0 || already_handled(attached, mark) {
        return Ok(());
    }
    records::emit_reply_read(cookie, bytes, now_ns())
}

/// Emits the end of a watched AF_UNIX connection when its client reads that end: no hook reports that the server can write no
/// more.
///
/// A call of its own: inlined, it takes registers that the path of every read needs.
#[inline(never)]
fn note_server_end<B: Backend>(sk: Sock<B>) {
    if sk.family() != Some(Family::Unix) {
        return;
    }
    let Some(server) = sk.unix_peer() else {
        return;
    };
    let conn = B::conn(server);
    // The server's close and its shutdown set this before the client can read the end (net/unix/af_unix.c,
    // `unix_release_sock`, `unix_shutdown`).
    if !conn.is_null() && server.has_ended_writes() {
        // SAFETY: a map value, which the client's reference to its peer keeps; the server no longer writes.
        records::close(unsafe { &mut *conn }, now_ns());
    }
}

/// Returns the state of the worker's socket at the other end of an AF_UNIX connection; null if there is none.
#[inline(always)]
fn unix_worker<B: Backend>(sk: Sock<B>) -> *mut Conn {
    let Some(worker) = sk.unix_peer() else {
        return ptr::null_mut();
    };
    let conn = B::conn(worker);
    // SAFETY: a map value; the mode is written once, before the first reply.
    if conn.is_null() || unsafe { (*conn).record.mode } != mode::FRAMES {
        return ptr::null_mut();
    }
    conn
}

/// Returns when the first of the bytes just read arrived, and whether the others arrived with it, if that is `wanted`.
/// Updates the read position in any case.
#[inline(always)]
fn arrival<B: Backend>(
    conn: &mut Conn,
    sk: Sock<B>,
    positions: Option<(u32, u32)>,
    bytes: u32,
    now_ns: u64,
    wanted: bool,
) -> (Arrival, bool) {
    if let Some((position, end)) = positions {
        let tracked = conn.queue.tracked != 0;
        conn.queue.consumed = position;
        conn.queue.positioned = 1;
        if position == end {
            conn.queue.tracked = 1;
        }
        // Bytes that arrived before the watch are in no entry, and must not get the time of a later one.
        return if wanted && tracked {
            conn.queue
                .arrivals
                .of(position.wrapping_sub(bytes), position)
        } else {
            (Arrival::Unseen, false)
        };
    }
    let floor = conn.queue.unix_floor;
    let mut start = conn.queue.consumed;
    if (floor.wrapping_sub(start) as i32) > 0 {
        start = floor;
    }
    let left = sk.queued();
    conn.queue.consumed = conn.queue.unix_produced.wrapping_sub(left);
    let tracked = conn.queue.tracked != 0;
    if left == 0 {
        conn.queue.tracked = 1;
    }
    if !wanted {
        return (Arrival::Unseen, false);
    }
    match conn.queue.arrivals.of(start, conn.queue.consumed) {
        // A reader on another CPU than the sender may take the bytes before the sender has announced them.
        (Arrival::Unseen, _) if tracked && B::REPORTS_EVERY_ARRIVAL => (Arrival::At(now_ns), false),
        arrival => arrival,
    }
}

/// Fills in the process, and once the identity of the socket.
#[inline(always)]
fn identify<B: Backend>(conn: &mut Conn, sk: Sock<B>) {
    conn.record.tgid = task::current_tgid();
    if conn.record.cookie != 0 {
        return;
    }
    conn.record.cookie = B::cookie(sk);
    if sk.family() == Some(Family::Unix) {
        conn.record.flags = flag::UNIX;
        conn.record.client_tgid = sk.peer_tgid();
    } else {
        conn.record.local_port = sk.local_port();
        conn.record.peer_port = sk.peer_port();
        conn.record.client_tgid = clients::take(sk);
    }
}

/// What the first bytes of a read on an unknown socket look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstBytes {
    /// Nothing that is watched.
    Other,
    /// A request, a worker's frame, or a TLS record.
    Request,
    /// A frame on an HTTP/2 connection.
    Http2Frame,
}

/// Returns whether an unknown socket is a server's side of a connection that was open before its watch, and how its
/// bytes begin.
///
/// Its first bytes must look like a request, because a watched server is also a client of others. HTTP/2 frames and TLS
/// records look the same on both sides: for them the port must be a server's.
#[inline(always)]
fn first_bytes_of_watched<B: Backend>(sk: Sock<B>, bytes: u32) -> FirstBytes {
    let by_process = runs_watched_process::<B>();
    let serves = match sk.family() {
        Some(Family::Inet) => {
            let port = sk.local_port();
            let by_port = watched::has_port(port);
            if !by_process && !by_port && !B::is_marked(sk) {
                return FirstBytes::Other;
            }
            by_port || watched::serves_port(port)
        }
        Some(Family::Unix) if by_process && sk.unix_address() != 0 => true,
        _ => return FirstBytes::Other,
    };
    if B::KEEPS_BY_ADDRESS && B::is_marked(sk) {
        return FirstBytes::Request;
    }
    let user = of_current::<B>(bytes);
    match peek(user) {
        Some((first, len))
            if looks_like_request(first, len)
                || (by_process && begins_frame(first, bytes))
                || (serves && begins_tls(first, len)) =>
        {
            FirstBytes::Request
        }
        Some(_) if serves && may_be_client_frame(user) => FirstBytes::Http2Frame,
        _ => FirstBytes::Other,
    }
}

#[inline(always)]
fn may_be_client_frame(user: Option<Bytes>) -> bool {
    match user {
        Some(user) => match user.frame_head() {
            Some(head) => head.may_be_client_frame(),
            None => false,
        },
        None => false,
    }
}

#[inline(always)]
fn is_request_like(user: Option<Bytes>) -> bool {
    match peek(user) {
        Some((first, len)) => looks_like_request(first, len),
        None => false,
    }
}

#[inline(always)]
fn mode_of_first_read(user: Option<Bytes>, bytes: u32) -> u8 {
    match peek(user) {
        Some((first, len)) => mode_of(first, len, bytes),
        None => mode::MESSAGES,
    }
}

#[inline(always)]
fn peek(user: Option<Bytes>) -> Option<([u8; PEEK], usize)> {
    match user {
        Some(user) => user.peek(),
        None => None,
    }
}
