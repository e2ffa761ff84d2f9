//! A call on a socket whose entry and return are separate hooks: kprobes, or system calls.
//!
//! `kprobe` and `syscall` use it. It keeps the call from its entry to its return, where `recv` and `send` handle it.
//! Does not depend on: how the entry was hooked.

use inferprobe_ebpf::{
    abi::{DropReason, UNKNOWN_US},
    duplicate::Attached,
};

use crate::{
    access::Raw,
    backend::Backend,
    clock::now_ns,
    globals::reads_payload,
    maps::{
        calls::{self, Call, direction},
        watched,
    },
    probes::{recv::try_sock_recv_length, send::try_sock_send_length},
    sock::{Family, Sock},
    task,
    user_buffer::Buffer,
};

/// Records that the running thread begins a call on `sk`, with the buffer that `buffer` returns.
#[inline(always)]
pub(crate) fn begin(
    sk: Sock<Raw>,
    direction: u64,
    flags: i32,
    buffer: impl FnOnce() -> Option<Buffer>,
) -> Result<(), DropReason> {
    if !is_of_interest(sk) {
        return Ok(());
    }
    let mut call = Call::new(sk.address(), now_ns(), direction);
    call.flags = flags;
    if direction == direction::SEND {
        call.set_waits(task::waits::<Raw>());
    }
    if reads_payload()
        && let Some(buffer) = buffer()
    {
        call.set_buffer(buffer);
    }
    calls::begin(&call)
}

/// Handles that the running thread's call returned `ret`.
#[inline(always)]
pub(crate) fn end(direction: u64, ret: i32) -> Result<(), DropReason> {
    let Some(call) = calls::current() else {
        return Ok(());
    };
    if call.direction != direction {
        return Ok(());
    }
    let sk = Sock::<Raw>::new(call.sk as *mut _);
    let outcome = if direction == direction::RECV {
        try_sock_recv_length(Attached::Primary, sk, ret, call.flags)
    } else {
        note_send_start(sk, call);
        try_sock_send_length(Attached::Primary, sk, ret)
    };
    calls::end();
    outcome
}

#[inline(always)]
fn note_send_start(sk: Sock<Raw>, call: &Call) {
    let conn = Raw::conn(sk);
    if conn.is_null() {
        return;
    }
    // SAFETY: a map value; the call on the socket still runs.
    let conn = unsafe { &mut *conn };
    // The programs of calls are too long to look into the send buffer as well, on 6.1.
    conn.record.undrained_us = UNKNOWN_US;
    conn.on_send_start(|| call.start_ns);
    conn.on_writer(task::current_tid(), || call.waits());
}

/// Whether the socket is watched, or may become watched by what is read from it.
#[inline(always)]
pub(crate) fn is_of_interest(sk: Sock<Raw>) -> bool {
    if watched::has_process(task::current_tgid()) || !Raw::conn(sk).is_null() {
        return true;
    }
    sk.family() == Some(Family::Inet) && (watched::has_port(sk.local_port()) || Raw::is_marked(sk))
}
