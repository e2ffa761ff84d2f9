//! Reads what a `struct sock` says of itself: ports, family, state, positions in its queue.
//!
//! The offsets come from the running kernel's BTF by way of `globals`; how a field is read is `access`'s.
//! Does not depend on: maps, hooks, the state that the program keeps of a socket.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel, bpf_sock_from_file};

use inferprobe_ebpf::send_buffer::SendBuffer;

use crate::{
    access::{Access, Btf, Raw},
    globals::{OFFSETS, constant},
};

/// `AF_UNIX`
const AF_UNIX: u16 = 1;
/// `AF_INET`
const AF_INET: u16 = 2;
/// `AF_INET6`
const AF_INET6: u16 = 10;
/// `SOCK_STREAM`
const SOCK_STREAM: u16 = 1;
/// IPv4 address of an IPv6 connection that has no other, 127.0.0.6 (net/ipv6/tcp_ipv6.c, `LOOPBACK4_IPV6`).
const LOOPBACK4_IPV6: u32 = 0x7f00_0006;
/// First byte of every IPv4 loopback address.
const LOOPBACK_NET: u32 = 127;
/// `IPPROTO_TCP` (include/uapi/linux/in.h).
const TCP: u16 = 6;
/// `TCP_ESTABLISHED` (include/net/tcp_states.h).
pub(crate) const ESTABLISHED: i32 = 1;
/// `TCP_LISTEN`, which AF_UNIX uses too (include/net/tcp_states.h).
pub(crate) const LISTEN: i32 = 10;
/// Bit of `sk_shutdown` (include/net/sock.h).
const SEND_SHUTDOWN: u8 = 2;
/// `TCP_CLOSE`.
pub(crate) const CLOSED: i32 = 7;

/// Family of a stream socket that can be watched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// TCP over IPv4 or IPv6.
    Inet,
    /// AF_UNIX.
    Unix,
}

/// Addresses and ports of a connection, as one of its ends has them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    /// Address of this end.
    pub(crate) local: u64,
    /// Address of the other end.
    pub(crate) remote: u64,
    /// Network namespace, if both ends are in it for certain; 0: they may be in two.
    pub(crate) place: u64,
    /// Port of this end, then port of the other end.
    pub(crate) ports: [u32; 2],
}

impl Ends {
    /// Returns what the other end has.
    #[inline(always)]
    pub(crate) const fn reversed(self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
            place: self.place,
            ports: [self.ports[1], self.ports[0]],
        }
    }
}

/// A `struct sock`, and how its fields are read.
#[derive(Clone, Copy)]
pub(crate) struct Sock<A>(*mut c_void, PhantomData<A>);

impl<A: Access> Sock<A> {
    #[inline(always)]
    pub(crate) const fn new(sk: *mut c_void) -> Self {
        Self(sk, PhantomData)
    }

    /// Returns the socket of a `struct socket`.
    #[inline(always)]
    pub(crate) fn of_socket(socket: *const c_void) -> Self {
        // SAFETY: `sk` is a pointer field of a socket.
        Self::new(unsafe { A::field(socket, constant(&OFFSETS.socket_sk)) })
    }

    /// Returns its address as a number.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> *mut c_void {
        self.0
    }

    /// Returns the address of the socket's network namespace as a number.
    #[inline(always)]
    pub(crate) fn namespace(self) -> u64 {
        // SAFETY: `skc_net.net` is a pointer field of the socket.
        unsafe { A::field(self.0, constant(&OFFSETS.skc_net)) }
    }

    /// Returns the number of the socket's inode; 0 if it has none. The kernel reuses a number after 2^32 others.
    #[inline(always)]
    pub(crate) fn inode(self) -> u64 {
        // SAFETY: `sk_socket` is a pointer field of the socket; the inode follows what it points to, in the same
        // `struct socket_alloc`, and `i_ino` is a u64 field of it.
        unsafe {
            let socket: *const c_void = A::field(self.0, constant(&OFFSETS.sk_socket));
            if socket.is_null() {
                0
            } else {
                A::field(socket, constant(&OFFSETS.socket_inode))
            }
        }
    }

    /// Whether both directions of the connection are closed.
    #[inline(always)]
    pub(crate) fn is_closed(self) -> bool {
        // SAFETY: as in `listens`.
        unsafe { A::field::<u8>(self.0, constant(&OFFSETS.skc_state)) as i32 == CLOSED }
    }

    /// Whether its own direction has ended.
    #[inline(always)]
    pub(crate) fn has_ended_writes(self) -> bool {
        // SAFETY: `sk_shutdown` is a u8 field of the socket.
        unsafe { A::field::<u8>(self.0, constant(&OFFSETS.sk_shutdown)) & SEND_SHUTDOWN != 0 }
    }

    /// Whether the socket listens.
    #[inline(always)]
    pub(crate) fn listens(self) -> bool {
        // SAFETY: `skc_state` is a u8 field of the socket.
        unsafe { A::field::<u8>(self.0, constant(&OFFSETS.skc_state)) as i32 == LISTEN }
    }

    /// Returns the family; `None` if it is neither a TCP-like nor a unix stream socket.
    #[inline(always)]
    pub(crate) fn family(self) -> Option<Family> {
        // SAFETY: `sk_type` and `skc_family` are u16 fields of the socket.
        let (kind, family) = unsafe {
            (
                A::field::<u16>(self.0, constant(&OFFSETS.sk_type)),
                A::field::<u16>(self.0, constant(&OFFSETS.skc_family)),
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

    /// Returns the local TCP port in host order.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        // SAFETY: `skc_num` is a u16 field of the socket.
        unsafe { A::field(self.0, constant(&OFFSETS.skc_num)) }
    }

    /// Returns the peer's TCP port in host order.
    #[inline(always)]
    pub(crate) fn peer_port(self) -> u16 {
        // SAFETY: `skc_dport` is a big-endian u16 field of the socket.
        u16::from_be(unsafe { A::field(self.0, constant(&OFFSETS.skc_dport)) })
    }

    /// Returns addresses and ports of a TCP connection, which are set once its client begins to connect; before the client's
    /// port is chosen, that is 0.
    #[inline(always)]
    pub(crate) fn ends(self) -> Ends {
        // SAFETY: both are big-endian u32 fields of the socket.
        let (remote4, local4) = unsafe {
            (
                u32::from_be(A::field(self.0, constant(&OFFSETS.skc_daddr))),
                u32::from_be(A::field(self.0, constant(&OFFSETS.skc_rcv_saddr))),
            )
        };
        // SAFETY: `skc_family` is a u16 field of the socket.
        let family = unsafe { A::field::<u16>(self.0, constant(&OFFSETS.skc_family)) };
        // An IPv4 client of an IPv6 listener has IPv4 addresses at both ends.
        let (local, remote, is_loopback) = if family == AF_INET6 && local4 == LOOPBACK4_IPV6 {
            let (local, _) = self.ipv6(&OFFSETS.skc_v6_rcv_saddr);
            let (remote, is_loopback) = self.ipv6(&OFFSETS.skc_v6_daddr);
            (local, remote, is_loopback)
        } else {
            let is_loopback = remote4 >> 24 == LOOPBACK_NET;
            (local4 as u64, remote4 as u64, is_loopback)
        };
        Ends {
            local,
            remote,
            place: if is_loopback || local == remote {
                self.namespace()
            } else {
                0
            },
            ports: [self.local_port() as u32, self.peer_port() as u32],
        }
    }

    /// Returns a number that stands for an IPv6 address, and whether that is the loopback address.
    #[inline(always)]
    fn ipv6(self, offset: &'static u32) -> (u64, bool) {
        let offset = constant(offset);
        // SAFETY: the address is 16 bytes long.
        let (high, low) = unsafe {
            (
                A::field::<u64>(self.0, offset),
                A::field::<u64>(self.0, offset + size_of::<u64>() as u32),
            )
        };
        (
            high.rotate_left(1) ^ low,
            high == 0 && u64::from_be(low) == 1,
        )
    }

    /// Returns how full the send buffer is, of a socket that is AF_UNIX or not.
    #[inline(always)]
    pub(crate) fn send_buffer(self, is_unix: bool) -> SendBuffer {
        // What AF_UNIX has sent is in buffers of the other end, which count for the sender until they are read.
        let queued = match is_unix {
            // SAFETY: a u32 field of the socket.
            true => unsafe { A::field(self.0, constant(&OFFSETS.sk_wmem_alloc)) },
            false => self.unsent(),
        };
        SendBuffer {
            queued,
            // SAFETY: an i32 field of the socket, not negative.
            size: unsafe { A::field(self.0, constant(&OFFSETS.sk_sndbuf)) },
        }
    }

    /// Returns the bytes in the send buffer of a TCP socket; 0 on AF_UNIX.
    #[inline(always)]
    pub(crate) fn unsent(self) -> u32 {
        // SAFETY: an i32 field of the socket, not negative.
        unsafe { A::field(self.0, constant(&OFFSETS.sk_wmem_queued)) }
    }

    /// Returns the number of buffers in the receive queue.
    #[inline(always)]
    pub(crate) fn queued(self) -> u32 {
        // SAFETY: `sk_receive_queue.qlen` is a u32 field of the socket.
        unsafe { A::field(self.0, constant(&OFFSETS.sk_receive_qlen)) }
    }

    /// Returns the process that listens on an AF_UNIX socket, or that connected to this end of one; 0 if there is none. The
    /// kernel notes it at `listen` and at `connect` (net/unix/af_unix.c, v3.x on).
    #[inline(always)]
    pub(crate) fn peer_tgid(self) -> u32 {
        // SAFETY: `sk_peer_pid` is a pointer to a `struct pid`, whose `numbers[0].nr` is an i32.
        unsafe {
            let pid: *const c_void = A::field(self.0, constant(&OFFSETS.sk_peer_pid));
            if pid.is_null() {
                0
            } else {
                A::field::<u32>(pid, constant(&OFFSETS.pid_nr))
            }
        }
    }

    /// Returns the read position and the end of the received bytes, in TCP sequence numbers; `None` if it is not TCP.
    #[inline(always)]
    pub(crate) fn tcp_positions(self) -> Option<(u32, u32)> {
        let tcp = A::as_tcp(self.0, || self.is_tcp())?;
        // SAFETY: both are u32 fields of a TCP socket.
        unsafe {
            Some((
                A::field(tcp, constant(&OFFSETS.tcp_copied_seq)),
                A::field(tcp, constant(&OFFSETS.tcp_rcv_nxt)),
            ))
        }
    }

    /// Returns the read position, and the end of the written bytes, of a socket that is known to be TCP.
    #[inline(always)]
    pub(crate) fn transferred(self) -> Option<(u32, u32)> {
        let tcp = A::as_tcp(self.0, || true)?;
        // SAFETY: both are u32 fields of a TCP socket.
        unsafe {
            Some((
                A::field(tcp, constant(&OFFSETS.tcp_copied_seq)),
                A::field(tcp, constant(&OFFSETS.tcp_write_seq)),
            ))
        }
    }

    /// Returns the end of the written bytes of a socket that is known to be TCP.
    #[inline(always)]
    pub(crate) fn write_position(self) -> Option<u32> {
        let tcp = A::as_tcp(self.0, || true)?;
        // SAFETY: as above.
        Some(unsafe { A::field(tcp, constant(&OFFSETS.tcp_write_seq)) })
    }

    /// Whether neither end has ended its direction.
    #[inline(always)]
    pub(crate) fn is_established(self) -> bool {
        // SAFETY: as in `listens`.
        unsafe { A::field::<u8>(self.0, constant(&OFFSETS.skc_state)) as i32 == ESTABLISHED }
    }

    /// Whether another protocol is on top of TCP, as TLS in the kernel is.
    #[inline(always)]
    pub(crate) fn has_upper_layer(self) -> bool {
        match A::as_tcp(self.0, || self.is_tcp()) {
            // SAFETY: `icsk_ulp_ops` is a pointer field of a TCP socket.
            Some(tcp) => unsafe { A::field::<u64>(tcp, constant(&OFFSETS.icsk_ulp_ops)) != 0 },
            None => false,
        }
    }

    /// Returns the address, as a number, of the `unix_address` that a bound AF_UNIX socket has; 0 if it has none.
    #[inline(always)]
    pub(crate) fn unix_address(self) -> u64 {
        match self.as_unix() {
            // SAFETY: `addr` is a pointer field of an AF_UNIX socket.
            Some(unix) => unsafe { A::field(unix, constant(&OFFSETS.unix_addr)) },
            None => 0,
        }
    }

    /// Returns the other end of an AF_UNIX connection.
    #[inline(always)]
    pub(crate) fn unix_peer(self) -> Option<Self> {
        let unix = self.as_unix()?;
        // SAFETY: `peer` is a pointer to a `struct sock`, which the verifier keeps typed.
        let peer: *mut c_void = unsafe { A::field(unix, constant(&OFFSETS.unix_peer)) };
        Self::new(peer).non_null()
    }

    #[inline(always)]
    fn as_unix(self) -> Option<*const c_void> {
        A::as_unix(self.0, || self.family() == Some(Family::Unix))
    }

    #[inline(always)]
    fn is_tcp(self) -> bool {
        // SAFETY: `sk_protocol` is a u16 field of the socket (5.6).
        self.family() == Some(Family::Inet)
            && unsafe { A::field::<u16>(self.0, constant(&OFFSETS.sk_protocol)) } == TCP
    }

    #[inline(always)]
    fn non_null(self) -> Option<Self> {
        if self.0.is_null() { None } else { Some(self) }
    }
}

impl Sock<Btf> {
    /// Returns the socket of an iterator's open file; `None` if it is not one.
    #[inline(always)]
    pub(crate) fn of_file(file: *mut c_void) -> Option<Self> {
        // SAFETY: `file` is the iterator's typed file; the helper returns a typed `socket` or null (5.11).
        let socket = unsafe { bpf_sock_from_file(file.cast()) };
        if socket.is_null() {
            return None;
        }
        Self::of_socket(socket.cast()).non_null()
    }
}

/// Bits of a file's mode that are its type, and their value for a socket (include/uapi/linux/stat.h).
const FILE_TYPE: u16 = 0o170_000;
const SOCKET_FILE: u16 = 0o140_000;

impl Sock<Raw> {
    /// Returns the socket of an open file; `None` if it is not one.
    #[inline(always)]
    pub(crate) fn of_file(file: *const c_void) -> Option<Self> {
        // SAFETY: `f_inode` is a pointer field of a file, `i_mode` a u16 field of an inode.
        let mode = unsafe {
            let inode: *const c_void = Raw::field(file, constant(&OFFSETS.file_inode));
            Raw::field::<u16>(inode, constant(&OFFSETS.inode_mode))
        };
        if mode & FILE_TYPE != SOCKET_FILE {
            return None;
        }
        // SAFETY: a pointer field of a file; of a socket's, it points to the `struct socket` (net/socket.c).
        let socket: *const c_void =
            unsafe { Raw::field(file, constant(&OFFSETS.file_private_data)) };
        if socket.is_null() {
            return None;
        }
        Self::of_socket(socket).non_null()
    }

    /// Returns the socket that is descriptor `fd` of the running task; `None` if it is not one.
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

/// Reads eight bytes at `offset` bytes into the kernel object at `address`; `None` if that cannot be read.
#[inline(always)]
fn word(address: u64, offset: u32) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((address + offset as u64) as *const u64) }.ok()
}
