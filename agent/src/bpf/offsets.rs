//! Resolves the load-time constants of the programs: field offsets, kernel features, and the system call layout.
//!
//! The loader writes them into the object before it loads it.
//! Does not depend on: how programs are attached.

use inferprobe_ebpf::globals::{Features, Offsets, SyscallAbi};

use crate::bpf::btf::{BtfError, Types};

/// Resolves every offset from the kernel's BTF.
pub fn resolve(types: &Types<'_>) -> Result<Offsets, BtfError> {
    Ok(Offsets {
        skc_family: types.offset("sock_common", "skc_family")?,
        skc_state: types.offset("sock_common", "skc_state")?,
        skc_num: types.offset("sock_common", "skc_num")?,
        skc_dport: types.offset("sock_common", "skc_dport")?,
        skc_daddr: types.offset("sock_common", "skc_daddr")?,
        skc_rcv_saddr: types.offset("sock_common", "skc_rcv_saddr")?,
        // Without IPv6 in the kernel, no socket has these, and the programs do not read them.
        skc_v6_daddr: types.offset_of_any("sock_common", &["skc_v6_daddr", "skc_daddr"])?,
        skc_v6_rcv_saddr: types
            .offset_of_any("sock_common", &["skc_v6_rcv_saddr", "skc_rcv_saddr"])?,
        skc_net: types.offset("sock_common", "skc_net.net")?,
        sk_protocol: types.offset("sock", "sk_protocol")?,
        sk_socket: types.offset("sock", "sk_socket")?,
        socket_inode: types.offset("socket_alloc", "vfs_inode.i_ino")?,
        sk_type: types.offset("sock", "sk_type")?,
        sk_receive_qlen: types.offset("sock", "sk_receive_queue.qlen")?,
        sk_shutdown: types.offset("sock", "sk_shutdown")?,
        sk_sndbuf: types.offset("sock", "sk_sndbuf")?,
        sk_wmem_alloc: types.offset("sock", "sk_wmem_alloc")?,
        sk_wmem_queued: types.offset("sock", "sk_wmem_queued")?,
        sk_peer_pid: types.offset("sock", "sk_peer_pid")?,
        tcp_copied_seq: types.offset("tcp_sock", "copied_seq")?,
        tcp_rcv_nxt: types.offset("tcp_sock", "rcv_nxt")?,
        icsk_ulp_ops: types.offset("inet_connection_sock", "icsk_ulp_ops")?,
        tcp_write_seq: types.offset("tcp_sock", "write_seq")?,
        unix_addr: types.offset("unix_sock", "addr")?,
        unix_peer: types.offset("unix_sock", "peer")?,
        pid_nr: types.offset("pid", "numbers.nr")?,
        task_pid: types.offset("task_struct", "pid")?,
        task_tgid: types.offset("task_struct", "tgid")?,
        // Without CONFIG_SCHED_INFO there is none, and the programs do not read it.
        task_run_delay: types
            .offset("task_struct", "sched_info.run_delay")
            .unwrap_or(0),
        task_nvcsw: types.offset("task_struct", "nvcsw")?,
        socket_sk: types.offset("socket", "sk")?,
        task_signal: types.offset("task_struct", "signal")?,
        signal_live: types.offset("signal_struct", "live")?,
        task_files: types.offset("task_struct", "files")?,
        files_fdt: types.offset("files_struct", "fdt")?,
        fdtable_fd: types.offset("fdtable", "fd")?,
        file_private_data: types.offset("file", "private_data")?,
        file_inode: types.offset("file", "f_inode")?,
        inode_mode: types.offset("inode", "i_mode")?,
        msg_iter: types.offset("msghdr", "msg_iter")?,
        iter_kind: types.offset_of_any("iov_iter", &["iter_type", "type"])?,
        iter_vectors: types.offset_of_any("iov_iter", &["__iov", "iov"])?,
        iter_count: types.offset("iov_iter", "nr_segs")?,
        // Kernels before 6.0 have no such kind, so the programs do not read the offset there.
        iter_buffer: types.offset_of_any("iov_iter", &["ubuf", "iov_offset"])?,
        iter_offset: types.offset("iov_iter", "iov_offset")?,
    })
}

/// Detects the features of the kernel, with every option off.
pub fn features(types: &Types<'_>) -> Features {
    // Before 5.14 the kind is a bit of a word, and the lowest bit is the direction.
    let is_word = types.offset("iov_iter", "iter_type").is_err();
    Features {
        payload: 0,
        accept_wait: 0,
        attached_twice: 0,
        copied_bytes: 0,
        run_delay: types
            .offset("task_struct", "sched_info.run_delay")
            .is_ok()
            .into(),
        kernel_vectors: 0,
        iter_kind_mask: if is_word { 0xfe } else { 0xff },
        iter_is_vectors: types.enumerator("ITER_IOVEC").unwrap_or(u32::MAX),
        iter_is_buffer: types.enumerator("ITER_UBUF").unwrap_or(u32::MAX),
    }
}

/// System calls of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl) and its `struct pt_regs`.
#[cfg(target_arch = "x86_64")]
pub const SYSCALLS: SyscallAbi = SyscallAbi {
    nr: 120,
    arg0: 112,
    arg1: 104,
    arg2: 96,
    arg3: 56,
    read: 0,
    readv: 19,
    recvfrom: 45,
    recvmsg: 47,
    write: 1,
    writev: 20,
    sendto: 44,
    sendmsg: 46,
    sendfile: 40,
};

/// System calls of arm64 (include/uapi/asm-generic/unistd.h) and its `struct pt_regs`.
#[cfg(target_arch = "aarch64")]
pub const SYSCALLS: SyscallAbi = SyscallAbi {
    nr: 280,
    arg0: 0,
    arg1: 8,
    arg2: 16,
    arg3: 24,
    read: 63,
    readv: 65,
    recvfrom: 207,
    recvmsg: 212,
    write: 64,
    writev: 66,
    sendto: 206,
    sendmsg: 211,
    sendfile: 71,
};
