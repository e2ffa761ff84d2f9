//! Walks the bytes of a transfer in the user's buffers, and copies what `walk` says is carried up: the frames of HTTP/2,
//! and reads of messages that do not fit one record.
//!
//! A transfer may hold thousands of frames, or one of megabytes.

use core::ffi::c_void;

use inferprobe_ebpf::{
    abi::{kind, mode},
    conn::{Conn, CopyCursor},
    http2_frames::{ANSWER_DATA_KEPT, FrameCursor, REQUEST_DATA_KEPT},
    segment::READ_END_CAP,
};

use crate::{
    backend::Flavour,
    bounded_loop::{GO_ON, STOP, repeat},
    maps,
    user_buffer::{Bytes, Vector, copy_flat, read, vector},
};

/// Steps of one transfer: each passes a frame's header, a payload, or a vector. What lies behind is not carried, which
/// the agent finds out.
const STEPS: u32 = 8192;
/// Steps of programs that the kernel runs no loops for: as many as the verifier follows.
const FEW_STEPS: u32 = 32;
/// Bytes that one step copies at most.
const STEP_CAP: u32 = 512;
/// Bytes of a frame's header.
const HEAD_LEN: u32 = 9;

/// Direction of a transfer.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// From the client.
    Requests,
    /// From the server.
    Answers,
}

/// Takes in the `bytes` bytes of a transfer that lie in `user`, and sends up what does not fit one record. The requests'
/// last record stays in `conn`; the answers' goes up.
#[inline(always)]
pub(crate) fn walk<F: Flavour>(
    conn: &mut Conn,
    user: Option<Bytes>,
    bytes: u32,
    side: Side,
    now_ns: u64,
) {
    let answers = match side {
        Side::Requests => 0,
        Side::Answers => 1,
    };
    let end = if conn.record.mode == mode::MESSAGES {
        READ_END_CAP
    } else {
        0
    };
    let (start, next, here, vectors) = match user {
        Some(user) if user.vectors == 0 => (user.start, 0, bytes, 0),
        Some(user) => (0, user.start, 0, user.vectors),
        None => (0, 0, 0, 0),
    };
    conn.cursor = CopyCursor {
        start,
        next,
        now_ns,
        here,
        vectors,
        left: bytes,
        answers,
        end,
        reserved: 0,
    };
    let mut walked: *mut Conn = conn;
    // SAFETY: `step` takes a pointer to a connection, which outlives the loop.
    unsafe { repeat::<F>(STEPS, FEW_STEPS, step, (&raw mut walked).cast()) };
    // SAFETY: the map value that `conn` was.
    let conn = unsafe { &mut *walked };
    let lost = conn.cursor.left;
    if lost > 0 {
        conn.on_walked(answers != 0, lost, false);
    }
    if answers != 0 {
        maps::emit(conn, kind::PROGRESS, now_ns);
    }
}

/// One step: a vector is taken up, or bytes are carried or skipped.
unsafe extern "C" fn step(_round: u32, walked: *mut c_void) -> i64 {
    // SAFETY: `repeat` hands over what `walk` gave it, and that points to a map value.
    let conn = unsafe { &mut **walked.cast::<*mut Conn>() };
    if conn.cursor.left == 0 {
        return STOP;
    }
    if conn.cursor.here == 0 {
        return next_vector(&mut conn.cursor);
    }
    let answers = conn.cursor.answers != 0;
    let walk = *conn.walk(answers);
    let kept = walk.keeps();
    if kept == 0 {
        let mut skipped = smaller(walk.skips(), conn.cursor.here);
        if conn.cursor.end > 0 {
            if conn.cursor.left <= conn.cursor.end {
                send_up(conn);
                conn.request_walk = FrameCursor::carrying(conn.cursor.left);
                conn.cursor.end = 0;
                return GO_ON;
            }
            skipped = smaller(skipped, conn.cursor.left - conn.cursor.end);
        }
        conn.walk(answers).on_payload(skipped);
        advance(conn, skipped, false);
        return GO_ON;
    }
    let room = conn.room(answers);
    // A header that lies whole is taken whole, any other byte by byte: the verifier follows each way.
    let whole = walk.is_before_head() && conn.cursor.here >= HEAD_LEN && room >= HEAD_LEN;
    let taken = if whole {
        HEAD_LEN
    } else if walk.is_in_head() {
        1
    } else {
        smaller(smaller(kept, conn.cursor.here), STEP_CAP)
    };
    if room < taken {
        send_up(conn);
        return GO_ON;
    }
    let at = conn.record.request_len + conn.record.answer_len;
    if copy_flat(conn, at, conn.cursor.start, taken as u64).is_none() {
        return STOP;
    }
    let at_hand = conn.cursor.start;
    let walk = conn.walk(answers);
    let data_kept = if answers {
        ANSWER_DATA_KEPT
    } else {
        REQUEST_DATA_KEPT
    };
    if whole {
        let Some(start) = read::<u32>(at_hand) else {
            return STOP;
        };
        walk.on_whole_head(u32::from_be(start), data_kept);
    } else if walk.is_in_head() {
        let Some(byte) = read::<u8>(at_hand) else {
            return STOP;
        };
        walk.on_head(byte, data_kept);
    } else {
        walk.on_payload(taken);
    }
    advance(conn, taken, true);
    GO_ON
}

#[inline(always)]
fn next_vector(cursor: &mut CopyCursor) -> i64 {
    if cursor.vectors == 0 {
        return STOP;
    }
    let Some(vector) = vector(cursor.next) else {
        return STOP;
    };
    cursor.next += size_of::<Vector>() as u64;
    cursor.vectors -= 1;
    cursor.start = vector.start;
    cursor.here = if vector.len < cursor.left as u64 {
        vector.len as u32
    } else {
        cursor.left
    };
    GO_ON
}

#[inline(always)]
fn advance(conn: &mut Conn, bytes: u32, carried: bool) {
    conn.cursor.start += bytes as u64;
    conn.cursor.here = conn.cursor.here.saturating_sub(bytes);
    conn.cursor.left = conn.cursor.left.saturating_sub(bytes);
    conn.on_walked(conn.cursor.answers != 0, bytes, carried);
}

/// Sends the record up that is full, and begins one that goes on with the same transfer.
#[inline(always)]
fn send_up(conn: &mut Conn) {
    if conn.cursor.answers == 0 {
        maps::emit(conn, kind::READ, conn.cursor.now_ns);
        conn.on_split();
    } else {
        maps::emit(conn, kind::PROGRESS, conn.cursor.now_ns);
    }
}

#[inline(always)]
fn smaller(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}
