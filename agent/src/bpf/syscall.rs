//! Calls bpf(2) for what the library keeps no handle of: programs that outlive the object they were loaded from.
//!
//! Programs are attached, run and counted through their descriptors alone.
//! Does not depend on: hooks, attach modes, the object.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_info};

/// `union bpf_attr`, as `BPF_OBJ_GET_INFO_BY_FD` has it (include/uapi/linux/bpf.h).
#[repr(C)]
struct GetInfo {
    fd: u32,
    info_bytes: u32,
    info: u64,
}

/// The same for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct OpenRawTracepoint {
    name: u64,
    program: u32,
    padding: u32,
    cookie: u64,
}

/// The same for `BPF_LINK_CREATE`.
#[repr(C)]
struct CreateLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    iterator: u64,
    iterator_bytes: u32,
    padding: u32,
}

/// The same for `BPF_ITER_CREATE`.
#[repr(C)]
struct CreateIterator {
    link: u32,
    flags: u32,
}

/// Attaches a BTF-typed program to the tracepoint or function that it was loaded for, for as long as the link is open.
///
/// Needs no capability, because the kernel checked them when the program was loaded (kernel/bpf/syscall.c,
/// `bpf_raw_tp_link_attach`, v6.18).
pub(super) fn attach_typed(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let request = OpenRawTracepoint {
        name: 0,
        program: number(program),
        padding: 0,
        cookie: 0,
    };
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &request).map(descriptor)
}

/// Starts an iterator program; reading the file runs it.
pub(super) fn start_iterator(program: BorrowedFd<'_>) -> io::Result<File> {
    let request = CreateLink {
        program: number(program),
        target: 0,
        attach_type: bpf_attach_type::BPF_TRACE_ITER as u32,
        flags: 0,
        iterator: 0,
        iterator_bytes: 0,
        padding: 0,
    };
    let link = descriptor(bpf(bpf_cmd::BPF_LINK_CREATE, &request)?);
    let request = CreateIterator {
        link: number(link.as_fd()),
        flags: 0,
    };
    bpf(bpf_cmd::BPF_ITER_CREATE, &request).map(|file| descriptor(file).into())
}

/// Returns how often the kernel's recursion guard skipped the program since it was loaded (5.12); 0 if the kernel does
/// not report it.
///
/// The kernel does not start a program on a CPU on which that program is still running (kernel/bpf/trampoline.c,
/// `__bpf_prog_enter_recur`; kernel/trace/bpf_trace.c, `__bpf_trace_run`). If a task loses its CPU inside the program, the
/// next task on that CPU finds it running, and its event is missed.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> u64 {
    // SAFETY: zero bytes are a valid `bpf_prog_info`.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let request = GetInfo {
        fd: number(program),
        info_bytes: u32::try_from(size_of::<bpf_prog_info>()).expect("a small struct"),
        info: (&raw mut info) as u64,
    };
    match bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &request) {
        Ok(_) => info.recursion_misses,
        Err(_) => 0,
    }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn descriptor(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just made the descriptor, so this is its only owner.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Calls bpf(2) with a request that starts with the fields of `union bpf_attr` for `command`.
fn bpf<T>(command: bpf_cmd, request: &T) -> io::Result<i32> {
    // SAFETY: each request in this file has the layout of its command; it and its pointers are valid during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_ref(request),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

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

    /// The first fields of `union bpf_attr` for loading a program, and those for running it.
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        program: u64,
        license: u64,
    }

    #[repr(C)]
    struct Run {
        program: u32,
        result: u32,
        rest: [u64; 9],
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
        assert_eq!(recursion_misses(program.as_fd()), 0);
        let number = program.as_raw_fd().cast_unsigned();
        let attached = bpf(
            bpf_cmd::BPF_RAW_TRACEPOINT_OPEN,
            &OpenRawTracepoint {
                name: TRACEPOINT.as_ptr() as u64,
                program: number,
                padding: 0,
                cookie: 0,
            },
        );
        let _attached = descriptor(attached.unwrap());
        let run = Run {
            program: number,
            result: 0,
            rest: [0; 9],
        };
        bpf(bpf_cmd::BPF_PROG_TEST_RUN, &run).unwrap();
        assert!(recursion_misses(program.as_fd()) > 0);
    }
}
