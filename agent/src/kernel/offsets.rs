//! What the kernel half needs to know of the running kernel: field offsets, and the system call layout.

use inferprobe_ebpf::abi::{Offsets, SyscallAbi};

use crate::kernel::btf::{BtfError, Types};

/// Resolves every offset from the kernel's BTF.
pub fn resolve(types: &Types<'_>) -> Result<Offsets, BtfError> {
    Ok(Offsets {
        skc_family: types.offset("sock_common", "skc_family")?,
        skc_state: types.offset("sock_common", "skc_state")?,
        skc_num: types.offset("sock_common", "skc_num")?,
        skc_dport: types.offset("sock_common", "skc_dport")?,
        sk_type: types.offset("sock", "sk_type")?,
        sk_receive_qlen: types.offset("sock", "sk_receive_queue.qlen")?,
        sk_peer_pid: types.offset("sock", "sk_peer_pid")?,
        tcp_copied_seq: types.offset("tcp_sock", "copied_seq")?,
        tcp_rcv_nxt: types.offset("tcp_sock", "rcv_nxt")?,
        unix_addr: types.offset("unix_sock", "addr")?,
        unix_peer: types.offset("unix_sock", "peer")?,
        pid_nr: types.offset("pid", "numbers.nr")?,
        task_pid: types.offset("task_struct", "pid")?,
        task_tgid: types.offset("task_struct", "tgid")?,
        socket_sk: types.offset("socket", "sk")?,
        task_signal: types.offset("task_struct", "signal")?,
        signal_live: types.offset("signal_struct", "live")?,
        skc_cookie: types.offset("sock_common", "skc_cookie")?,
        task_files: types.offset("task_struct", "files")?,
        files_fdt: types.offset("files_struct", "fdt")?,
        fdtable_fd: types.offset("fdtable", "fd")?,
        file_private_data: types.offset("file", "private_data")?,
    })
}

/// System calls of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl) and its `struct pt_regs`.
#[cfg(target_arch = "x86_64")]
pub const SYSCALLS: SyscallAbi = SyscallAbi {
    nr: 120,
    arg1: 104,
    arg2: 96,
    read: 0,
    readv: 19,
    recvfrom: 45,
    recvmsg: 47,
    write: 1,
    writev: 20,
    sendto: 44,
    sendmsg: 46,
};

/// System calls of arm64 (include/uapi/asm-generic/unistd.h) and its `struct pt_regs`.
#[cfg(target_arch = "aarch64")]
pub const SYSCALLS: SyscallAbi = SyscallAbi {
    nr: 280,
    arg1: 8,
    arg2: 16,
    read: 63,
    readv: 65,
    recvfrom: 207,
    recvmsg: 212,
    write: 64,
    writev: 66,
    sendto: 206,
    sendmsg: 211,
};
