//! Finds where an HTTP/1 connection continues as HTTP/2: after the head of a `101 Switching Protocols`.
//!
//! Works on bytes that were already copied. It searches them byte by byte: in programs without loops, the verifier of
//! Linux 6.1 follows the steps of `head_end` for minutes. A switch to any other protocol changes nothing.
//! Does not depend on: hooks, maps, user memory.

use core::{ffi::c_void, mem::offset_of};

use inferprobe_ebpf::{
    abi::{PAYLOAD_CAP, RESPONSE_HEAD_CAP},
    conn::Conn,
    http2_frames::FrameCursor,
    sniff::{FRAME_HEAD_LEN, FrameHead, PEEK},
};

use crate::{
    backend::Backend,
    bounded_loop::{GO_ON, STOP, bounded_loop},
    verifier::{forget, opaque},
};

/// The end of a head.
const BLANK_LINE: u32 = u32::from_be_bytes(*b"\r\n\r\n");
/// Position of the status in `HTTP/1.1 101`.
const STATUS_AT: u32 = 9;

/// State of the search for a head's end.
#[repr(C)]
struct Search {
    conn: *mut Conn,
    /// Where in the payload the head begins.
    at: u32,
    /// Bytes that were searched.
    searched: u32,
    /// The latest four of them, the newest in the low byte.
    latest: u32,
    reserved: u32,
}

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
    let mut search = Search {
        conn,
        at,
        searched: 0,
        latest: 0,
        reserved: 0,
    };
    // SAFETY: `step` expects a search, which outlives the loop.
    unsafe {
        bounded_loop::<B>(
            RESPONSE_HEAD_CAP as u32,
            RESPONSE_HEAD_CAP as u32,
            step,
            (&raw mut search).cast(),
        );
    }
    if search.latest != BLANK_LINE || search.searched > copied {
        return false;
    }
    conn.h2.duplex = 1;
    if search.searched == bytes {
        conn.h2.switching = 1;
        return false;
    }
    if search.searched + FRAME_HEAD_LEN as u32 > copied {
        return false;
    }
    let start = at + search.searched;
    let mut first = [0; PEEK];
    let mut index = 0;
    while index < PEEK {
        first[index] = byte(conn, start + index as u32);
        index += 1;
    }
    let head = FrameHead::new(first, byte(conn, start + PEEK as u32));
    if head.is_first_settings() {
        conn.cursors.responses = FrameCursor::with_frames_after(search.searched);
        return true;
    }
    false
}

/// One step: searches the next byte.
unsafe extern "C" fn step(_index: u32, search: *mut c_void) -> i64 {
    // SAFETY: `bounded_loop` passes what `switches` gave it.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the map value that `switches` was given.
    let conn = unsafe { &mut *search.conn };
    search.latest = search.latest << 8 | byte(conn, search.at + search.searched) as u32;
    search.searched += 1;
    if search.latest == BLANK_LINE {
        STOP
    } else {
        GO_ON
    }
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
