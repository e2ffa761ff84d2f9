//! The two flavours of program: how each reaches the kernel's objects, a socket's state and the bytes of a transfer.
//!
//! Every hook's work is written once, over these.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skc_to_tcp_sock,
    bpf_skc_to_unix_sock, bpf_task_pt_regs,
};
use inferprobe_ebpf::{abi::DropReason, conn::Conn};

use crate::{
    maps::{
        calls,
        sockets::{self, Keyed},
    },
    sock::{self, Family, Sock},
    user_buffer::Bytes,
};

/// How a program reaches what it works on.
pub(crate) trait Flavour: Copy {
    /// Whether every arrival is seen: a byte that none covers came just now.
    const SEES_EVERY_ARRIVAL: bool;
    /// Whether state is kept by the socket's address, so that it must be given up when the socket is.
    const KEEPS_BY_ADDRESS: bool;
    /// Whether the kernel runs loops for the programs (`bpf_loop`, 5.17).
    const LOOPS: bool;

    /// Reads a `T` at `offset` bytes into a kernel object; zeros where that cannot be read.
    ///
    /// # Safety
    ///
    /// The field at `offset` is a `T`, of which zeros are a value; `object` is typed for the verifier, where that is asked.
    unsafe fn field<T: Copy>(object: *const c_void, offset: u32) -> T;

    /// The socket as a `struct tcp_sock`; `None` if it is none.
    fn tcp(sk: Sock<Self>) -> Option<*const c_void>;

    /// The socket as a `struct unix_sock`; `None` if it is none.
    fn unix(sk: Sock<Self>) -> Option<*const c_void>;

    /// A number that no other socket has.
    fn cookie(sk: Sock<Self>) -> u64;

    /// State of a watched socket; null for any other, and before its first bytes.
    fn conn(sk: Sock<Self>) -> *mut Conn;

    /// State of a socket, made if there was none.
    fn conn_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason>;

    /// State of the answers of an HTTP/2 connection, made if there was none.
    fn answers_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason>;

    /// Forgets the state of a socket that is no more.
    fn forget(sk: Sock<Self>);

    /// Marks a listener, and thereby its connections to come.
    fn mark(sk: Sock<Self>) -> Result<(), DropReason>;

    /// Notes that a listener is not watched, whatever its address meant before.
    fn unmark(sk: Sock<Self>);

    /// Passes a listener's mark on to a connection that was established just now.
    fn inherit_mark(sk: Sock<Self>) -> Result<(), DropReason>;

    /// Whether the socket is a marked listener, or was accepted by one.
    fn is_marked(sk: Sock<Self>) -> bool;

    /// Where the `total` bytes lie that the running call has transferred; `None` when that cannot be known.
    fn transfer(total: u32) -> Option<Bytes>;
}

/// Programs whose arguments the verifier knows by type: typed tracepoints, entries and returns through trampolines,
/// iterators. State lies in socket storage, which the kernel frees with the socket.
#[derive(Clone, Copy)]
pub(crate) struct Typed;

impl Flavour for Typed {
    const SEES_EVERY_ARRIVAL: bool = true;
    const KEEPS_BY_ADDRESS: bool = false;
    const LOOPS: bool = true;

    #[inline(always)]
    unsafe fn field<T: Copy>(object: *const c_void, offset: u32) -> T {
        // SAFETY: the caller's; the verifier refuses the program otherwise.
        unsafe { core::ptr::read_volatile(object.cast::<u8>().add(offset as usize).cast::<T>()) }
    }

    #[inline(always)]
    fn tcp(sk: Sock<Self>) -> Option<*const c_void> {
        // SAFETY: the helper checks the protocol and returns a typed `tcp_sock` or null.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk.as_ptr()) };
        some(tcp.cast())
    }

    #[inline(always)]
    fn unix(sk: Sock<Self>) -> Option<*const c_void> {
        // SAFETY: the helper checks the family and returns a typed `unix_sock` or null (5.16).
        let unix = unsafe { bpf_skc_to_unix_sock(sk.as_ptr()) };
        some(unix.cast())
    }

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
    fn answers_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason> {
        sockets::ANSWERS.get_or_insert(sk)
    }

    #[inline(always)]
    fn forget(_sk: Sock<Self>) {}

    #[inline(always)]
    fn mark(sk: Sock<Self>) -> Result<(), DropReason> {
        sockets::MARKS.get_or_insert(sk).map(drop)
    }

    #[inline(always)]
    fn unmark(_sk: Sock<Self>) {}

    #[inline(always)]
    fn inherit_mark(_sk: Sock<Self>) -> Result<(), DropReason> {
        // The kernel has done it, before the connection's first byte.
        Ok(())
    }

    #[inline(always)]
    fn is_marked(sk: Sock<Self>) -> bool {
        !sockets::MARKS.get(sk).is_null()
    }

    #[inline(always)]
    fn transfer(total: u32) -> Option<Bytes> {
        // SAFETY: both helpers return typed, non-null pointers in tracing programs (5.11, 5.15).
        let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) };
        Bytes::of(sock::syscall((regs as *const c_void).cast())?, total)
    }
}

/// Programs whose arguments are numbers to the verifier: kprobes and raw tracepoints. Each read is checked for faults,
/// and the agent's self-test checks what comes of them. State lies in tables by the socket's address, and is given up when
/// the socket is.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

/// `IPPROTO_TCP` (include/uapi/linux/in.h).
const TCP: u16 = 6;

impl Flavour for Plain {
    // A kprobe that comes while another one runs on the same CPU is passed over by the kernel.
    const SEES_EVERY_ARRIVAL: bool = false;
    const KEEPS_BY_ADDRESS: bool = true;
    const LOOPS: bool = false;

    #[inline(always)]
    unsafe fn field<T: Copy>(object: *const c_void, offset: u32) -> T {
        let from = object.cast::<u8>().wrapping_add(offset as usize);
        // SAFETY: the helper checks the address; zeros are a value of `T`, by the caller's word.
        unsafe { bpf_probe_read_kernel(from.cast::<T>()).unwrap_or_else(|_| core::mem::zeroed()) }
    }

    #[inline(always)]
    fn tcp(sk: Sock<Self>) -> Option<*const c_void> {
        if sk.family() == Some(Family::Inet) && sk.protocol() == TCP {
            some(sk.as_ptr())
        } else {
            None
        }
    }

    #[inline(always)]
    fn unix(sk: Sock<Self>) -> Option<*const c_void> {
        if sk.family() == Some(Family::Unix) {
            some(sk.as_ptr())
        } else {
            None
        }
    }

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
    fn answers_or_new(sk: Sock<Self>) -> Result<*mut Conn, DropReason> {
        sockets::answers_at_or_new(sk.address())
    }

    #[inline(always)]
    fn forget(sk: Sock<Self>) {
        sockets::forget_at(sk.address());
    }

    #[inline(always)]
    fn mark(sk: Sock<Self>) -> Result<(), DropReason> {
        sockets::mark_at(Keyed::listener(sk))
    }

    #[inline(always)]
    fn unmark(sk: Sock<Self>) {
        sockets::unmark_at(Keyed::listener(sk));
    }

    #[inline(always)]
    fn inherit_mark(sk: Sock<Self>) -> Result<(), DropReason> {
        if sockets::is_marked_at(Keyed::listener(sk)) {
            sockets::mark_at(Keyed::at(sk.address()))
        } else {
            Ok(())
        }
    }

    #[inline(always)]
    fn is_marked(sk: Sock<Self>) -> bool {
        sockets::is_marked_at(Keyed::of(sk))
    }

    #[inline(always)]
    fn transfer(total: u32) -> Option<Bytes> {
        let call = calls::current()?;
        Bytes::of(call.buffer()?, total)
    }
}

#[inline(always)]
fn some(object: *mut c_void) -> Option<*const c_void> {
    if object.is_null() {
        None
    } else {
        Some(object.cast_const())
    }
}
