//! Defines the load-time constants: offsets of kernel fields, system call numbers, features of the kernel and the
//! agent.
//!
//! The loader fills them in for the running kernel, before the programs are verified.
//! Does not depend on: how a constant is found, or read.

use bytemuck::{Pod, Zeroable};

/// Field offsets of the running kernel, bytes. The loader resolves them from the kernel's BTF.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Offsets {
    /// `sock_common.skc_family`
    pub skc_family: u32,
    /// `sock_common.skc_state`
    pub skc_state: u32,
    /// `sock_common.skc_num`
    pub skc_num: u32,
    /// `sock_common.skc_dport`
    pub skc_dport: u32,
    /// `sock_common.skc_daddr`
    pub skc_daddr: u32,
    /// `sock_common.skc_rcv_saddr`
    pub skc_rcv_saddr: u32,
    /// `sock_common.skc_v6_daddr`
    pub skc_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub skc_v6_rcv_saddr: u32,
    /// `sock_common.skc_net.net`
    pub skc_net: u32,
    /// `sock.sk_type`
    pub sk_type: u32,
    /// `sock.sk_protocol`
    pub sk_protocol: u32,
    /// `sock.sk_socket`
    pub sk_socket: u32,
    /// `socket_alloc.vfs_inode.i_ino`, from `socket_alloc.socket` on
    pub socket_inode: u32,
    /// `sock.sk_receive_queue.qlen`
    pub sk_receive_qlen: u32,
    /// `sock.sk_shutdown`
    pub sk_shutdown: u32,
    /// `sock.sk_sndbuf`
    pub sk_sndbuf: u32,
    /// `sock.sk_wmem_alloc`
    pub sk_wmem_alloc: u32,
    /// `sock.sk_wmem_queued`
    pub sk_wmem_queued: u32,
    /// `sock.sk_peer_pid`
    pub sk_peer_pid: u32,
    /// `tcp_sock.copied_seq`
    pub tcp_copied_seq: u32,
    /// `tcp_sock.rcv_nxt`
    pub tcp_rcv_nxt: u32,
    /// `inet_connection_sock.icsk_ulp_ops`
    pub icsk_ulp_ops: u32,
    /// `tcp_sock.write_seq`
    pub tcp_write_seq: u32,
    /// `unix_sock.addr`
    pub unix_addr: u32,
    /// `unix_sock.peer`
    pub unix_peer: u32,
    /// `pid.numbers[0].nr`
    pub pid_nr: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.sched_info.run_delay`; read only with [`Features::run_delay`]
    pub task_run_delay: u32,
    /// `task_struct.nvcsw`
    pub task_nvcsw: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.fd`
    pub fdtable_fd: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `msghdr.msg_iter`
    pub msg_iter: u32,
    /// `iov_iter.iter_type`; before 5.14 `iov_iter.type`
    pub iter_kind: u32,
    /// `iov_iter.__iov`; before 6.4 `iov_iter.iov`
    pub iter_vectors: u32,
    /// `iov_iter.nr_segs`
    pub iter_count: u32,
    /// `iov_iter.ubuf`; 6.0 and later
    pub iter_buffer: u32,
    /// `iov_iter.iov_offset`
    pub iter_offset: u32,
}

impl Offsets {
    /// The value in the object until the loader fills it in.
    pub const NONE: Self = Self {
        skc_family: 0,
        skc_state: 0,
        skc_num: 0,
        skc_dport: 0,
        skc_daddr: 0,
        skc_rcv_saddr: 0,
        skc_v6_daddr: 0,
        skc_v6_rcv_saddr: 0,
        skc_net: 0,
        sk_type: 0,
        sk_protocol: 0,
        sk_socket: 0,
        socket_inode: 0,
        sk_receive_qlen: 0,
        sk_shutdown: 0,
        sk_sndbuf: 0,
        sk_wmem_alloc: 0,
        sk_wmem_queued: 0,
        sk_peer_pid: 0,
        tcp_copied_seq: 0,
        tcp_rcv_nxt: 0,
        icsk_ulp_ops: 0,
        tcp_write_seq: 0,
        unix_addr: 0,
        unix_peer: 0,
        pid_nr: 0,
        task_pid: 0,
        task_tgid: 0,
        task_run_delay: 0,
        task_nvcsw: 0,
        socket_sk: 0,
        task_signal: 0,
        signal_live: 0,
        task_files: 0,
        files_fdt: 0,
        fdtable_fd: 0,
        file_private_data: 0,
        file_inode: 0,
        inode_mode: 0,
        msg_iter: 0,
        iter_kind: 0,
        iter_vectors: 0,
        iter_count: 0,
        iter_buffer: 0,
        iter_offset: 0,
    };
}

/// Where a system call keeps its number and arguments in `struct pt_regs`, and the numbers of the calls that move
/// socket bytes.
///
/// A number is `u32::MAX` if the architecture lacks the call, and every number is if no user memory is to be read.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SyscallAbi {
    /// Offset of the call number, bytes.
    pub nr: u32,
    /// Offset of the first argument at the call's entry, bytes.
    pub arg0: u32,
    /// Offset of the second argument, bytes.
    pub arg1: u32,
    /// Offset of the third argument, bytes.
    pub arg2: u32,
    /// Offset of the fourth argument, bytes.
    pub arg3: u32,
    /// `read`
    pub read: u32,
    /// `readv`
    pub readv: u32,
    /// `recvfrom`
    pub recvfrom: u32,
    /// `recvmsg`
    pub recvmsg: u32,
    /// `write`
    pub write: u32,
    /// `writev`
    pub writev: u32,
    /// `sendto`
    pub sendto: u32,
    /// `sendmsg`
    pub sendmsg: u32,
    /// `sendfile`
    pub sendfile: u32,
}

impl SyscallAbi {
    /// No call is known, so no program reads user memory.
    pub const NONE: Self = Self {
        nr: 0,
        arg0: 0,
        arg1: 0,
        arg2: 0,
        arg3: 0,
        read: u32::MAX,
        readv: u32::MAX,
        recvfrom: u32::MAX,
        recvmsg: u32::MAX,
        write: u32::MAX,
        writev: u32::MAX,
        sendto: u32::MAX,
        sendmsg: u32::MAX,
        sendfile: u32::MAX,
    };
}

/// What the kernel can do, and what the agent wants. Each is 1 or 0, except the kinds of `struct iov_iter` and
/// `copied_bytes`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Features {
    /// Whether the agent wants the bytes of transfers.
    pub payload: u32,
    /// Whether the agent wants accepts.
    pub accept_wait: u32,
    /// Whether the vectors of a transfer are read from the kernel's copy, not from user memory.
    pub kernel_vectors: u32,
    /// Bits of `iter_kind` that are the kind.
    pub iter_kind_mask: u32,
    /// `ITER_IOVEC`.
    pub iter_is_vectors: u32,
    /// `ITER_UBUF` (6.0); `u32::MAX` if the kernel has none.
    pub iter_is_buffer: u32,
    /// Whether each program has a backup copy attached, because the kernel may skip the primary.
    pub attached_twice: u32,
    /// Bytes that are copied of a request, head and body.
    pub copied_bytes: u32,
    /// Whether the kernel counts how long a thread waits for a CPU (CONFIG_SCHED_INFO).
    pub run_delay: u32,
}

impl Features {
    /// The value in the object until the loader fills it in.
    pub const NONE: Self = Self {
        payload: 0,
        accept_wait: 0,
        kernel_vectors: 0,
        iter_kind_mask: 0,
        iter_is_vectors: 0,
        iter_is_buffer: 0,
        attached_twice: 0,
        copied_bytes: 0,
        run_delay: 0,
    };
}
