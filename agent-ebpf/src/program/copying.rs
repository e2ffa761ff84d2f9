//! What the walks over a transfer share: its vectors, what was copied or skipped, and records that are full.
//!
//! Does not depend on: hooks, which bytes are copied.

use inferprobe_ebpf::{
    abi::kind,
    conn::{BufferCursor, Conn},
};

use crate::{
    bounded_loop::{GO_ON, STOP},
    maps::records,
    user_buffer::{Vector, read_vector},
};

/// Begins the next vector.
#[inline(always)]
pub(crate) fn next_vector(cursor: &mut BufferCursor) -> i64 {
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
pub(crate) fn advance<const RESPONSES: bool>(conn: &mut Conn, bytes: u32, copied: bool) {
    conn.cursors.buffer.advance(bytes);
    conn.on_copied(RESPONSES, bytes, copied);
}

/// Emits the full record, and begins one that continues the same transfer.
#[inline(always)]
pub(crate) fn emit_full<const RESPONSES: bool>(conn: &mut Conn) {
    if !RESPONSES {
        records::emit(conn, kind::READ, conn.cursors.buffer.now_ns);
        conn.on_record_full();
    } else {
        let record_kind = conn.next_piece();
        records::emit(conn, record_kind, conn.cursors.buffer.now_ns);
    }
}

#[inline(always)]
pub(crate) fn smaller(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}
