//! Copies a transfer piece by piece: the parts of HTTP/2 frames that the agent needs, and reads that do not fit one
//! record.
//!
//! `http2_frames` says which bytes are copied and which are skipped. A transfer may contain thousands of frames, or one
//! of megabytes, so the work is done in a bounded loop.
//! Does not depend on: hooks, what frames mean.

use core::ffi::c_void;

use inferprobe_ebpf::{
    abi::{kind, mode},
    conn::{BufferCursor, Conn},
    http2_frames::{FrameCursor, REQUEST_DATA_KEPT, RESPONSE_DATA_KEPT},
    segment::READ_END_CAP,
    sniff::FRAME_HEAD_LEN,
};

use crate::{
    backend::Backend,
    bounded_loop::{GO_ON, STOP, bounded_loop},
    maps::records,
    user_buffer::{Bytes, Vector, copy_flat, read, read_vector},
};

/// Most steps of one transfer. Each handles a frame's header, a payload, or a vector. Bytes after the last step are not
/// copied, and the agent notices that by their count.
const STEPS: u32 = 8192;
/// Most steps in programs for which the kernel runs no loops: as many as the verifier follows.
const FEW_STEPS: u32 = 32;
/// Most bytes that one step copies.
const STEP_CAP: u32 = 512;
/// Bytes of a frame's header.
const HEAD_LEN: u32 = FRAME_HEAD_LEN as u32;

/// Direction of a transfer.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// From the client.
    Requests,
    /// From the server.
    Responses,
}

/// Copies from the `bytes` bytes of a transfer in `user`, and emits a record whenever one is full. The last record of
/// requests stays in `conn`; that of responses is emitted.
#[inline(always)]
pub(crate) fn copy_transfer<B: Backend>(
    conn: &mut Conn,
    user: Option<Bytes>,
    bytes: u32,
    side: Side,
    now_ns: u64,
) {
    let responses = match side {
        Side::Requests => 0,
        Side::Responses => 1,
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
    conn.cursors.buffer = BufferCursor {
        start,
        next,
        now_ns,
        here,
        vectors,
        left: bytes,
        responses,
        end,
        reserved: 0,
    };
    let mut state: *mut Conn = conn;
    // SAFETY: `step` expects a pointer to a connection, which outlives the loop.
    unsafe { bounded_loop::<B>(STEPS, FEW_STEPS, step, (&raw mut state).cast()) };
    // SAFETY: the map value that `conn` was.
    let conn = unsafe { &mut *state };
    let lost = conn.cursors.buffer.left;
    if lost > 0 {
        conn.on_copied(responses != 0, lost, false);
    }
    if responses != 0 {
        records::emit(conn, kind::PROGRESS, now_ns);
    }
}

/// One step: begins a vector, or copies or skips bytes.
unsafe extern "C" fn step(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: `bounded_loop` passes what `copy_transfer` gave it, and that points to a map value.
    let conn = unsafe { &mut **state.cast::<*mut Conn>() };
    if conn.cursors.buffer.left == 0 {
        return STOP;
    }
    if conn.cursors.buffer.here == 0 {
        return next_vector(&mut conn.cursors.buffer);
    }
    let responses = conn.cursors.buffer.responses != 0;
    let frames = *conn.frames(responses);
    let kept = frames.keeps();
    if kept == 0 {
        let mut skipped = smaller(frames.skips(), conn.cursors.buffer.here);
        if conn.cursors.buffer.end > 0 {
            if conn.cursors.buffer.left <= conn.cursors.buffer.end {
                emit_full(conn);
                conn.cursors.requests = FrameCursor::copying(conn.cursors.buffer.left);
                conn.cursors.buffer.end = 0;
                return GO_ON;
            }
            skipped = smaller(skipped, conn.cursors.buffer.left - conn.cursors.buffer.end);
        }
        conn.frames(responses).on_payload(skipped);
        advance(conn, skipped, false);
        return GO_ON;
    }
    let room = conn.room(responses);
    // A header within one buffer is copied whole, any other one byte by byte: the verifier follows both ways.
    let whole = frames.is_before_head() && conn.cursors.buffer.here >= HEAD_LEN && room >= HEAD_LEN;
    let copied = if whole {
        HEAD_LEN
    } else if frames.is_in_head() {
        1
    } else {
        smaller(smaller(kept, conn.cursors.buffer.here), STEP_CAP)
    };
    if room < copied {
        emit_full(conn);
        return GO_ON;
    }
    let at = conn.record.request_len + conn.record.response_len;
    if copy_flat(conn, at, conn.cursors.buffer.start, copied as u64).is_none() {
        return STOP;
    }
    let from = conn.cursors.buffer.start;
    let frames = conn.frames(responses);
    let data_kept = if responses {
        RESPONSE_DATA_KEPT
    } else {
        REQUEST_DATA_KEPT
    };
    if whole {
        let Some(start) = read::<u32>(from) else {
            return STOP;
        };
        frames.on_whole_head(u32::from_be(start), data_kept);
    } else if frames.is_in_head() {
        let Some(byte) = read::<u8>(from) else {
            return STOP;
        };
        frames.on_head(byte, data_kept);
    } else {
        frames.on_payload(copied);
    }
    advance(conn, copied, true);
    GO_ON
}

/// Begins the next vector.
#[inline(always)]
fn next_vector(cursor: &mut BufferCursor) -> i64 {
    if cursor.vectors == 0 {
        return STOP;
    }
    let Some(vector) = read_vector(cursor.next) else {
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

/// Advances the cursor by `bytes` bytes, which were copied or skipped.
#[inline(always)]
fn advance(conn: &mut Conn, bytes: u32, copied: bool) {
    conn.cursors.buffer.start += bytes as u64;
    conn.cursors.buffer.here = conn.cursors.buffer.here.saturating_sub(bytes);
    conn.cursors.buffer.left = conn.cursors.buffer.left.saturating_sub(bytes);
    conn.on_copied(conn.cursors.buffer.responses != 0, bytes, copied);
}

/// Emits the full record, and begins one that continues the same transfer.
#[inline(always)]
fn emit_full(conn: &mut Conn) {
    if conn.cursors.buffer.responses == 0 {
        records::emit(conn, kind::READ, conn.cursors.buffer.now_ns);
        conn.on_record_full();
    } else {
        records::emit(conn, kind::PROGRESS, conn.cursors.buffer.now_ns);
    }
}

#[inline(always)]
fn smaller(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}
