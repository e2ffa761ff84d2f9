//! Reads how often the kernel's recursion guard skipped a program.
//!
//! The kernel does not start a program on a CPU on which that program is still running (kernel/bpf/trampoline.c,
//! `__bpf_prog_enter_recur`; kernel/trace/bpf_trace.c, `__bpf_trace_run`). If a task loses its CPU inside the program, the
//! next task on that CPU finds it running, and its event is missed.
//! Does not depend on: hooks, attach modes.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::{bpf_cmd, bpf_prog_info};

/// `union bpf_attr`, as `BPF_OBJ_GET_INFO_BY_FD` has it (include/uapi/linux/bpf.h).
#[repr(C)]
struct Request {
    fd: u32,
    info_bytes: u32,
    info: u64,
}

/// Returns how often the kernel skipped the program since it was loaded (5.12); 0 if the kernel does not report it.
pub fn count(program: BorrowedFd<'_>) -> u64 {
    // SAFETY: zero bytes are a valid `bpf_prog_info`.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let request = Request {
        fd: program.as_raw_fd().cast_unsigned(),
        info_bytes: u32::try_from(size_of::<bpf_prog_info>()).expect("a small struct"),
        info: (&raw mut info) as u64,
    };
    match bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &request) {
        Ok(_) => info.recursion_misses,
        Err(_) => 0,
    }
}

/// Calls bpf(2) with a request that starts with the fields of `union bpf_attr` for `command`.
fn bpf<T>(command: bpf_cmd, request: &T) -> io::Result<i64> {
    // SAFETY: each request in this file has the layout of its command; it and its pointers are valid during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_ref(request),
            size_of::<T>(),
        )
    };
    match result {
        ..0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::CStr,
        os::fd::{AsFd as _, FromRawFd as _, OwnedFd},
    };

    use aya_obj::generated::{bpf_insn, bpf_prog_type};

    use super::*;

    /// `bpf_trace_printk("x")`, attached to the tracepoint that this call hits.
    const PROGRAM: [u64; 8] = [
        // r1 = "x\0"
        0x0000_0078_0000_01b7,
        // *(u64 *)(r10 - 8) = r1
        0x0000_0000_fff8_1a7b,
        // r1 = r10
        0x0000_0000_0000_a1bf,
        // r1 += -8
        0xffff_fff8_0000_0107,
        // r2 = 2
        0x0000_0002_0000_02b7,
        // call bpf_trace_printk
        0x0000_0006_0000_0085,
        // r0 = 0
        0x0000_0000_0000_00b7,
        // exit
        0x0000_0000_0000_0095,
    ];
    const TRACEPOINT: &CStr = c"bpf_trace_printk";

    /// The first fields of `union bpf_attr` for loading, attaching and running a program.
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        program: u64,
        license: u64,
    }

    #[repr(C)]
    struct Attach {
        name: u64,
        program: u32,
        reserved: u32,
    }

    #[repr(C)]
    struct Run {
        program: u32,
        result: u32,
        rest: [u64; 9],
    }

    fn descriptor(number: i64) -> OwnedFd {
        let number = i32::try_from(number).unwrap();
        // SAFETY: the descriptor is new, so this is its only owner.
        unsafe { OwnedFd::from_raw_fd(number) }
    }

    #[test]
    fn recursion_of_a_program_is_counted() {
        const { assert!(size_of::<bpf_insn>() == size_of::<u64>()) };
        let loaded = bpf(
            bpf_cmd::BPF_PROG_LOAD,
            &Load {
                kind: bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32,
                instructions: PROGRAM.len() as u32,
                program: PROGRAM.as_ptr() as u64,
                license: c"GPL".as_ptr() as u64,
            },
        );
        let program = match loaded {
            Ok(number) => descriptor(number),
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                println!("skipped: needs root to load a program");
                return;
            }
            Err(err) => panic!("{err}"),
        };
        assert_eq!(count(program.as_fd()), 0);
        let number = program.as_raw_fd().cast_unsigned();
        let attached = bpf(
            bpf_cmd::BPF_RAW_TRACEPOINT_OPEN,
            &Attach {
                name: TRACEPOINT.as_ptr() as u64,
                program: number,
                reserved: 0,
            },
        );
        let _attached = descriptor(attached.unwrap());
        let run = Run {
            program: number,
            result: 0,
            rest: [0; 9],
        };
        bpf(bpf_cmd::BPF_PROG_TEST_RUN, &run).unwrap();
        assert!(count(program.as_fd()) > 0);
    }
}
