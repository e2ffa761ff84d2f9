//! A call on a socket whose entry and return are seen apart: by kprobes, or as a system call.

use inferprobe_ebpf::{abi::DropReason, duplicate::Turn};

use crate::{
    backend::{Flavour, Plain},
    maps::{
        self,
        calls::{self, Call, direction},
    },
    probes::{recv::try_sock_recv_length, send::try_sock_send_length},
    sock::{Buffer, Family, Sock, now_ns, reads_payload},
};

/// Takes in that the running thread begins a call on `sk`, whose bytes lie where `buffer` says.
#[inline(always)]
pub(crate) fn begin(
    sk: Sock<Plain>,
    direction: u64,
    flags: i32,
    buffer: impl FnOnce() -> Option<Buffer>,
) -> Result<(), DropReason> {
    if !is_of_interest(sk) {
        return Ok(());
    }
    let mut call = Call::new(sk.address(), now_ns(), direction);
    call.flags = flags;
    if reads_payload()
        && let Some(buffer) = buffer()
    {
        call.set_buffer(buffer);
    }
    calls::begin(&call)
}

/// Takes in that the running thread's call returned `ret`.
#[inline(always)]
pub(crate) fn ended(direction: u64, ret: i32) -> Result<(), DropReason> {
    let Some(call) = calls::current() else {
        return Ok(());
    };
    if call.direction != direction {
        return Ok(());
    }
    let sk = Sock::<Plain>::new(call.sk as *mut _);
    let outcome = if direction == direction::RECV {
        try_sock_recv_length(Turn::First, sk, ret, call.flags)
    } else {
        note_send_start(sk, call.start_ns);
        try_sock_send_length(Turn::First, sk, ret)
    };
    calls::end();
    outcome
}

#[inline(always)]
fn note_send_start(sk: Sock<Plain>, start_ns: u64) {
    let conn = Plain::conn(sk);
    if conn.is_null() {
        return;
    }
    // SAFETY: a map value; the call on the socket is not over.
    unsafe { &mut *conn }.on_send_start(|| start_ns);
}

/// Whether the socket is watched, or may come to be by what is read from it.
#[inline(always)]
pub(crate) fn is_of_interest(sk: Sock<Plain>) -> bool {
    if maps::watches(maps::current().0) || !Plain::conn(sk).is_null() {
        return true;
    }
    sk.family() == Some(Family::Inet)
        && (maps::watches_port(sk.local_port()) || Plain::is_marked(sk))
}
