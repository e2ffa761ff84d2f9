//! How often the kernel has passed a program over.
//!
//! A program that runs is not run again on the same CPU before it is through (kernel/bpf/trampoline.c,
//! `__bpf_prog_enter_recur`; kernel/trace/bpf_trace.c, `__bpf_trace_run`). Where its task can lose the CPU meanwhile, another
//! task's transfer finds it so, and is not told of.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya_obj::generated::{bpf_cmd, bpf_prog_info};

/// `union bpf_attr`, as `BPF_OBJ_GET_INFO_BY_FD` has it (include/uapi/linux/bpf.h).
#[repr(C)]
struct Request {
    fd: u32,
    info_bytes: u32,
    info: u64,
}

/// Times that the kernel passed the program over since it was loaded (5.12); 0 if it does not say.
pub fn count(program: BorrowedFd<'_>) -> u64 {
    // SAFETY: zeros are a `bpf_prog_info`.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let request = Request {
        fd: program.as_raw_fd().cast_unsigned(),
        info_bytes: u32::try_from(size_of::<bpf_prog_info>()).expect("a small struct"),
        info: (&raw mut info) as u64,
    };
    // SAFETY: `request` is of the command's layout, and names `info` with its own size.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_OBJ_GET_INFO_BY_FD as libc::c_long,
            &raw const request,
            size_of::<Request>(),
        )
    };
    if failed < 0 { 0 } else { info.recursion_misses }
}
