//! Copies a transfer piece by piece: the parts of HTTP/2 frames that the agent needs, and reads that do not fit one
//! record.
//!
//! `http2_frames` says which bytes are copied and which are skipped. A transfer may contain thousands of frames, or one
//! of megabytes, so the work is done in a bounded loop. The records of TLS are left to `tls_copy`.
//! Does not depend on: hooks, what frames mean.

use core::ffi::c_void;

use inferprobe_ebpf::{
    abi::{DropReason, mode},
    conn::{BufferCursor, Conn},
    http2_frames::{DataKept, FrameCursor},
    segment::{READ_END_CAP, WRITE_END_CAP},
    sniff::FRAME_HEAD_LEN,
};

use crate::{
    backend::Backend,
    bounded_loop::{GO_ON, STOP, Step, bounded_loop},
    copying::{advance, emit_full, next_vector, smaller},
    globals::copied_bytes,
    maps::{drops, records},
    tls_copy,
    user_buffer::{Bytes, copy_flat, read},
};

/// Most steps of one transfer. Each handles a frame's header, a payload, or a vector. Bytes after the last step are not
/// copied, and the agent notices that by their count.
const STEPS: u32 = 8192;
/// Most steps in programs for which the kernel runs no loops: as many as the verifier follows.
const FEW_STEPS: u32 = 32;
/// As [`FEW_STEPS`], for reads, of which uvloop makes some of 256,000 bytes.
const FEW_READ_STEPS: u32 = 64;
/// Most bytes that one step copies into the connection's record.
const STEP_CAP: u32 = 1024;
/// Fewest bytes that are copied straight into the ring.
const PIECE_LEAST: u32 = 2048;
/// Bytes of a frame's header.
const HEAD_LEN: u32 = FRAME_HEAD_LEN as u32;

/// Direction of a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
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
    let end = if conn.record.mode != mode::MESSAGES {
        0
    } else if side == Side::Requests {
        READ_END_CAP
    } else {
        WRITE_END_CAP
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
        end,
    };
    let conn = match side {
        Side::Requests if conn.record.mode == mode::RECORDS => tls_copy::walk::<B, false>(conn),
        Side::Responses if conn.record.mode == mode::RECORDS => tls_copy::walk::<B, true>(conn),
        Side::Requests => walk::<B>(conn, FEW_READ_STEPS, request_step),
        Side::Responses => walk::<B>(conn, FEW_STEPS, response_step),
    };
    let lost = conn.cursors.buffer.left;
    if lost > 0 {
        conn.on_copied(side == Side::Responses, lost, false);
    }
    if side == Side::Responses {
        if conn.record.mode == mode::MESSAGES {
            // HTTP/2 may begin later on the connection.
            conn.cursors.responses = FrameCursor::START;
            conn.record.tail = match user {
                Some(user) if B::HAS_LOOPS && user.is_scattered() => conn.copied_tail(),
                Some(user) => user.tail(conn),
                None => 0,
            };
        }
        let record_kind = conn.next_piece();
        records::emit(conn, record_kind, now_ns);
    }
}

/// Walks over the transfer that the buffer cursor of `conn` describes: `few` steps if the kernel runs no loops.
#[inline(always)]
fn walk<B: Backend>(conn: &mut Conn, few: u32, step: Step) -> &mut Conn {
    let mut state: *mut Conn = conn;
    // SAFETY: each step expects a pointer to a connection, which outlives the loop.
    unsafe { bounded_loop::<B>(STEPS, few, step, (&raw mut state).cast()) };
    // SAFETY: the map value that `conn` was.
    unsafe { &mut *state }
}

/// One step of a read.
unsafe extern "C" fn request_step(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: `bounded_loop` passes what `copy_transfer` gave it, and that points to a map value.
    step::<false>(unsafe { &mut **state.cast::<*mut Conn>() })
}

/// One step of a write.
unsafe extern "C" fn response_step(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: as in `request_step`.
    step::<true>(unsafe { &mut **state.cast::<*mut Conn>() })
}

/// One step: begins a vector, or copies or skips bytes.
///
/// The direction is a constant, so that the verifier follows only what it needs.
#[inline(always)]
fn step<const RESPONSES: bool>(conn: &mut Conn) -> i64 {
    if conn.cursors.buffer.left == 0 {
        return STOP;
    }
    if conn.cursors.buffer.here == 0 {
        return next_vector(&mut conn.cursors.buffer);
    }
    let frames = *conn.frames(RESPONSES);
    let kept = frames.keeps();
    if kept == 0 {
        let mut skipped = smaller(frames.skips(), conn.cursors.buffer.here);
        if conn.cursors.buffer.end > 0 {
            if conn.cursors.buffer.left <= conn.cursors.buffer.end {
                emit_full::<RESPONSES>(conn);
                *conn.frames(RESPONSES) = FrameCursor::copying(conn.cursors.buffer.left);
                conn.cursors.buffer.end = 0;
                return GO_ON;
            }
            skipped = smaller(skipped, conn.cursors.buffer.left - conn.cursors.buffer.end);
        }
        conn.frames(RESPONSES).on_payload(skipped);
        advance::<RESPONSES>(conn, skipped, false);
        return GO_ON;
    }
    let piece = smaller(kept, conn.cursors.buffer.here);
    if piece >= PIECE_LEAST && !RESPONSES {
        let has_room = records::has_room_for_bodies();
        if has_room || conn.may_drop_body(copied_bytes()) {
            return copy_piece(conn, piece, has_room);
        }
    }
    let room = conn.room(RESPONSES);
    // A header within one buffer is copied whole, any other one byte by byte: the verifier follows both ways.
    let whole = frames.is_before_head() && conn.cursors.buffer.here >= HEAD_LEN && room >= HEAD_LEN;
    let copied = if whole {
        HEAD_LEN
    } else if frames.is_in_head() {
        1
    } else {
        smaller(piece, STEP_CAP)
    };
    if room < copied {
        emit_full::<RESPONSES>(conn);
        return GO_ON;
    }
    let at = conn.record.request_len + conn.record.response_len;
    if copy_flat(conn, at, conn.cursors.buffer.start, copied as u64).is_none() {
        return STOP;
    }
    let from = conn.cursors.buffer.start;
    let frames = conn.frames(RESPONSES);
    let data = if RESPONSES {
        DataKept::RESPONSES
    } else {
        DataKept::requests(copied_bytes())
    };
    if whole {
        let Some(start) = read::<u32>(from) else {
            return STOP;
        };
        frames.on_whole_head(u32::from_be(start), data);
    } else if frames.is_in_head() {
        let Some(byte) = read::<u8>(from) else {
            return STOP;
        };
        frames.on_head(byte, data);
    } else {
        if frames.is_before_body() {
            let Some(byte) = read::<u8>(from) else {
                return STOP;
            };
            frames.on_first(byte, data);
        }
        frames.on_payload(copied);
    }
    advance::<RESPONSES>(conn, copied, true);
    GO_ON
}

/// Copies the next `bytes` of a request, or as many as fit, into a record of their own. If the ring does not have room for
/// bodies, it drops the rest of the body.
#[inline(never)]
fn copy_piece(conn: &mut Conn, bytes: u32, has_room: bool) -> i64 {
    if conn.record.request_len > 0 {
        emit_full::<false>(conn);
        return GO_ON;
    }
    if !has_room {
        conn.drop_body();
        drops::count_of(
            DropReason::BodyDropped,
            conn.record.tgid,
            conn.record.local_port,
        );
        return GO_ON;
    }
    let copied = records::emit_piece(conn, bytes);
    if copied == 0 {
        return STOP;
    }
    conn.on_record_full();
    conn.cursors.requests.on_payload(copied);
    conn.cursors.buffer.advance(copied);
    GO_ON
}
