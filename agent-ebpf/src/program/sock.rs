//! Checked reads of kernel objects, at offsets that the loader resolved from the running kernel's BTF, and what else the
//! loader says of the kernel.
//!
//! How an object is read is the flavour's: typed, the verifier checks each read against the kernel's own types.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_sock_from_file,
};
use inferprobe_ebpf::globals::{Features, Offsets, SyscallAbi};

use crate::{
    backend::{Flavour, Plain, Typed},
    user_buffer::vector,
};

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
/// `TCP_CLOSE`.
pub(crate) const CLOSED: i32 = 7;

#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::NONE;

#[unsafe(no_mangle)]
static SYSCALLS: SyscallAbi = SyscallAbi::NONE;

#[unsafe(no_mangle)]
static FEATURES: Features = Features::NONE;

/// A constant that the loader set; a volatile read, since the compiler sees its zero.
#[inline(always)]
fn constant(global: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(global) }
}

/// Whether the agent wants the bytes that servers read and write, beside their times.
#[inline(always)]
pub(crate) fn reads_payload() -> bool {
    constant(&FEATURES.payload) != 0
}

/// Whether the agent wants to know when connections were accepted.
#[inline(always)]
pub(crate) fn tells_accepts() -> bool {
    constant(&FEATURES.accept_wait) != 0
}

/// Whether the vectors of a transfer are the kernel's own copy, not the user's.
#[inline(always)]
pub(crate) fn has_vectors() -> bool {
    constant(&FEATURES.kernel_vectors) != 0
}

/// Whether a second copy of a program is on its hook.
#[inline(always)]
pub(crate) fn runs_twice() -> bool {
    constant(&FEATURES.twice) != 0
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

/// A `struct sock`, and how to look into it.
#[derive(Clone, Copy)]
pub(crate) struct Sock<F>(*mut c_void, PhantomData<F>);

impl<F: Flavour> Sock<F> {
    #[inline(always)]
    pub(crate) const fn new(sk: *mut c_void) -> Self {
        Self(sk, PhantomData)
    }

    /// The socket of a `struct socket`.
    #[inline(always)]
    pub(crate) fn of_socket(socket: *const c_void) -> Self {
        // SAFETY: `sk` is a pointer field of a socket.
        Self::new(unsafe { F::field(socket, constant(&OFFSETS.socket_sk)) })
    }

    /// Its address, as a number.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    /// Network namespace of the socket: its address, as a number.
    #[inline(always)]
    pub(crate) fn namespace(self) -> u64 {
        // SAFETY: `skc_net.net` is a pointer field of the socket.
        unsafe { F::field(self.0, constant(&OFFSETS.skc_net)) }
    }

    /// Protocol of the socket, of those that its family has.
    #[inline(always)]
    pub(crate) fn protocol(self) -> u16 {
        // SAFETY: `sk_protocol` is a u16 field of the socket (5.6).
        unsafe { F::field(self.0, constant(&OFFSETS.sk_protocol)) }
    }

    /// Number of the socket's inode; 0 if it has none. Given again after four thousand million others.
    #[inline(always)]
    pub(crate) fn inode(self) -> u64 {
        // SAFETY: `sk_socket` is a pointer field of the socket; an inode lies behind what it points to, in one
        // `struct socket_alloc`, and `i_ino` is a u64 field of it.
        unsafe {
            let socket: *const c_void = F::field(self.0, constant(&OFFSETS.sk_socket));
            if socket.is_null() {
                0
            } else {
                F::field(socket, constant(&OFFSETS.socket_inode))
            }
        }
    }

    /// Whether the connection is closed, in both directions.
    #[inline(always)]
    pub(crate) fn is_closed(self) -> bool {
        // SAFETY: as in `listens`.
        unsafe { F::field::<u8>(self.0, constant(&OFFSETS.skc_state)) as i32 == CLOSED }
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
                F::field::<u16>(self.0, constant(&OFFSETS.sk_type)),
                F::field::<u16>(self.0, constant(&OFFSETS.skc_family)),
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
        unsafe { F::field::<u8>(self.0, constant(&OFFSETS.skc_state)) as i32 == LISTEN }
    }

    /// Local TCP port, host order.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        // SAFETY: `skc_num` is a u16 field of the typed socket.
        unsafe { F::field(self.0, constant(&OFFSETS.skc_num)) }
    }

    /// Peer's TCP port, host order.
    #[inline(always)]
    pub(crate) fn peer_port(self) -> u16 {
        // SAFETY: `skc_dport` is a big-endian u16 field of the typed socket.
        u16::from_be(unsafe { F::field(self.0, constant(&OFFSETS.skc_dport)) })
    }

    /// Buffers in the receive queue.
    #[inline(always)]
    pub(crate) fn queued(self) -> u32 {
        // SAFETY: `sk_receive_queue.qlen` is a u32 field of the typed socket.
        unsafe { F::field(self.0, constant(&OFFSETS.sk_receive_qlen)) }
    }

    /// Process that listens on an AF_UNIX socket, as the kernel noted it at `listen` (net/unix/af_unix.c, v3.x on); 0: none.
    #[inline(always)]
    pub(crate) fn listener_tgid(self) -> u32 {
        // SAFETY: `sk_peer_pid` is a pointer to a `struct pid`, whose `numbers[0].nr` is an i32.
        unsafe {
            let pid: *const c_void = F::field(self.0, constant(&OFFSETS.sk_peer_pid));
            if pid.is_null() {
                0
            } else {
                F::field::<u32>(pid, constant(&OFFSETS.pid_nr))
            }
        }
    }

    /// Read position and end of the received bytes, in TCP sequence numbers; `None` when it is not TCP.
    #[inline(always)]
    pub(crate) fn tcp_positions(self) -> Option<(u32, u32)> {
        let tcp = F::tcp(self)?;
        // SAFETY: both are u32 fields of a TCP socket.
        unsafe {
            Some((
                F::field(tcp, constant(&OFFSETS.tcp_copied_seq)),
                F::field(tcp, constant(&OFFSETS.tcp_rcv_nxt)),
            ))
        }
    }

    /// Address (as a number) of the `unix_address` that a bound AF_UNIX socket has; 0: none.
    #[inline(always)]
    pub(crate) fn unix_address(self) -> u64 {
        match F::unix(self) {
            // SAFETY: `addr` is a pointer field of an AF_UNIX socket.
            Some(unix) => unsafe { F::field(unix, constant(&OFFSETS.unix_addr)) },
            None => 0,
        }
    }

    /// The other end of an AF_UNIX connection.
    #[inline(always)]
    pub(crate) fn unix_peer(self) -> Option<Self> {
        let unix = F::unix(self)?;
        // SAFETY: `peer` is a pointer to a `struct sock`, which the verifier keeps typed.
        let peer: *mut c_void = unsafe { F::field(unix, constant(&OFFSETS.unix_peer)) };
        if peer.is_null() {
            None
        } else {
            Some(Self::new(peer))
        }
    }
}

impl Sock<Typed> {
    /// The socket behind an iterator's open file, if it is one.
    #[inline(always)]
    pub(crate) fn of_file(file: *mut c_void) -> Option<Self> {
        // SAFETY: `file` is the iterator's typed file; the helper returns a typed `socket` or null (5.11).
        let socket = unsafe { bpf_sock_from_file(file.cast()) };
        if socket.is_null() {
            return None;
        }
        Self::of_socket(socket.cast()).if_any()
    }
}

impl Sock<Plain> {
    /// The socket behind an open file, if it is one.
    #[inline(always)]
    pub(crate) fn of_file(file: *const c_void) -> Option<Self> {
        // SAFETY: `f_inode` is a pointer field of a file, `i_mode` a u16 field of an inode.
        let mode = unsafe {
            let inode: *const c_void = Plain::field(file, constant(&OFFSETS.file_inode));
            Plain::field::<u16>(inode, constant(&OFFSETS.inode_mode))
        };
        if mode & FILE_TYPE != SOCKET_FILE {
            return None;
        }
        // SAFETY: a pointer field of a file; of a socket's, it points to the `struct socket` (net/socket.c).
        let socket: *const c_void =
            unsafe { Plain::field(file, constant(&OFFSETS.file_private_data)) };
        if socket.is_null() {
            return None;
        }
        Self::of_socket(socket).if_any()
    }

    /// The socket that the running task has as its descriptor `fd`, if it is one.
    #[inline(always)]
    pub(crate) fn of_descriptor(fd: u32) -> Option<Self> {
        // SAFETY: no argument.
        let task = unsafe { bpf_get_current_task() };
        let files = word(task, constant(&OFFSETS.task_files))?;
        let table = word(files, constant(&OFFSETS.files_fdt))?;
        let array = word(table, constant(&OFFSETS.fdtable_fd))?;
        let file = word(array + fd as u64 * size_of::<u64>() as u64, 0)?;
        Self::of_file(file as *const c_void)
    }
}

impl<F: Flavour> Sock<F> {
    #[inline(always)]
    fn if_any(self) -> Option<Self> {
        if self.0.is_null() { None } else { Some(self) }
    }
}

/// Bits of a file's mode that tell its type, and what they are for a socket (include/uapi/linux/stat.h).
const FILE_TYPE: u16 = 0o170_000;
const SOCKET_FILE: u16 = 0o140_000;

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
            Typed::field(task, constant(&OFFSETS.task_tgid)),
            Typed::field(task, constant(&OFFSETS.task_pid)),
        )
    }
}

/// Whether the last thread of a typed task's process is ending: `exit` has counted it out before its hook
/// (kernel/exit.c, `do_exit`).
#[inline(always)]
pub(crate) fn is_last_thread(task: *const c_void) -> bool {
    // SAFETY: `signal` is a pointer to a `signal_struct`, whose `live` is an atomic i32.
    unsafe {
        let signal: *const c_void = Typed::field(task, constant(&OFFSETS.task_signal));
        Typed::field::<i32>(signal, constant(&OFFSETS.signal_live)) == 0
    }
}

/// System call that runs now, and where it keeps its buffer.
#[inline(always)]
pub(crate) fn syscall(regs: *const c_void) -> Option<Buffer> {
    // SAFETY: `regs` is the typed `pt_regs` of the running task.
    let (nr, arg1, arg2) = unsafe {
        (
            Typed::field::<u32>(regs, constant(&SYSCALLS.nr)),
            Typed::field::<u64>(regs, constant(&SYSCALLS.arg1)),
            Typed::field::<u64>(regs, constant(&SYSCALLS.arg2)),
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

/// A register of the running system call's caller, as a raw tracepoint gives it; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn register(regs: *const c_void, offset: &'static u32) -> u64 {
    // SAFETY: registers are u64 fields of `struct pt_regs`.
    unsafe { Plain::field(regs, constant(offset)) }
}

/// Layout and numbers of system calls.
#[inline(always)]
pub(crate) fn syscalls() -> &'static SyscallAbi {
    &SYSCALLS
}

/// Whether `nr` is the number of the system call that `call` is.
#[inline(always)]
pub(crate) fn is_call(nr: u32, call: &'static u32) -> bool {
    nr == constant(call)
}

/// Where a `struct msghdr` of the kernel keeps its bytes; `None` if that is not in user memory.
///
/// Before the transfer, which moves the iterator on (include/linux/uio.h).
#[inline(always)]
pub(crate) fn message(message: *const c_void) -> Option<Buffer> {
    let iter = message.wrapping_byte_add(constant(&OFFSETS.msg_iter) as usize);
    // SAFETY: fields of `struct iov_iter`; the kind is one byte from 5.14 on, and the low byte of a u32 before.
    unsafe {
        let kind = Plain::field::<u8>(iter, constant(&OFFSETS.iter_kind)) as u32
            & constant(&FEATURES.iter_kind_mask);
        if kind == constant(&FEATURES.iter_is_buffer) {
            let start: u64 = Plain::field(iter, constant(&OFFSETS.iter_buffer));
            let offset: u64 = Plain::field(iter, constant(&OFFSETS.iter_offset));
            return Some(Buffer::Flat {
                start: start + offset,
            });
        }
        if kind != constant(&FEATURES.iter_is_vectors) {
            return None;
        }
        let start: u64 = Plain::field(iter, constant(&OFFSETS.iter_vectors));
        let count: u64 = Plain::field(iter, constant(&OFFSETS.iter_count));
        if count != 1 {
            return Some(Buffer::Vectors { start, count });
        }
        Some(Buffer::Flat {
            start: vector(start)?.start,
        })
    }
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
