//! Checked reads of kernel objects, at offsets that the loader resolved from the running kernel's BTF.
//!
//! The objects are the hooks' typed arguments, so the verifier checks each read against the kernel's own types. The one
//! exception is [`cookie_of_descriptor`].

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_probe_read_kernel,
    bpf_skc_to_tcp_sock, bpf_skc_to_unix_sock, bpf_sock_from_file,
};
use inferprobe_ebpf::abi::{Offsets, SyscallAbi};

/// `AF_UNIX`
const AF_UNIX: u16 = 1;
/// `AF_INET`
const AF_INET: u16 = 2;
/// `AF_INET6`
const AF_INET6: u16 = 10;
/// `SOCK_STREAM`
const SOCK_STREAM: u16 = 1;
/// `TCP_LISTEN`, which AF_UNIX uses too (include/net/tcp_states.h).
pub(crate) const LISTEN: i32 = 10;

#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    skc_family: 0,
    skc_state: 0,
    skc_num: 0,
    skc_dport: 0,
    sk_type: 0,
    sk_receive_qlen: 0,
    sk_peer_pid: 0,
    tcp_copied_seq: 0,
    tcp_rcv_nxt: 0,
    unix_addr: 0,
    unix_peer: 0,
    pid_nr: 0,
    task_pid: 0,
    task_tgid: 0,
    socket_sk: 0,
    task_signal: 0,
    signal_live: 0,
    skc_cookie: 0,
    task_files: 0,
    files_fdt: 0,
    fdtable_fd: 0,
    file_private_data: 0,
};

/// Whether accepts are told, 1 or 0.
#[unsafe(no_mangle)]
static ACCEPT_WAIT: u32 = 0;

#[unsafe(no_mangle)]
static SYSCALLS: SyscallAbi = SyscallAbi {
    nr: 0,
    arg1: 0,
    arg2: 0,
    read: 0,
    readv: 0,
    recvfrom: 0,
    recvmsg: 0,
    write: 0,
    writev: 0,
    sendto: 0,
    sendmsg: 0,
};

/// A constant that the loader set; a volatile read, since the compiler sees its zero.
#[inline(always)]
fn constant(global: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(global) }
}

/// Whether the agent wants the bytes that servers read and write, beside their times.
#[inline(always)]
pub(crate) fn reads_payload() -> bool {
    constant(&SYSCALLS.read) != u32::MAX
}

/// Whether the agent wants to know when connections were accepted.
#[inline(always)]
pub(crate) fn tells_accepts() -> bool {
    constant(&ACCEPT_WAIT) != 0
}

/// Reads a `T` at `offset` bytes into a kernel object.
///
/// # Safety
///
/// `object` is typed for the verifier, and the field at `offset` is a `T`.
#[inline(always)]
pub(crate) unsafe fn field<T: Copy>(object: *const c_void, offset: u32) -> T {
    // SAFETY: the caller's; the verifier refuses the program otherwise.
    unsafe { core::ptr::read_volatile(object.cast::<u8>().add(offset as usize).cast::<T>()) }
}

/// Monotonic time, nanoseconds.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// Family of a stream socket that can be watched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// TCP over IPv4 or IPv6.
    Inet,
    /// AF_UNIX.
    Unix,
}

/// A `struct sock` that a hook's typed argument gave.
#[derive(Clone, Copy)]
pub(crate) struct Sock(*mut c_void);

impl Sock {
    #[inline(always)]
    pub(crate) const fn new(sk: *mut c_void) -> Self {
        Self(sk)
    }

    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> *mut c_void {
        self.0
    }

    /// The family; `None` when it is neither a TCP-like nor a unix stream socket.
    #[inline(always)]
    pub(crate) fn family(self) -> Option<Family> {
        // SAFETY: `sk_type` and `skc_family` are u16 fields of the typed socket.
        let (kind, family) = unsafe {
            (
                field::<u16>(self.0, constant(&OFFSETS.sk_type)),
                field::<u16>(self.0, constant(&OFFSETS.skc_family)),
            )
        };
        if kind != SOCK_STREAM {
            return None;
        }
        match family {
            AF_INET | AF_INET6 => Some(Family::Inet),
            AF_UNIX => Some(Family::Unix),
            _ => None,
        }
    }

    /// Whether the socket listens.
    #[inline(always)]
    pub(crate) fn listens(self) -> bool {
        // SAFETY: `skc_state` is a u8 field of the typed socket.
        unsafe { field::<u8>(self.0, constant(&OFFSETS.skc_state)) as i32 == LISTEN }
    }

    /// Local TCP port, host order.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        // SAFETY: `skc_num` is a u16 field of the typed socket.
        unsafe { field(self.0, constant(&OFFSETS.skc_num)) }
    }

    /// Peer's TCP port, host order.
    #[inline(always)]
    pub(crate) fn peer_port(self) -> u16 {
        // SAFETY: `skc_dport` is a big-endian u16 field of the typed socket.
        u16::from_be(unsafe { field(self.0, constant(&OFFSETS.skc_dport)) })
    }

    /// Buffers in the receive queue.
    #[inline(always)]
    pub(crate) fn queued(self) -> u32 {
        // SAFETY: `sk_receive_queue.qlen` is a u32 field of the typed socket.
        unsafe { field(self.0, constant(&OFFSETS.sk_receive_qlen)) }
    }

    /// Process that listens on an AF_UNIX socket, as the kernel noted it at `listen` (net/unix/af_unix.c, v3.x on); 0: none.
    #[inline(always)]
    pub(crate) fn listener_tgid(self) -> u32 {
        // SAFETY: `sk_peer_pid` is a pointer to a `struct pid`, whose `numbers[0].nr` is an i32.
        unsafe {
            let pid: *const c_void = field(self.0, constant(&OFFSETS.sk_peer_pid));
            if pid.is_null() {
                0
            } else {
                field::<u32>(pid, constant(&OFFSETS.pid_nr))
            }
        }
    }

    /// Cookie of the socket.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        // SAFETY: the typed socket is a valid context for the helper (tracing programs, 5.12).
        unsafe { bpf_get_socket_cookie(self.0) }
    }

    /// Read position and end of the received bytes, in TCP sequence numbers; `None` when it is not TCP.
    #[inline(always)]
    pub(crate) fn tcp_positions(self) -> Option<(u32, u32)> {
        // SAFETY: the helper checks the protocol and returns a typed `tcp_sock` or null.
        unsafe {
            let tcp = bpf_skc_to_tcp_sock(self.0).cast::<c_void>().cast_const();
            if tcp.is_null() {
                return None;
            }
            Some((
                field(tcp, constant(&OFFSETS.tcp_copied_seq)),
                field(tcp, constant(&OFFSETS.tcp_rcv_nxt)),
            ))
        }
    }

    /// Address (as a number) of the `unix_address` that a bound AF_UNIX socket has; 0: none.
    #[inline(always)]
    pub(crate) fn unix_address(self) -> u64 {
        // SAFETY: the helper checks the family and returns a typed `unix_sock` or null (5.16).
        unsafe {
            let unix = bpf_skc_to_unix_sock(self.0).cast::<c_void>().cast_const();
            if unix.is_null() {
                0
            } else {
                field(unix, constant(&OFFSETS.unix_addr))
            }
        }
    }

    /// The other end of an AF_UNIX connection.
    #[inline(always)]
    pub(crate) fn unix_peer(self) -> Option<Self> {
        // SAFETY: as in `unix_address`; `peer` is a pointer to a `struct sock`, which the verifier keeps typed.
        unsafe {
            let unix = bpf_skc_to_unix_sock(self.0).cast::<c_void>().cast_const();
            if unix.is_null() {
                return None;
            }
            let peer: *mut c_void = field(unix, constant(&OFFSETS.unix_peer));
            if peer.is_null() {
                None
            } else {
                Some(Self(peer))
            }
        }
    }

    /// The socket behind an open file, if it is one.
    #[inline(always)]
    pub(crate) fn of_file(file: *mut c_void) -> Option<Self> {
        // SAFETY: `file` is the iterator's typed file; the helper returns a typed `socket` or null (5.11).
        unsafe {
            let socket = bpf_sock_from_file(file.cast())
                .cast::<c_void>()
                .cast_const();
            if socket.is_null() {
                return None;
            }
            let sk: *mut c_void = field(socket, constant(&OFFSETS.socket_sk));
            if sk.is_null() { None } else { Some(Self(sk)) }
        }
    }
}

/// Cookie of the socket that the running task has as its descriptor `fd`; 0 if nobody asked for the cookie yet, `None`
/// where the socket cannot be read.
///
/// A system call's tracepoint has no typed arguments: these reads are checked for faults, and by the agent's self-test.
#[inline(always)]
pub(crate) fn cookie_of_descriptor(fd: u32) -> Option<u64> {
    // SAFETY: no argument.
    let task = unsafe { bpf_get_current_task() };
    let files = word(task, constant(&OFFSETS.task_files))?;
    let table = word(files, constant(&OFFSETS.files_fdt))?;
    let array = word(table, constant(&OFFSETS.fdtable_fd))?;
    let file = word(array + fd as u64 * size_of::<u64>() as u64, 0)?;
    let socket = word(file, constant(&OFFSETS.file_private_data))?;
    let sk = word(socket, constant(&OFFSETS.socket_sk))?;
    word(sk, constant(&OFFSETS.skc_cookie))
}

/// Reads eight bytes at `offset` bytes into the kernel object at `address`; `None` if they are not there.
#[inline(always)]
fn word(address: u64, offset: u32) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((address + offset as u64) as *const u64) }.ok()
}

/// Process id and thread id of a typed `task_struct`.
#[inline(always)]
pub(crate) fn task_ids(task: *const c_void) -> (u32, u32) {
    // SAFETY: `tgid` and `pid` are i32 fields of the typed task.
    unsafe {
        (
            field(task, constant(&OFFSETS.task_tgid)),
            field(task, constant(&OFFSETS.task_pid)),
        )
    }
}

/// Whether the last thread of a typed task's process is ending: `exit` has counted it out before its hook
/// (kernel/exit.c, `do_exit`).
#[inline(always)]
pub(crate) fn is_last_thread(task: *const c_void) -> bool {
    // SAFETY: `signal` is a pointer to a `signal_struct`, whose `live` is an atomic i32.
    unsafe {
        let signal: *const c_void = field(task, constant(&OFFSETS.task_signal));
        field::<i32>(signal, constant(&OFFSETS.signal_live)) == 0
    }
}

/// System call that runs now, and where it keeps its buffer.
#[inline(always)]
pub(crate) fn syscall(regs: *const c_void) -> Option<Buffer> {
    // SAFETY: `regs` is the typed `pt_regs` of the running task.
    let (nr, arg1, arg2) = unsafe {
        (
            field::<u32>(regs, constant(&SYSCALLS.nr)),
            field::<u64>(regs, constant(&SYSCALLS.arg1)),
            field::<u64>(regs, constant(&SYSCALLS.arg2)),
        )
    };
    if nr == constant(&SYSCALLS.read)
        || nr == constant(&SYSCALLS.write)
        || nr == constant(&SYSCALLS.recvfrom)
        || nr == constant(&SYSCALLS.sendto)
    {
        return Some(Buffer::Flat { start: arg1 });
    }
    if nr == constant(&SYSCALLS.readv) || nr == constant(&SYSCALLS.writev) {
        return Some(Buffer::Vectors {
            start: arg1,
            count: arg2,
        });
    }
    if nr == constant(&SYSCALLS.recvmsg) || nr == constant(&SYSCALLS.sendmsg) {
        return Some(Buffer::Message { start: arg1 });
    }
    None
}

/// User memory of a transfer.
#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    /// One buffer.
    Flat {
        /// Its address.
        start: u64,
    },
    /// An array of `struct iovec`.
    Vectors {
        /// Its address.
        start: u64,
        /// Its length.
        count: u64,
    },
    /// A `struct msghdr` that names such an array.
    Message {
        /// Its address.
        start: u64,
    },
}
