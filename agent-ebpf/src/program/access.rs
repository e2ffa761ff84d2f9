//! Reads fields of kernel objects: BTF-typed, checked by the verifier, or raw, checked as they are read.
//!
//! `Sock` and the reads of tasks and calls are generic over it; `backend` adds where state is kept.
//! Does not depend on: maps, what a field means.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_skc_to_tcp_sock,
    bpf_skc_to_unix_sock,
};

/// How a program reads a kernel object.
pub(crate) trait Access: Copy {
    /// Reads a `T` at `offset` bytes into a kernel object; zeros if that cannot be read.
    ///
    /// # Safety
    ///
    /// The field at `offset` is a `T`, for which zeros are a valid value. With [`Btf`], the verifier knows the type of
    /// `object`.
    unsafe fn field<T: Copy>(object: *const c_void, offset: u32) -> T;

    /// Returns the running task's `task_struct`.
    fn current_task() -> *const c_void;

    /// Returns the `struct sock` at `sk` as a `struct tcp_sock`; `None` if it is not one. `is_tcp` says so by its
    /// fields.
    fn as_tcp(sk: *mut c_void, is_tcp: impl FnOnce() -> bool) -> Option<*const c_void>;

    /// Returns the `struct sock` at `sk` as a `struct unix_sock`; `None` if it is not one. `is_unix` says so by its
    /// fields.
    fn as_unix(sk: *mut c_void, is_unix: impl FnOnce() -> bool) -> Option<*const c_void>;
}

/// Programs whose arguments have BTF types: typed tracepoints, fentry and fexit, iterators. A field is read directly,
/// and the verifier checks its offset against the type.
#[derive(Clone, Copy)]
pub(crate) struct Btf;

impl Access for Btf {
    #[inline(always)]
    unsafe fn field<T: Copy>(object: *const c_void, offset: u32) -> T {
        // SAFETY: the caller's; the verifier refuses the program otherwise.
        unsafe { core::ptr::read_volatile(object.cast::<u8>().add(offset as usize).cast::<T>()) }
    }

    #[inline(always)]
    fn current_task() -> *const c_void {
        // SAFETY: the helper returns a typed, non-null pointer in tracing programs (5.11).
        unsafe { bpf_get_current_task_btf() }.cast()
    }

    #[inline(always)]
    fn as_tcp(sk: *mut c_void, _is_tcp: impl FnOnce() -> bool) -> Option<*const c_void> {
        // SAFETY: the helper checks the protocol and returns a typed `tcp_sock` or null.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
        non_null(tcp.cast())
    }

    #[inline(always)]
    fn as_unix(sk: *mut c_void, _is_unix: impl FnOnce() -> bool) -> Option<*const c_void> {
        // SAFETY: the helper checks the family and returns a typed `unix_sock` or null (5.16).
        let unix = unsafe { bpf_skc_to_unix_sock(sk) };
        non_null(unix.cast())
    }
}

/// Programs whose arguments are numbers to the verifier: kprobes and raw tracepoints. The kernel checks each read for
/// faults, and the agent's self-test checks the values.
#[derive(Clone, Copy)]
pub(crate) struct Raw;

impl Access for Raw {
    #[inline(always)]
    unsafe fn field<T: Copy>(object: *const c_void, offset: u32) -> T {
        let from = object.cast::<u8>().wrapping_add(offset as usize);
        // SAFETY: the helper checks the address; zeros are a value of `T`, by the caller's word.
        unsafe { bpf_probe_read_kernel(from.cast::<T>()).unwrap_or_else(|_| core::mem::zeroed()) }
    }

    #[inline(always)]
    fn current_task() -> *const c_void {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_task() as *const c_void }
    }

    #[inline(always)]
    fn as_tcp(sk: *mut c_void, is_tcp: impl FnOnce() -> bool) -> Option<*const c_void> {
        if is_tcp() { non_null(sk) } else { None }
    }

    #[inline(always)]
    fn as_unix(sk: *mut c_void, is_unix: impl FnOnce() -> bool) -> Option<*const c_void> {
        if is_unix() { non_null(sk) } else { None }
    }
}

#[inline(always)]
fn non_null(object: *mut c_void) -> Option<*const c_void> {
    if object.is_null() {
        None
    } else {
        Some(object.cast_const())
    }
}
