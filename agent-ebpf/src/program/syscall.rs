//! Finds the buffer of the running call: from its registers, or from the `struct msghdr` of a socket function.
//!
//! Hooks hand the buffer to `user_buffer`, which copies out of it.
//! Does not depend on: maps, sockets, what the bytes mean.

use core::ffi::c_void;

use crate::{
    access::{Access, Btf, Raw},
    globals::{FEATURES, OFFSETS, SYSCALLS, constant},
    user_buffer::{Buffer, read_vector},
};

/// Returns the buffer of the system call that runs with the registers `regs`; `None` if the call moves no socket bytes.
#[inline(always)]
pub(crate) fn buffer(regs: *const c_void) -> Option<Buffer> {
    // SAFETY: `regs` is the typed `pt_regs` of the running task.
    let (nr, arg1, arg2) = unsafe {
        (
            Btf::field::<u32>(regs, constant(&SYSCALLS.nr)),
            Btf::field::<u64>(regs, constant(&SYSCALLS.arg1)),
            Btf::field::<u64>(regs, constant(&SYSCALLS.arg2)),
        )
    };
    if is_call(nr, &SYSCALLS.read)
        || is_call(nr, &SYSCALLS.write)
        || is_call(nr, &SYSCALLS.recvfrom)
        || is_call(nr, &SYSCALLS.sendto)
    {
        return Some(Buffer::Flat { start: arg1 });
    }
    if is_call(nr, &SYSCALLS.readv) || is_call(nr, &SYSCALLS.writev) {
        return Some(Buffer::Vectors {
            start: arg1,
            count: arg2,
        });
    }
    if is_call(nr, &SYSCALLS.recvmsg) || is_call(nr, &SYSCALLS.sendmsg) {
        return Some(Buffer::Message { start: arg1 });
    }
    None
}

/// Whether `nr` is the number of the system call `call`, a field of [`SYSCALLS`].
#[inline(always)]
pub(crate) fn is_call(nr: u32, call: &'static u32) -> bool {
    nr == constant(call)
}

/// Returns a register of the calling program, as a raw tracepoint gets it; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn register(regs: *const c_void, offset: &'static u32) -> u64 {
    // SAFETY: registers are u64 fields of `struct pt_regs`.
    unsafe { Raw::field(regs, constant(offset)) }
}

/// Returns the buffer of a kernel `struct msghdr`; `None` if its bytes are not in user memory.
///
/// Must run before the transfer, which advances the iterator (include/linux/uio.h).
#[inline(always)]
pub(crate) fn message_buffer(message: *const c_void) -> Option<Buffer> {
    let iter = message.wrapping_byte_add(constant(&OFFSETS.msg_iter) as usize);
    // SAFETY: fields of `struct iov_iter`; the kind is one byte from 5.14 on, and the low byte of a u32 before.
    unsafe {
        let kind = Raw::field::<u8>(iter, constant(&OFFSETS.iter_kind)) as u32
            & constant(&FEATURES.iter_kind_mask);
        if kind == constant(&FEATURES.iter_is_buffer) {
            let start: u64 = Raw::field(iter, constant(&OFFSETS.iter_buffer));
            let offset: u64 = Raw::field(iter, constant(&OFFSETS.iter_offset));
            return Some(Buffer::Flat {
                start: start + offset,
            });
        }
        if kind != constant(&FEATURES.iter_is_vectors) {
            return None;
        }
        let start: u64 = Raw::field(iter, constant(&OFFSETS.iter_vectors));
        let count: u64 = Raw::field(iter, constant(&OFFSETS.iter_count));
        if count != 1 {
            return Some(Buffer::Vectors { start, count });
        }
        Some(Buffer::Flat {
            start: read_vector(start)?.start,
        })
    }
}
