//! Reports the bytes of a TCP connection that no hook handled, by its positions.
//!
//! Each read and each write compares them with what was handled. These are calls of their own, so that the verifier follows
//! the rest of a program once, whatever they find.
//! Does not depend on: hooks, what the bytes mean.

use inferprobe_ebpf::{
    abi::mode,
    conn::{Conn, phase},
    unobserved::Unobserved,
};

use crate::{backend::Backend, clock::now_ns, maps::records, sock::Sock};

/// Reports what no hook handled before a read of `bytes`, which left the read position of a TCP connection at `position`.
#[inline(never)]
pub(crate) fn before_read<B: Backend>(conn: &mut Conn, sk: Sock<B>, position: u32, bytes: u32) {
    let mut unobserved = Unobserved {
        read: conn.read_before(position.wrapping_sub(bytes)),
        written: 0,
    };
    if let Some(position) = conn.moved_on(|| sk.write_position()) {
        unobserved.written = conn.on_written(position, 0);
    } else if conn.progress.positioned == 0
        && let Some(position) = sk.write_position()
    {
        conn.set_written(position);
    }
    if unobserved.is_none() {
        return;
    }
    if conn.progress.phase == phase::IDLE && conn.record.mode != mode::STREAMS {
        // They may answer what was read.
        unobserved.written += conn.record.written_bytes as i32;
    }
    report(conn, sk, unobserved);
}

/// Reports what no hook handled before a write of `bytes`. On HTTP/2, whose responses have their own state, it only notes what
/// there is to report.
///
/// After the server agreed to another protocol, as in HTTP/2, another thread may be about to handle a read.
#[inline(never)]
pub(crate) fn before_write<B: Backend>(conn: &mut Conn, sk: Sock<B>, bytes: u32) {
    // Only TCP has positions.
    if conn.queue.positioned == 0 || conn.lock.closed != 0 {
        return;
    }
    let Some((read, written)) = sk.transferred() else {
        return;
    };
    let mut unobserved = Unobserved {
        read: 0,
        written: conn.on_written(written, bytes),
    };
    if conn.progress.phase == phase::IDLE {
        // They are reported with the others that answer no known request.
        conn.record.written_bytes = conn
            .record
            .written_bytes
            .wrapping_add_signed(unobserved.written as i64);
        return;
    }
    if conn.record.mode == mode::STREAMS {
        conn.progress.unobserved = unobserved.written;
        return;
    }
    if conn.h2.duplex == 0 {
        unobserved.read = conn.read_before(read);
        if unobserved.read != 0 {
            conn.queue.consumed = read;
        }
    }
    if !unobserved.is_none() {
        report(conn, sk, unobserved);
    }
}

/// Reports bytes that no hook handled, unless the positions count something else.
#[inline(never)]
pub(crate) fn report<B: Backend>(conn: &mut Conn, sk: Sock<B>, mut bytes: Unobserved) {
    // The peer's FIN counts as the last byte, once it was read.
    if bytes.read > 0
        && !sk.is_established()
        && let Some((position, end)) = sk.tcp_positions()
        && position == end
    {
        bytes.read -= 1;
    }
    // TLS in the kernel: a read returns fewer bytes than it takes out of the queue.
    if bytes.is_none() || sk.has_upper_layer() {
        return;
    }
    records::emit_unobserved(conn, bytes, now_ns());
}
