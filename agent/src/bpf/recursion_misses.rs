//! How often the kernel has passed a program over.
//!
//! A program that runs is not run again on the same CPU before it is through (kernel/bpf/trampoline.c,
//! `__bpf_prog_enter_recur`; kernel/trace/bpf_trace.c, `__bpf_trace_run`). Where its task can lose the CPU meanwhile, another
//! task's transfer finds it so, and is not told of.

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

/// Times that the kernel passed the program over since it was loaded (5.12); 0 if it does not say.
pub fn count(program: BorrowedFd<'_>) -> u64 {
    // SAFETY: zeros are a `bpf_prog_info`.
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

/// Calls bpf(2) with a request that begins as `command`'s part of `union bpf_attr` does.
fn bpf<T>(command: bpf_cmd, request: &T) -> io::Result<i64> {
    // SAFETY: every request in this file is of its command's layout, and lives, with what it points to, for the call.
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

    /// Writes a line to the kernel's trace, which is what it is on: `bpf_trace_printk("x")`.
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
        // SAFETY: the kernel gave it to nobody else.
        unsafe { OwnedFd::from_raw_fd(number) }
    }

    #[test]
    fn a_program_that_runs_into_itself_is_counted() {
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
