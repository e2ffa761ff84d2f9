//! Maps an array map into memory, so that the agent reads it without a system call.
//!
//! This also avoids losses: while bpf(2) reads a map, the kernel runs no kprobe program on that CPU, for any task
//! (kernel/bpf/syscall.c, `bpf_disable_instrumentation`).
//! Does not depend on: what the entries mean.

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

/// Entries of an array map (`BPF_F_MMAPABLE`, 5.5), each a `T`, which the programs write concurrently.
#[derive(Debug)]
pub struct MmapArray<T> {
    memory: MmapRaw,
    entries: usize,
    _entry: PhantomData<T>,
}

impl<T: AnyBitPattern> MmapArray<T> {
    /// Maps the `entries` of an array map, whose values have the size of `T`, a multiple of eight bytes.
    pub fn open(map: Map, entries: usize) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("not an array map");
        };
        Self::map(&map, entries).context("map into memory")
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

    /// Copies the entry, which a program may be writing at the same time; `None` if there is none with that index.
    pub fn get(&self, index: usize) -> Option<T> {
        if index >= self.entries {
            return None;
        }
        let entries: *const T = self.memory.as_ptr().cast();
        // SAFETY: the entry is inside the mapping, which is page-aligned, and any bits are a valid `T`.
        Some(unsafe { ptr::read_volatile(entries.add(index)) })
    }
}
