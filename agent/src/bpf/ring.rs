//! Takes entries from a ring buffer of the kernel, without a system call.
//!
//! The event loop drains the rings of records and of process events.
//! Does not depend on: what the entries mean.

use std::{
    ops::Deref,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    slice,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use aya_obj::generated::{BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT, BPF_RINGBUF_HDR_SZ};
use memmap2::{MmapOptions, MmapRaw};
use rustix::param::page_size;

/// Size of an entry's header, and what entries are aligned to.
const HEADER_BYTES: usize = BPF_RINGBUF_HDR_SZ as usize;

/// The consumer's end of a ring (Documentation/bpf/ringbuf.rst, v6.18).
///
/// Unlike the library's, it maps the data once. The kernel offers them twice in a row, so that no entry is cut, but each
/// mapped page counts as memory of this process, and few entries reach over the end.
#[derive(Debug)]
pub struct Ring {
    map: MapData,
    /// The page with the position up to which entries were taken.
    taken: MmapRaw,
    /// The page with the position up to which the kernel has written, and the data.
    written: MmapRaw,
    /// Offset of the data in `written`.
    data: usize,
    /// Size of the data, a power of two.
    data_bytes: usize,
    position: usize,
    /// The entry that was in two parts.
    joined: Vec<u8>,
}

/// An entry. Dropping it gives its place in the ring back.
pub struct Entry<'a> {
    bytes: &'a [u8],
    taken: &'a AtomicUsize,
    end: usize,
}

impl Ring {
    /// Maps a ring.
    pub fn open(map: Map) -> Result<Self> {
        let Map::RingBuf(map) = map else {
            bail!("not a ring buffer");
        };
        Self::map(map).context("map into memory")
    }

    fn map(map: MapData) -> Result<Self> {
        let data_bytes = map.info()?.max_entries() as usize;
        let (page, fd) = (page_size(), map.fd().as_fd().as_raw_fd());
        let taken = MmapOptions::new().len(page).map_raw(fd)?;
        let written = MmapOptions::new()
            .offset(page as u64)
            .len(page + data_bytes)
            .map_raw_read_only(fd)?;
        let mut ring = Self {
            map,
            taken,
            written,
            data: page,
            data_bytes,
            position: 0,
            joined: Vec::new(),
        };
        ring.position = position(&ring.taken).load(Ordering::Acquire);
        Ok(ring)
    }

    /// Takes the next entry; `None` if there is none yet.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry borrows from the ring, which no iterator allows"
    )]
    pub fn next(&mut self) -> Option<Entry<'_>> {
        loop {
            if self.position == position(&self.written).load(Ordering::Acquire) {
                // Either this sees what the kernel wrote, or the kernel sees what was taken and wakes the thread
                // (kernel/bpf/ringbuf.c, `bpf_ringbuf_commit`).
                fence(Ordering::SeqCst);
                if self.position == position(&self.written).load(Ordering::Acquire) {
                    return None;
                }
            }
            // SAFETY: a header is aligned to its size, so it lies in the data as a whole. The kernel wrote it.
            let header = unsafe { &*self.at(self.position).cast::<AtomicU32>() };
            let header = header.load(Ordering::Acquire);
            if header & BPF_RINGBUF_BUSY_BIT != 0 {
                return None;
            }
            let entry_bytes = (header & !BPF_RINGBUF_DISCARD_BIT) as usize;
            let start = self.position + HEADER_BYTES;
            self.position = (start + entry_bytes).next_multiple_of(HEADER_BYTES);
            if header & BPF_RINGBUF_DISCARD_BIT != 0 {
                position(&self.taken).store(self.position, Ordering::Release);
                continue;
            }
            return Some(self.entry(start, entry_bytes));
        }
    }

    fn entry(&mut self, start: usize, entry_bytes: usize) -> Entry<'_> {
        let until_end = self.data_bytes - (start & (self.data_bytes - 1));
        // SAFETY: the entry is in the data, and the kernel does not write to it before it is given back.
        let part = |from, bytes| unsafe { slice::from_raw_parts(self.at(from), bytes) };
        let bytes = match entry_bytes.checked_sub(until_end) {
            None | Some(0) => part(start, entry_bytes),
            Some(rest) => {
                let parts = [part(start, until_end), part(start + until_end, rest)];
                self.joined = parts.concat();
                &self.joined
            }
        };
        Entry {
            bytes,
            taken: position(&self.taken),
            end: self.position,
        }
    }

    /// Returns where the byte at this position of the ring is mapped.
    fn at(&self, position: usize) -> *const u8 {
        let offset = self.data + (position & (self.data_bytes - 1));
        self.written.as_ptr().wrapping_add(offset)
    }
}

/// Returns the position that a page begins with.
fn position(page: &MmapRaw) -> &AtomicUsize {
    // SAFETY: a mapping is aligned to a page, and lives as long as the reference.
    unsafe { &*page.as_ptr().cast::<AtomicUsize>() }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

impl Deref for Entry<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        // The kernel reads it before it uses the place again.
        self.taken.store(self.end, Ordering::Release);
    }
}
