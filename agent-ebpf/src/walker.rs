//! Walks the bytes of a transfer in the user's buffers, and copies what `walk` says is carried up: the frames of HTTP/2,
//! and reads of messages that do not fit one record.
//!
//! A loop of the kernel's (`bpf_loop`, 5.17): a transfer may hold thousands of frames, or one of megabytes.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use inferprobe_ebpf::{
    abi::{kind, mode},
    segment::{Conn, READ_END_CAP},
    walk::{ANSWER_DATA_KEPT, REQUEST_DATA_KEPT, Walk},
};

use crate::{
    maps,
    payload::{Bytes, Vector, copy_flat, read},
};

/// Steps of one transfer: each passes a frame's header, a payload, or a vector. What lies behind is not carried, which
/// the agent finds out.
const STEPS: u32 = 8192;
/// Bytes that one step copies at most.
const STEP_CAP: u32 = 512;
/// Bytes of a frame's header.
const HEAD_LEN: u32 = 9;
/// What a step returns.
const GO_ON: i64 = 0;
const STOP: i64 = 1;

/// Direction of a transfer.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// From the client.
    Requests,
    /// From the server.
    Answers,
}

/// Where the walk of one transfer stands.
#[repr(C)]
struct Cursor {
    conn: *mut Conn,
    /// Address of the next byte.
    start: u64,
    /// Address of the next vector.
    next: u64,
    now_ns: u64,
    /// Bytes to come in the buffer at hand.
    here: u32,
    /// Vectors to come.
    vectors: u32,
    /// Bytes to come in the transfer.
    left: u32,
    /// 1: answers; 0: requests.
    answers: u32,
    /// Bytes at the end of the transfer that are carried whatever the walk says; 0: none, or they are at hand.
    end: u32,
}

/// Takes in the `bytes` bytes of a transfer that lie in `user`, and sends up what does not fit one record. The requests'
/// last record stays in `conn`; the answers' goes up.
#[inline(always)]
pub(crate) fn walk(conn: &mut Conn, user: Option<Bytes>, bytes: u32, side: Side, now_ns: u64) {
    let answers = match side {
        Side::Requests => 0,
        Side::Answers => 1,
    };
    let end = if conn.record.mode == mode::MESSAGES {
        READ_END_CAP
    } else {
        0
    };
    let conn: *mut Conn = conn;
    let mut cursor = Cursor {
        conn,
        start: 0,
        next: 0,
        now_ns,
        here: 0,
        vectors: 0,
        left: bytes,
        answers,
        end,
    };
    match user {
        Some(user) if user.vectors == 0 => {
            cursor.start = user.start;
            cursor.here = bytes;
        }
        Some(user) => {
            cursor.next = user.start;
            cursor.vectors = user.vectors;
        }
        None => {}
    }
    // SAFETY: `step` has the signature that the helper calls, and `cursor` outlives the loop.
    unsafe {
        bpf_loop(STEPS, step as *mut c_void, (&raw mut cursor).cast(), 0);
    }
    // SAFETY: the map value that `conn` was.
    let conn = unsafe { &mut *conn };
    let lost = cursor.left;
    if lost > 0 {
        conn.on_walked(answers != 0, lost, false);
    }
    if cursor.answers != 0 {
        maps::emit(conn, kind::PROGRESS, now_ns);
    }
}

/// One step: a vector is taken up, or bytes are carried or skipped.
unsafe extern "C" fn step(_index: u32, cursor: *mut c_void) -> i64 {
    // SAFETY: the helper hands over what `walk` gave it.
    let cursor = unsafe { &mut *cursor.cast::<Cursor>() };
    if cursor.left == 0 {
        return STOP;
    }
    if cursor.here == 0 {
        return next_vector(cursor);
    }
    // SAFETY: the map value that `walk` was given.
    let conn = unsafe { &mut *cursor.conn };
    let answers = cursor.answers != 0;
    let walk = *conn.walk(answers);
    let kept = walk.keeps();
    if kept == 0 {
        let mut skipped = smaller(walk.skips(), cursor.here);
        if cursor.end > 0 {
            if cursor.left <= cursor.end {
                send_up(cursor, conn);
                conn.request_walk = Walk::carrying(cursor.left);
                cursor.end = 0;
                return GO_ON;
            }
            skipped = smaller(skipped, cursor.left - cursor.end);
        }
        conn.walk(answers).on_payload(skipped);
        advance(cursor, conn, skipped, false);
        return GO_ON;
    }
    let room = conn.room(answers);
    // A header that lies whole is taken whole, any other byte by byte: the verifier follows each way.
    let whole = walk.is_before_head() && cursor.here >= HEAD_LEN && room >= HEAD_LEN;
    let taken = if whole {
        HEAD_LEN
    } else if walk.is_in_head() {
        1
    } else {
        smaller(smaller(kept, cursor.here), STEP_CAP)
    };
    if room < taken {
        send_up(cursor, conn);
        return GO_ON;
    }
    let at = conn.record.request_len + conn.record.answer_len;
    if copy_flat(conn, at, cursor.start, taken as u64).is_none() {
        return STOP;
    }
    let walk = conn.walk(answers);
    let data_kept = if answers {
        ANSWER_DATA_KEPT
    } else {
        REQUEST_DATA_KEPT
    };
    if whole {
        let Some(start) = read::<u32>(cursor.start) else {
            return STOP;
        };
        walk.on_whole_head(u32::from_be(start), data_kept);
    } else if walk.is_in_head() {
        let Some(byte) = read::<u8>(cursor.start) else {
            return STOP;
        };
        walk.on_head(byte, data_kept);
    } else {
        walk.on_payload(taken);
    }
    advance(cursor, conn, taken, true);
    GO_ON
}

#[inline(always)]
fn next_vector(cursor: &mut Cursor) -> i64 {
    if cursor.vectors == 0 {
        return STOP;
    }
    let Some(vector) = read::<Vector>(cursor.next) else {
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
fn advance(cursor: &mut Cursor, conn: &mut Conn, bytes: u32, carried: bool) {
    cursor.start += bytes as u64;
    cursor.here = cursor.here.saturating_sub(bytes);
    cursor.left = cursor.left.saturating_sub(bytes);
    conn.on_walked(cursor.answers != 0, bytes, carried);
}

/// Sends the record up that is full, and begins one that goes on with the same transfer.
#[inline(always)]
fn send_up(cursor: &mut Cursor, conn: &mut Conn) {
    if cursor.answers == 0 {
        maps::emit(conn, kind::READ, cursor.now_ns);
        conn.on_split();
    } else {
        maps::emit(conn, kind::PROGRESS, cursor.now_ns);
    }
}

#[inline(always)]
fn smaller(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}
