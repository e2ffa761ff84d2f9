//! Copies from a transfer the headers of TLS records, and the two hellos.
//!
//! A walk of its own: in programs without loops, the verifier of Linux 6.1 follows one over both frames and records for
//! minutes. `tls_records` says which bytes are copied.
//! Does not depend on: hooks, what records mean.

use core::ffi::c_void;

use inferprobe_ebpf::{
    conn::Conn,
    http2_frames::{DataKept, RECORD_HEAD_LEN},
};

use crate::{
    backend::Backend,
    bounded_loop::{GO_ON, STOP, Step, bounded_loop},
    copying::{advance, emit_full, next_vector, smaller},
    user_buffer::{copy_flat, read},
};

/// Most steps of one transfer. Each handles the rest of a record and the next one's header, or a vector.
const STEPS: u32 = 8192;
/// Most steps in programs for which the kernel runs no loops. A read of 256 KiB contains 17 records.
const FEW_STEPS: u32 = 24;
/// Most bytes that one step copies.
const STEP_CAP: u32 = 1024;
/// Bytes of a record's header.
const HEAD_LEN: u32 = RECORD_HEAD_LEN as u32;

/// Walks over the transfer that the buffer cursor of `conn` describes, as far as the steps go: if bytes are left, where
/// the next record begins is unknown.
#[inline(always)]
pub(crate) fn walk<B: Backend, const RESPONSES: bool>(conn: &mut Conn) -> &mut Conn {
    conn.frames(RESPONSES).on_transfer();
    let mut state: *mut Conn = conn;
    let step: Step = if RESPONSES {
        response_step
    } else {
        request_step
    };
    // SAFETY: each step expects a pointer to a connection, which outlives the loop.
    unsafe { bounded_loop::<B>(STEPS, FEW_STEPS, step, (&raw mut state).cast()) };
    // SAFETY: the map value that `conn` was.
    let conn = unsafe { &mut *state };
    if conn.cursors.buffer.left > 0 {
        conn.frames(RESPONSES).lose();
    }
    conn
}

/// One step of a read.
unsafe extern "C" fn request_step(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: `bounded_loop` passes what `walk` gave it, and that points to a map value.
    step::<false>(unsafe { &mut **state.cast::<*mut Conn>() })
}

/// One step of a write.
unsafe extern "C" fn response_step(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: as in `request_step`.
    step::<true>(unsafe { &mut **state.cast::<*mut Conn>() })
}

/// One step: begins a vector, or skips what is left of a record and copies the next bytes.
#[inline(always)]
fn step<const RESPONSES: bool>(conn: &mut Conn) -> i64 {
    if conn.cursors.buffer.left == 0 {
        return STOP;
    }
    if conn.cursors.buffer.here == 0 {
        return next_vector(&mut conn.cursors.buffer);
    }
    if conn.frames(RESPONSES).keeps() == 0 {
        let skipped = smaller(conn.frames(RESPONSES).skips(), conn.cursors.buffer.here);
        conn.frames(RESPONSES).on_payload(skipped);
        advance::<RESPONSES>(conn, skipped, false);
        if conn.cursors.buffer.here == 0 {
            return GO_ON;
        }
    }
    copy_next::<RESPONSES>(conn)
}

/// Copies bytes of a header, or of a hello.
#[inline(always)]
fn copy_next<const RESPONSES: bool>(conn: &mut Conn) -> i64 {
    let frames = *conn.frames(RESPONSES);
    let here = conn.cursors.buffer.here;
    let whole = frames.is_before_head() && here >= HEAD_LEN;
    let copied = if whole {
        HEAD_LEN
    } else if frames.is_in_head() {
        // One that two transfers or vectors share.
        1
    } else {
        smaller(smaller(frames.keeps(), here), STEP_CAP)
    };
    if conn.room(RESPONSES) < copied {
        emit_full::<RESPONSES>(conn);
        return GO_ON;
    }
    let from = conn.cursors.buffer.start;
    let at = conn.record.request_len + conn.record.response_len;
    if copy_flat(conn, at, from, copied as u64).is_none() {
        return STOP;
    }
    if !frames.is_in_head() {
        conn.frames(RESPONSES).on_payload(copied);
    } else {
        let Some(kind) = read::<u8>(from) else {
            return STOP;
        };
        if whole {
            let Some(rest) = read::<u32>(from + 1) else {
                return STOP;
            };
            conn.frames(RESPONSES)
                .on_record_head(kind, u32::from_be(rest));
        } else {
            conn.frames(RESPONSES).on_head(kind, DataKept::RESPONSES);
        }
    }
    advance::<RESPONSES>(conn, copied, true);
    GO_ON
}
