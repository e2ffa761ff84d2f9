//! `sock_recv_length`: bytes were taken out of a socket. Runs in the reader's system call, at its return.

use core::ptr;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use inferprobe_ebpf::{
    abi::{DropReason, flag, kind, mode},
    arrival::Arrival,
    conn::{Conn, phase},
    duplicate::Turn,
    sniff::{PEEK, begins_frame, looks_like_request, mode_of},
};

use crate::{
    backend::{Flavour, Typed},
    http2_copy, maps,
    probes::{done, twice},
    sock::{Family, Sock, now_ns, reads_payload, tells_accepts},
    user_buffer::{self, Bytes},
};

/// A read that leaves the bytes where they are (include/linux/socket.h).
const MSG_PEEK: i32 = 2;
/// What a reader is told, once, whose peer ended with bytes unread (include/uapi/asm-generic/errno.h).
const ECONNRESET: i32 = 104;

twice! {
    #[btf_tracepoint(function = "sock_recv_length")]
    fn sock_recv_length, sock_recv_length_second(ctx: BtfTracePointContext, turn) {
        let sk = Sock::<Typed>::new(ctx.arg(0));
        done(try_sock_recv_length(turn, sk, ctx.arg(1), ctx.arg(2)))
    }
}

/// Takes in that a read of `sk` returned `ret`.
#[inline(always)]
pub(crate) fn try_sock_recv_length<F: Flavour>(
    turn: Turn,
    sk: Sock<F>,
    ret: i32,
    flags: i32,
) -> Result<(), DropReason> {
    if flags & MSG_PEEK != 0 {
        return Ok(());
    }
    if ret <= 0 {
        if ret == 0 || ret == -ECONNRESET {
            note_end(sk);
        }
        return Ok(());
    }
    let bytes = ret as u32;
    let mut conn = F::conn(sk);
    if conn.is_null() {
        let sign = sign_of_a_watched(sk, bytes);
        if sign == Sign::None {
            return note_taken(turn, sk, bytes);
        }
        if F::KEEPS_BY_ADDRESS && sk.is_closed() {
            // What is kept by address is given up at the close, and would not be again.
            return Ok(());
        }
        conn = F::conn_or_new(sk)?;
        if sign == Sign::Frame {
            // SAFETY: a map value, non-null by `conn_or_new`.
            unsafe { (*conn).join() };
        }
    }
    // SAFETY: a map value, which stays valid for the program; `take` gives it to one hook at a time.
    let conn = unsafe { &mut *conn };
    if maps::is_told(turn, &mut conn.told.read) && !has_moved(conn, sk) {
        return Ok(());
    }
    let shared = conn.fills_one_record();
    if shared && !maps::take(conn) {
        return Err(DropReason::Contended);
    }
    if conn.closed == 0 {
        take_read(conn, sk, bytes);
    }
    if shared {
        maps::give_back(conn);
    }
    Ok(())
}

/// Whether TCP bytes were taken since the latest read that was told of: the mark is then an earlier read's, whose second
/// copy was passed over. Of AF_UNIX that cannot be known, since its sender is not waited for.
#[inline(always)]
fn has_moved<F: Flavour>(conn: &Conn, sk: Sock<F>) -> bool {
    match sk.tcp_positions() {
        Some((position, _)) => position != conn.consumed,
        None => false,
    }
}

/// Takes in a read of `bytes`.
#[inline(always)]
fn take_read<F: Flavour>(conn: &mut Conn, sk: Sock<F>, bytes: u32) {
    introduce(conn, sk);
    let user = user_buffer::of_current::<F>(bytes)
        .unwrap_or(Bytes::UNKNOWN)
        .settled(conn);
    let user = Some(user);
    let fresh = conn.phase == phase::IDLE && conn.joined == 0;
    let switching = conn.phase == phase::WRITING && conn.switching != 0;
    let mut request_like = false;
    if fresh || switching {
        let spoken = mode_of_first_read(user, bytes);
        conn.switching = 0;
        if fresh {
            conn.set_mode(spoken);
            if spoken == mode::FRAMES && conn.record.flags & flag::UNIX == 0 {
                maps::note_worker(&conn.record);
            }
            if tells_accepts() && conn.record.flags & flag::UNIX == 0 {
                maps::emit_accepted(conn, sk.address());
            }
        } else if spoken == mode::STREAMS {
            conn.switch();
        }
    } else if conn.phase == phase::READING && conn.record.mode == mode::MESSAGES {
        request_like = is_request_like(user);
    }
    let now_ns = now_ns();
    let plan = conn.plan_recv(bytes, request_like);
    if let Some(cut) = plan.cut {
        maps::emit(conn, cut, now_ns);
    }
    if conn.phase == phase::WRITING {
        maps::free_progress(conn);
    }
    let arrival = arrival(conn, sk, bytes, now_ns, plan.begins);
    let capture = conn.on_recv(now_ns, bytes, arrival, plan);
    if plan.begins && conn.record.flags & flag::UNIX == 0 {
        conn.on_steps(conn.consumed.wrapping_sub(bytes));
    }
    if conn.is_walked(bytes) {
        http2_copy::walk::<F>(conn, user, bytes, http2_copy::Side::Requests, now_ns);
        if conn.record.mode == mode::STREAMS {
            maps::emit(conn, kind::READ, now_ns);
            conn.on_stream_read();
        }
        return;
    }
    let copied = match user {
        Some(user) => user.copy(conn, capture),
        None => None,
    };
    match copied {
        Some(copied) => conn.captured_request(capture, copied),
        None => {
            conn.captured_request(capture, 0);
            if capture.len > 0 && reads_payload() {
                maps::count(DropReason::HeadUnreadable);
            }
        }
    }
}

/// Tells of a watched frontend's read of what its worker, at the other end of the connection, replied.
#[inline(always)]
fn note_taken<F: Flavour>(turn: Turn, sk: Sock<F>, bytes: u32) -> Result<(), DropReason> {
    if !maps::watches(maps::current().0) {
        return Ok(());
    }
    // SAFETY of both: map values; the cookies are written once, before the first reply, and the marks by this hook alone.
    let (cookie, mark) = match sk.family() {
        Some(Family::Unix) => {
            let conn = unix_worker(sk);
            if conn.is_null() {
                return Ok(());
            }
            unsafe { ((*conn).record.cookie, &mut (*conn).told.taken) }
        }
        Some(Family::Inet) => {
            let Some(worker) = maps::worker_of(sk.peer_port(), sk.local_port()) else {
                return Ok(());
            };
            unsafe { ((*worker).cookie, &mut (*worker).taken) }
        }
        None => return Ok(()),
    };
    if cookie == 0 || maps::is_told(turn, mark) {
        return Ok(());
    }
    maps::emit_taken(cookie, bytes, now_ns())
}

/// Tells that a worker ended, where its watched frontend finds the end of an AF_UNIX connection: nothing else tells of the
/// frame that it had read.
///
/// A call of its own: inlined, it takes registers that the path of every read is in need of.
#[inline(never)]
fn note_end<F: Flavour>(sk: Sock<F>) {
    if sk.family() != Some(Family::Unix) || !maps::watches(maps::current().0) {
        return;
    }
    let conn = unix_worker(sk);
    if !conn.is_null() {
        // SAFETY: a map value, which the frontend's reference to its peer keeps; the worker uses it no more.
        maps::close(unsafe { &mut *conn }, now_ns());
    }
}

/// State of the worker's socket at the other end of an AF_UNIX connection; null if there is none.
#[inline(always)]
fn unix_worker<F: Flavour>(sk: Sock<F>) -> *mut Conn {
    let Some(worker) = sk.unix_peer() else {
        return ptr::null_mut();
    };
    let conn = F::conn(worker);
    // SAFETY: a map value; the mode is written once, before the first reply.
    if conn.is_null() || unsafe { (*conn).record.mode } != mode::FRAMES {
        return ptr::null_mut();
    }
    conn
}

/// When the first of the bytes just read came, and whether the others came with it, if that is `wanted`; keeps the read
/// position in any case.
#[inline(always)]
fn arrival<F: Flavour>(
    conn: &mut Conn,
    sk: Sock<F>,
    bytes: u32,
    now_ns: u64,
    wanted: bool,
) -> (Arrival, bool) {
    if let Some((position, end)) = sk.tcp_positions() {
        let tracked = conn.tracked != 0;
        conn.consumed = position;
        conn.positioned = 1;
        if position == end {
            conn.tracked = 1;
        }
        // Bytes that came before the watch are in no entry: a later one must not stand for them.
        return if wanted && tracked {
            conn.arrivals.of(position.wrapping_sub(bytes), position)
        } else {
            (Arrival::Unseen, false)
        };
    }
    let floor = conn.unix_floor;
    let mut start = conn.consumed;
    if (floor.wrapping_sub(start) as i32) > 0 {
        start = floor;
    }
    let left = sk.queued();
    conn.consumed = conn.unix_produced.wrapping_sub(left);
    let tracked = conn.tracked != 0;
    if left == 0 {
        conn.tracked = 1;
    }
    if !wanted {
        return (Arrival::Unseen, false);
    }
    match conn.arrivals.of(start, conn.consumed) {
        // A reader that runs beside the sender may take the bytes before the sender has announced them.
        (Arrival::Unseen, _) if tracked && F::SEES_EVERY_ARRIVAL => (Arrival::At(now_ns), false),
        arrival => arrival,
    }
}

/// Fills in who the socket is, once.
#[inline(always)]
fn introduce<F: Flavour>(conn: &mut Conn, sk: Sock<F>) {
    conn.record.tgid = maps::current().0;
    if conn.record.cookie != 0 {
        return;
    }
    conn.record.cookie = F::cookie(sk);
    if sk.family() == Some(Family::Unix) {
        conn.record.flags = flag::UNIX;
    } else {
        conn.record.local_port = sk.local_port();
        conn.record.peer_port = sk.peer_port();
    }
}

/// What the first bytes of a read on an unknown socket are a sign of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Nothing that is watched.
    None,
    /// A request, or a worker's frame.
    Request,
    /// A frame on an HTTP/2 connection.
    Frame,
}

/// Whether an unknown socket is a server's side of a connection that is older than its watch.
///
/// Its first bytes must look like a request: a watched server is also a client of others. The frames of HTTP/2 look alike
/// on both sides: there the port must be a server's.
#[inline(always)]
fn sign_of_a_watched<F: Flavour>(sk: Sock<F>, bytes: u32) -> Sign {
    let by_process = maps::watches(maps::current().0);
    let serves = match sk.family() {
        Some(Family::Inet) => {
            let port = sk.local_port();
            let by_port = maps::watches_port(port);
            if !by_process && !by_port && !F::is_marked(sk) {
                return Sign::None;
            }
            by_port || maps::serves_port(port)
        }
        Some(Family::Unix) if by_process && sk.unix_address() != 0 => true,
        _ => return Sign::None,
    };
    if F::KEEPS_BY_ADDRESS && F::is_marked(sk) {
        return Sign::Request;
    }
    let user = user_buffer::of_current::<F>(bytes);
    match peek(user) {
        Some((first, len))
            if looks_like_request(first, len) || (by_process && begins_frame(first, bytes)) =>
        {
            Sign::Request
        }
        Some(_) if serves && is_client_sign(user) => Sign::Frame,
        _ => Sign::None,
    }
}

#[inline(always)]
fn is_client_sign(user: Option<Bytes>) -> bool {
    match user {
        Some(user) => match user.frame_head() {
            Some(head) => head.is_client_sign(),
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
