//! Finds where an HTTP/1 connection continues as HTTP/2: after the head of a `101 Switching Protocols`.
//!
//! Works on bytes that were already copied. A switch to any other protocol changes nothing.
//! Does not depend on: hooks, maps, user memory.

use core::mem::offset_of;

use inferprobe_ebpf::{
    abi::PAYLOAD_CAP,
    conn::Conn,
    http2_frames::FrameCursor,
    sniff::{FRAME_HEAD_LEN, FrameHead, PEEK},
};

use crate::{
    backend::Backend,
    head_end,
    verifier::{forget, opaque},
};

/// Position of the status in `HTTP/1.1 101`.
const STATUS_AT: u32 = 9;

/// Whether the response at `payload[at..]` has the status 101.
#[inline(always)]
pub(crate) fn is_agreed(conn: &mut Conn, at: u16) -> bool {
    let at = at as u32 + STATUS_AT;
    byte(conn, at) == b'1' && byte(conn, at + 1) == b'0' && byte(conn, at + 2) == b'1'
}

/// Whether a write of `bytes` bytes contains a 101 and the beginning of HTTP/2, so that its frames can be followed. The
/// write's first bytes are the response at the end of the payload. If the write ends with the 101, the next transfer
/// decides.
///
/// A call of its own, which hardly any response makes.
#[inline(never)]
pub(crate) fn switches<B: Backend>(conn: &mut Conn, bytes: u32) -> bool {
    let at = forget(conn, conn.record.request_len as u64) as u32;
    let copied = forget(conn, conn.record.response_len as u64) as u32;
    let bytes = forget(conn, bytes as u64) as u32;
    let start = head_end::find::<B>(conn, at as u16, copied as u16);
    if start == head_end::NONE {
        return false;
    }
    conn.h2.duplex = 1;
    let head = start - at;
    if head == bytes {
        conn.h2.switching = 1;
        return false;
    }
    if head + FRAME_HEAD_LEN as u32 > copied {
        return false;
    }
    let mut first = [0; PEEK];
    let mut index = 0;
    while index < PEEK {
        first[index] = byte(conn, start + index as u32);
        index += 1;
    }
    let frame = FrameHead::new(first, byte(conn, start + PEEK as u32));
    if frame.is_first_settings() {
        conn.cursors.responses = FrameCursor::with_frames_after(head);
        return true;
    }
    false
}

/// Returns `payload[at]`.
#[inline(always)]
fn byte(conn: &mut Conn, at: u32) -> u8 {
    let at = opaque(at) & (PAYLOAD_CAP as u32 - 1);
    let conn: *mut Conn = conn;
    // SAFETY: `at` is less than PAYLOAD_CAP.
    unsafe {
        conn.cast::<u8>()
            .add(offset_of!(Conn, payload))
            .add(at as usize)
            .read()
    }
}
