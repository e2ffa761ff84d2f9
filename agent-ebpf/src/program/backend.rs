//! Adds to `Access` where a program keeps the state of a socket, and how it finds the bytes of a transfer.
//!
//! Three implementations: in socket storage, for BTF-typed programs; in hash maps by address, for raw ones; and in such
//! maps for programs of both types at once. Every hook's body is written once, over `Backend`.
//! Does not depend on: hooks, when a record is emitted.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_task_pt_regs};
use inferprobe_ebpf::{abi::DropReason, conn::Conn};

use crate::{
    access::{Access, Btf, Raw},
    globals::reads_payload,
    maps::{
        calls,
        sockets::{self, MarkKey},
        watched,
    },
    sock::{Family, Sock},
    syscall, task,
    user_buffer::Bytes,
};

/// Where a program keeps the state of sockets, and finds the bytes of a transfer.
pub(crate) trait Backend: Access {
    /// Whether the kernel reports every arrival: a byte without an entry in the arrival log then arrived just now.
    const REPORTS_EVERY_ARRIVAL: bool;
    /// Whether state is kept by the socket's address, so that it must be removed when the socket is closed.
    const KEEPS_BY_ADDRESS: bool;
    /// Whether the kernel runs loops for the programs (`bpf_loop`, 5.17).
    const HAS_LOOPS: bool;

    /// Returns a number that no other socket has.
    fn cookie(sk: Sock<Self>) -> u64;

    /// Returns the state of a watched socket; null for any other, and before its first bytes.
    fn conn(sk: Sock<Self>) -> *mut Conn;

    /// Returns the state of a socket; makes it if there is none.
    fn conn_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason>;

    /// Returns the state of the responses of an HTTP/2 connection; makes it if there is none.
    fn responses_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason>;

    /// Removes the state of a socket that is closed.
    fn remove(sk: Sock<Self>);

    /// Removes the state of a connection that is open.
    fn release(sk: Sock<Self>);

    /// Marks a listener; its future connections inherit the mark.
    fn mark(sk: Sock<Self>) -> Result<(), DropReason>;

    /// Removes the mark that an earlier listener may have left at this address.
    fn unmark(sk: Sock<Self>);

    /// Copies the listener's mark to a connection that was just established. If its port is a watched server's, but not the
    /// mark, the connection becomes a candidate.
    fn inherit_mark(sk: Sock<Self>) -> Result<(), DropReason>;

    /// Whether the socket is a marked listener, or was accepted by one.
    fn is_marked(sk: Sock<Self>) -> bool;

    /// Whether a marked connection is watched only if a watched process reads from it.
    fn is_candidate(_sk: Sock<Self>) -> bool {
        false
    }

    /// Returns the `total` bytes that the running call has transferred; `None` if their address is unknown.
    fn transfer(total: u32) -> Option<Bytes>;
}

/// Returns the `total` bytes that the running call has transferred; `None` if their address is unknown, or if the agent
/// wants no payload.
#[inline(always)]
pub(crate) fn of_current<B: Backend>(total: u32) -> Option<Bytes> {
    if reads_payload() {
        B::transfer(total)
    } else {
        None
    }
}

/// Whether the running process is watched.
#[inline(always)]
pub(crate) fn runs_watched_process<B: Backend>() -> bool {
    let tgid = task::current_tgid();
    // The programs with the least room in the verifier keep state by address: they look only once.
    (B::KEEPS_BY_ADDRESS || watched::may_have_process(tgid)) && watched::has_process(tgid)
}

/// Marks a watched listener, and notes that it serves its port.
#[inline(always)]
pub(crate) fn mark_listener<B: Backend>(sk: Sock<B>) -> Result<(), DropReason> {
    B::mark(sk)?;
    if sk.family() == Some(Family::Inet) {
        watched::note_served_port(sk.local_port());
    }
    Ok(())
}

/// State is in socket storage, which the kernel frees with the socket.
impl Backend for Btf {
    const REPORTS_EVERY_ARRIVAL: bool = true;
    const KEEPS_BY_ADDRESS: bool = false;
    const HAS_LOOPS: bool = true;

    #[inline(always)]
    fn cookie(sk: Sock<Self>) -> u64 {
        // SAFETY: the typed socket is a valid context for the helper (tracing programs, 5.12).
        unsafe { bpf_get_socket_cookie(sk.as_ptr()) }
    }

    #[inline(always)]
    fn conn(sk: Sock<Self>) -> *mut Conn {
        sockets::CONNS.get(sk)
    }

    #[inline(always)]
    fn conn_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason> {
        sockets::CONNS.get_or_insert(sk)
    }

    #[inline(always)]
    fn responses_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason> {
        sockets::ANSWERS.get_or_insert(sk)
    }

    #[inline(always)]
    fn remove(_sk: Sock<Self>) {}

    #[inline(always)]
    fn release(sk: Sock<Self>) {
        sockets::CONNS.delete(sk);
        sockets::ANSWERS.delete(sk);
    }

    #[inline(always)]
    fn mark(sk: Sock<Self>) -> Result<(), DropReason> {
        sockets::MARKS.get_or_insert(sk).map(drop)
    }

    #[inline(always)]
    fn unmark(_sk: Sock<Self>) {}

    #[inline(always)]
    fn inherit_mark(sk: Sock<Self>) -> Result<(), DropReason> {
        // The kernel copied the mark, before the connection's first byte. There is none to copy if the listener was open
        // before the watch and no process has it as a file, as the one inside an MPTCP listener, or if another process
        // accepts connections and passes them on.
        let port = sk.local_port();
        if watched::serves_port(port) || watched::has_port(port) {
            sockets::mark_candidate(sk)
        } else {
            Ok(())
        }
    }

    #[inline(always)]
    fn is_marked(sk: Sock<Self>) -> bool {
        !sockets::MARKS.get(sk).is_null()
    }

    #[inline(always)]
    fn is_candidate(sk: Sock<Self>) -> bool {
        sockets::is_candidate(sk)
    }

    #[inline(always)]
    fn transfer(total: u32) -> Option<Bytes> {
        of_registers(total)
    }
}

/// Returns the `total` bytes that the running system call has transferred, by its registers.
#[inline(always)]
fn of_registers(total: u32) -> Option<Bytes> {
    // SAFETY: both helpers return typed, non-null pointers in tracing programs and in those of perf events (5.11, 5.15).
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) };
    Bytes::of(syscall::buffer((regs as *const c_void).cast())?, total)
}

/// State is in hash maps by the socket's address, and the hooks remove it when the socket is closed.
impl Backend for Raw {
    // The kernel skips a kprobe that fires while another one runs on the same CPU.
    const REPORTS_EVERY_ARRIVAL: bool = false;
    const KEEPS_BY_ADDRESS: bool = true;
    const HAS_LOOPS: bool = false;

    #[inline(always)]
    fn cookie(_sk: Sock<Self>) -> u64 {
        sockets::next_cookie()
    }

    #[inline(always)]
    fn conn(sk: Sock<Self>) -> *mut Conn {
        sockets::conn_at(sk.address())
    }

    #[inline(always)]
    fn conn_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason> {
        sockets::conn_at_or_new(sk.address())
    }

    #[inline(always)]
    fn responses_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason> {
        sockets::responses_at_or_new(sk.address())
    }

    #[inline(always)]
    fn remove(sk: Sock<Self>) {
        sockets::remove_at(sk.address());
    }

    #[inline(always)]
    fn release(sk: Sock<Self>) {
        sockets::remove_at(sk.address());
    }

    #[inline(always)]
    fn mark(sk: Sock<Self>) -> Result<(), DropReason> {
        sockets::mark_at(MarkKey::listener(sk))
    }

    #[inline(always)]
    fn unmark(sk: Sock<Self>) {
        sockets::unmark_at(MarkKey::listener(sk));
    }

    #[inline(always)]
    fn inherit_mark(sk: Sock<Self>) -> Result<(), DropReason> {
        sockets::inherit_mark(sk)
    }

    #[inline(always)]
    fn is_marked(sk: Sock<Self>) -> bool {
        sockets::is_marked_at(MarkKey::of(sk))
    }

    #[inline(always)]
    fn transfer(total: u32) -> Option<Bytes> {
        let call = calls::current()?;
        Bytes::of(call.buffer()?, total)
    }
}

/// State is in hash maps by the socket's address, for programs that read kernel objects by `A`. Programs on perf events
/// and BTF-typed ones then share it.
#[derive(Clone, Copy)]
pub(crate) struct Shared<A>(PhantomData<A>);

impl<A: Access> Access for Shared<A> {
    #[inline(always)]
    unsafe fn field<T: Copy>(object: *const c_void, offset: u32) -> T {
        // SAFETY: the caller's.
        unsafe { A::field(object, offset) }
    }

    #[inline(always)]
    fn as_tcp(sk: *mut c_void, is_tcp: impl FnOnce() -> bool) -> Option<*const c_void> {
        A::as_tcp(sk, is_tcp)
    }

    #[inline(always)]
    fn as_unix(sk: *mut c_void, is_unix: impl FnOnce() -> bool) -> Option<*const c_void> {
        A::as_unix(sk, is_unix)
    }

    #[inline(always)]
    fn current_task() -> *const c_void {
        A::current_task()
    }
}

impl<A: Access> Backend for Shared<A> {
    const REPORTS_EVERY_ARRIVAL: bool = true;
    const KEEPS_BY_ADDRESS: bool = true;
    const HAS_LOOPS: bool = true;

    #[inline(always)]
    fn cookie(_sk: Sock<Self>) -> u64 {
        sockets::next_cookie()
    }

    #[inline(always)]
    fn conn(sk: Sock<Self>) -> *mut Conn {
        sockets::shared_conn_at(sk.address())
    }

    #[inline(always)]
    fn conn_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason> {
        sockets::shared_conn_at_or_new(sk.address())
    }

    #[inline(always)]
    fn responses_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason> {
        sockets::shared_responses_at_or_new(sk.address())
    }

    #[inline(always)]
    fn remove(sk: Sock<Self>) {
        sockets::remove_shared_at(sk.address());
    }

    #[inline(always)]
    fn release(sk: Sock<Self>) {
        sockets::remove_shared_at(sk.address());
    }

    #[inline(always)]
    fn mark(sk: Sock<Self>) -> Result<(), DropReason> {
        sockets::mark_at(MarkKey::listener(sk))
    }

    #[inline(always)]
    fn unmark(sk: Sock<Self>) {
        sockets::unmark_at(MarkKey::listener(sk));
    }

    #[inline(always)]
    fn inherit_mark(sk: Sock<Self>) -> Result<(), DropReason> {
        sockets::inherit_mark(sk)?;
        let port = sk.local_port();
        if watched::serves_port(port) || watched::has_port(port) {
            sockets::mark_candidate_at(MarkKey::at(sk.address()));
        }
        Ok(())
    }

    #[inline(always)]
    fn is_candidate(sk: Sock<Self>) -> bool {
        sockets::is_candidate_at(MarkKey::at(sk.address()))
    }

    #[inline(always)]
    fn is_marked(sk: Sock<Self>) -> bool {
        sockets::is_marked_at(MarkKey::of(sk))
    }

    #[inline(always)]
    fn transfer(total: u32) -> Option<Bytes> {
        of_registers(total)
    }
}
