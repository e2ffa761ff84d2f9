//! Notes how long a full send buffer kept the server from writing.
//!
//! Does not depend on: hooks, when a record is due.

use inferprobe_ebpf::{abi::mode, conn::Conn};

use crate::{backend::Backend, sock::Sock};

/// Looks into the send buffer after a write that returned at `now_ns`. A call of its own, so that the verifier follows the
/// rest of a program once, whatever is in it. On HTTP/2, streams share the buffer, and it is not looked into.
#[inline(never)]
pub(crate) fn after_write<B: Backend>(conn: &mut Conn, sk: Sock<B>, now_ns: u64) {
    if conn.record.mode != mode::STREAMS {
        conn.on_send_buffer_after(now_ns, sk.send_buffer(conn.is_unix()));
    }
}
