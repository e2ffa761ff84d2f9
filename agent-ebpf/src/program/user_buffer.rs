//! Copies the first and last bytes of a transfer from the user's buffer, and only bytes that were transferred.
//!
//! `syscall` finds the buffer, hooks say which bytes they want.
//! Does not depend on: sockets, maps, what the bytes mean.

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_user};
use inferprobe_ebpf::{
    abi::{COPY_CAP, PAYLOAD_CAP},
    conn::Conn,
    segment::{Capture, TAIL_BYTES},
    sniff::{FRAME_HEAD_LEN, FrameHead, PEEK},
};

use crate::{
    globals::has_kernel_vectors,
    verifier::{forget, opaque},
};

/// Vectors that are read to find a transfer's last bytes.
const TAIL_VECTORS: u32 = 8;
/// Vectors whose first bytes are copied: gRPC in Java writes a response and its trailers as six.
const COPIED_VECTORS: u32 = 8;

/// User memory of a call.
#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    /// One buffer.
    Flat {
        /// Its address.
        start: u64,
    },
    /// An array of `struct iovec`.
    Vectors {
        /// Its address.
        start: u64,
        /// Its length.
        count: u64,
    },
    /// A `struct msghdr` that names such an array.
    Message {
        /// Its address.
        start: u64,
    },
}

/// Bytes of a transfer in user memory: one buffer, or vectors of them.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    /// Address of the buffer, or of the first vector.
    pub(crate) start: u64,
    /// Number of vectors; 0: one buffer.
    pub(crate) vectors: u32,
    total: u32,
}

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Vector {
    /// Address.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// Reads a `T` from user memory; `None` if it cannot be read.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper checks the user address and writes `size_of::<T>()` bytes to `value`.
    let failed = unsafe {
        bpf_probe_read_user(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        )
    };
    if failed == 0 { Some(value) } else { None }
}

/// Reads a vector; `None` if it cannot be read.
#[inline(always)]
pub(crate) fn read_vector(address: u64) -> Option<Vector> {
    if !has_kernel_vectors() {
        return read(address);
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const Vector) }.ok()
}

impl Bytes {
    /// No bytes: reading them fails. Unlike `None`, it has a value in each field, whichever of them the compiler reads.
    pub(crate) const UNKNOWN: Self = Self {
        start: 0,
        vectors: 0,
        total: 0,
    };

    /// Returns `total` bytes of `buffer`; `None` if the buffer's own header cannot be read.
    #[inline(always)]
    pub(crate) fn of(buffer: Buffer, total: u32) -> Option<Self> {
        match buffer {
            Buffer::Flat { start } => Some(Self {
                start,
                vectors: 0,
                total,
            }),
            Buffer::Vectors { start, count } => Some(Self {
                start,
                vectors: clamp(count),
                total,
            }),
            Buffer::Message { start } => {
                // msg_iov and msg_iovlen of struct user_msghdr (include/linux/socket.h), the same on all 64-bit
                // architectures.
                let header: Vector = read(start + 16)?;
                Some(Self {
                    start: header.start,
                    vectors: clamp(header.len),
                    total,
                })
            }
        }
    }

    /// Returns the same bytes, with [`forget`] applied to each number.
    #[inline(always)]
    pub(crate) fn forgotten(self, conn: &mut Conn) -> Self {
        Self {
            start: forget(conn, self.start),
            vectors: forget(conn, self.vectors as u64) as u32,
            total: forget(conn, self.total as u64) as u32,
        }
    }

    /// Whether there are more buffers than [`Bytes::copy`] copies from.
    #[inline(always)]
    pub(crate) fn is_scattered(self) -> bool {
        self.vectors > COPIED_VECTORS
    }

    /// Whether they are in one buffer.
    #[inline(always)]
    pub(crate) fn is_flat(self) -> bool {
        self.vectors == 0
    }

    /// Returns the first bytes and how many there are; `None` if they cannot be read.
    #[inline(always)]
    pub(crate) fn peek(self) -> Option<([u8; PEEK], usize)> {
        let (start, len) = self.first()?;
        let mut first = 0_u64;
        let len = if len > PEEK as u64 {
            PEEK as u32
        } else {
            len as u32
        };
        // SAFETY: at most eight bytes are written to an eight-byte value.
        let failed =
            unsafe { bpf_probe_read_user((&raw mut first).cast(), len, start as *const c_void) };
        if failed != 0 {
            None
        } else {
            Some((first.to_ne_bytes(), len as usize))
        }
    }

    /// Reads the first bytes as the header of an HTTP/2 frame; `None` if the first buffer is shorter, or cannot be
    /// read.
    #[inline(always)]
    pub(crate) fn frame_head(self) -> Option<FrameHead> {
        let (start, len) = self.first()?;
        if len < FRAME_HEAD_LEN as u64 {
            return None;
        }
        let first: u64 = read(start)?;
        let last: u8 = read(start + PEEK as u64)?;
        Some(FrameHead::new(first.to_ne_bytes(), last))
    }

    /// Returns the address of the first buffer and its length.
    #[inline(always)]
    fn first(self) -> Option<(u64, u64)> {
        if self.vectors == 0 {
            return Some((self.start, self.total as u64));
        }
        let first = read_vector(self.start)?;
        Some((first.start, smaller(first.len, self.total as u64)))
    }

    /// Copies what `capture` asks for to the payload; returns how many bytes were copied, `None` if memory was
    /// unreadable.
    #[inline(always)]
    pub(crate) fn copy(self, conn: &mut Conn, capture: Capture) -> Option<u16> {
        let capture = Capture {
            at: forget(conn, capture.at as u64) as u16,
            len: forget(conn, capture.len as u64) as u16,
        };
        if capture.len == 0 {
            return Some(0);
        }
        if self.vectors == 0 {
            return copy_flat(conn, capture.at, self.start, capture.len as u64);
        }
        let mut copied = 0_u32;
        let mut index = 0_u32;
        while index < COPIED_VECTORS {
            let left = forget(conn, (capture.len as u32 - copied) as u64);
            if index >= self.vectors || left == 0 {
                break;
            }
            let vector = read_vector(self.start + index as u64 * size_of::<Vector>() as u64)?;
            let len = smaller(vector.len, left);
            let now_copied = copy_flat(conn, capture.at + copied as u16, vector.start, len)? as u32;
            copied = forget(conn, (copied + now_copied) as u64) as u32;
            if (now_copied as u64) < len {
                break;
            }
            index += 1;
        }
        Some(copied as u16)
    }

    /// Returns the connection's tail with the transfer's last bytes shifted in; 0 if they are unknown.
    #[inline(always)]
    pub(crate) fn tail(self, conn: &mut Conn) -> u64 {
        if self.total == 0 {
            return 0;
        }
        let before = conn.record.tail;
        if self.vectors == 0 {
            return shift_in(before, self.start, self.total as u64);
        }
        let mut tail = before;
        let mut left = self.total as u64;
        let mut index = 0_u32;
        while index < TAIL_VECTORS {
            if index >= self.vectors || left == 0 {
                break;
            }
            let Some(vector) = read_vector(self.start + index as u64 * size_of::<Vector>() as u64)
            else {
                return 0;
            };
            let len = smaller(vector.len, left);
            tail = forget(conn, shift_in(tail, vector.start, len));
            left = forget(conn, left - len);
            index += 1;
        }
        if left == 0 { tail } else { 0 }
    }
}

/// Copies up to `len` bytes to `payload[at..]`; returns how many, `None` if they cannot be read.
///
/// The verifier bounds start and length separately, so their largest sum must end within the payload.
#[inline(always)]
pub(crate) fn copy_flat(conn: &mut Conn, at: u16, start: u64, len: u64) -> Option<u16> {
    let at = opaque(at as u32) & (PAYLOAD_CAP as u32 - 1);
    let len = smaller(len, COPY_CAP as u64);
    let conn: *mut Conn = conn;
    // SAFETY: `at` is less than PAYLOAD_CAP, `len` at most COPY_CAP, and the payload is as long as both.
    unsafe {
        let to = conn
            .cast::<u8>()
            .add(offset_of!(Conn, payload))
            .add(at as usize);
        if bpf_probe_read_user(to.cast(), len as u32, start as *const c_void) == 0 {
            Some(len as u16)
        } else {
            None
        }
    }
}

/// Returns the last eight bytes of a transfer of `bytes` that was copied whole to `payload[at..]`.
#[inline(always)]
pub(crate) fn copied_tail(conn: &Conn, at: u16, bytes: u32) -> u64 {
    let at = opaque(at as u32 + bytes - TAIL_BYTES) & (PAYLOAD_CAP as u32 - 1);
    let conn: *const Conn = conn;
    // SAFETY: `at` is less than PAYLOAD_CAP, behind which the payload has more than eight bytes.
    let last = unsafe {
        conn.cast::<u8>()
            .add(offset_of!(Conn, payload))
            .add(at as usize)
            .cast::<u64>()
            .read_unaligned()
    };
    u64::from_be(last)
}

/// Shifts the last bytes of a buffer into `tail`.
#[inline(always)]
fn shift_in(tail: u64, start: u64, len: u64) -> u64 {
    if len == 0 {
        return tail;
    }
    if len >= 8 {
        return read::<u64>(start + len - 8).map_or(0, u64::from_be);
    }
    let len = opaque(len as u32) & 7;
    let mut last = 0_u64;
    // SAFETY: at most seven bytes are written to an eight-byte value.
    let failed =
        unsafe { bpf_probe_read_user((&raw mut last).cast(), len, start as *const c_void) };
    if failed != 0 || len == 0 {
        return 0;
    }
    let bits = 8 * len;
    tail << bits | u64::from_be(last) >> (64 - bits)
}

#[inline(always)]
fn clamp(count: u64) -> u32 {
    // The kernel accepts no more in one call (UIO_MAXIOV, include/uapi/linux/uio.h).
    if count > 1024 { 1024 } else { count as u32 }
}

#[inline(always)]
fn smaller(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}
