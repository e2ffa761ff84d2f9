//! Keeps the running calls on watched sockets, by thread: what a call's return no longer says of its entry.
//!
//! Raw programs use it; BTF-typed ones find everything at the return.
//! Does not depend on: sockets, hooks.

use aya_ebpf::{
    bindings::BPF_ANY, btf_maps::HashMap, helpers::bpf_get_current_pid_tgid, macros::btf_map,
};
use inferprobe_ebpf::{abi::DropReason, conn::Waits};

use crate::{globals::has_run_delay, user_buffer::Buffer};

/// A call that has begun.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// The socket's address.
    pub(crate) sk: u64,
    /// When it began.
    pub(crate) start_ns: u64,
    buffer: u64,
    vectors: u64,
    shape: u32,
    /// Flags of a receiving call (`MSG_PEEK` and the like).
    pub(crate) flags: i32,
    /// One of [`direction`].
    pub(crate) direction: u64,
    /// What the scheduler had counted of the thread; zeros if it does not count.
    pub(crate) run_delay_ns: u64,
    pub(crate) sleeps: u64,
}

/// Direction of a call's bytes.
pub(crate) mod direction {
    /// Out of the socket.
    pub(crate) const RECV: u64 = 0;
    /// Into it.
    pub(crate) const SEND: u64 = 1;
}

/// Shapes of a buffer.
const UNKNOWN: u32 = 0;
const FLAT: u32 = 1;
const VECTORS: u32 = 2;
const MESSAGE: u32 = 3;

impl Call {
    #[inline(always)]
    pub(crate) fn new(sk: u64, start_ns: u64, direction: u64) -> Self {
        Self {
            sk,
            start_ns,
            buffer: 0,
            vectors: 0,
            shape: UNKNOWN,
            flags: 0,
            direction,
            run_delay_ns: 0,
            sleeps: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn set_waits(&mut self, waits: Option<Waits>) {
        if let Some(waits) = waits {
            self.run_delay_ns = waits.run_delay_ns;
            self.sleeps = waits.sleeps;
        }
    }

    #[inline(always)]
    pub(crate) fn waits(&self) -> Option<Waits> {
        if !has_run_delay() {
            return None;
        }
        Some(Waits {
            run_delay_ns: self.run_delay_ns,
            sleeps: self.sleeps,
        })
    }

    #[inline(always)]
    pub(crate) fn set_buffer(&mut self, buffer: Buffer) {
        match buffer {
            Buffer::Flat { start } => {
                self.buffer = start;
                self.shape = FLAT;
            }
            Buffer::Vectors { start, count } => {
                self.buffer = start;
                self.vectors = count;
                self.shape = VECTORS;
            }
            Buffer::Message { start } => {
                self.buffer = start;
                self.shape = MESSAGE;
            }
        }
    }

    #[inline(always)]
    pub(crate) fn buffer(&self) -> Option<Buffer> {
        match self.shape {
            FLAT => Some(Buffer::Flat { start: self.buffer }),
            VECTORS => Some(Buffer::Vectors {
                start: self.buffer,
                count: self.vectors,
            }),
            MESSAGE => Some(Buffer::Message { start: self.buffer }),
            _ => None,
        }
    }
}

/// Its size is the number of threads that may be in a call at once.
#[btf_map]
static CALLS: HashMap<u64, Call, 16384> = HashMap::new();

/// Notes that the running thread begins a call.
#[inline(always)]
pub(crate) fn begin(call: &Call) -> Result<(), DropReason> {
    let thread = bpf_get_current_pid_tgid();
    // No call begins within another, so the kernel skipped the return of the earlier one.
    let missed = CALLS.get_ptr(thread).is_some();
    CALLS
        .insert(thread, call, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)?;
    if missed {
        Err(DropReason::ReturnMissed)
    } else {
        Ok(())
    }
}

/// Returns the running thread's call.
#[inline(always)]
pub(crate) fn current() -> Option<&'static Call> {
    let call = CALLS.get_ptr(bpf_get_current_pid_tgid())?;
    // SAFETY: a map value, which only the running thread writes.
    Some(unsafe { &*call })
}

/// Removes the running thread's call.
#[inline(always)]
pub(crate) fn end() {
    // There is none if the thread began it before the watch.
    let _ = CALLS.remove(bpf_get_current_pid_tgid());
}
