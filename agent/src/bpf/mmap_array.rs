//! An array map as memory of this process: read without a system call.
//!
//! More than a matter of cost: while a call reads a map, the kernel runs no kprobe's program on that CPU, whichever task
//! has it (kernel/bpf/syscall.c, `bpf_disable_instrumentation`).

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use bytemuck::AnyBitPattern;
use memmap2::{MmapOptions, MmapRaw};

/// The entries of an array map (`BPF_F_MMAPABLE`, 5.5), each a `T`; the kernel half writes them meanwhile.
#[derive(Debug)]
pub struct MmapArray<T> {
    memory: MmapRaw,
    entries: usize,
    _entry: PhantomData<T>,
}

impl<T: AnyBitPattern> MmapArray<T> {
    /// Maps the `entries` of an array map, whose values are as long as a `T`, in whole words.
    pub fn open(map: Map, entries: usize) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("it is no array");
        };
        Self::map(&map, entries).context("map it into memory")
    }

    fn map(map: &MapData, entries: usize) -> io::Result<Self> {
        let memory = MmapOptions::new()
            .len(entries * size_of::<T>())
            .map_raw_read_only(map.fd().as_fd().as_raw_fd())?;
        Ok(Self {
            memory,
            entries,
            _entry: PhantomData,
        })
    }

    /// A copy of the entry, which a program may have been writing meanwhile.
    pub fn get(&self, index: usize) -> Option<T> {
        if index >= self.entries {
            return None;
        }
        let entries: *const T = self.memory.as_ptr().cast();
        // SAFETY: the entry lies in the mapping, which is aligned to pages, and any bits are a `T`.
        Some(unsafe { ptr::read_volatile(entries.add(index)) })
    }
}
