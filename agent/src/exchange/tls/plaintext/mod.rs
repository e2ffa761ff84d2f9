//! Keeps the plaintext that TLS libraries moved, until the connection that it belongs to asks for it.
//!
//! A library knows no socket, so `join` finds the connection by what both show: the lengths of a request's records and of the
//! response's first one. Each later record must be as long as what the library says of it. What is not ends the join.
//! Does not depend on: sockets, times, what the plaintext says.

pub mod content;
pub mod stream;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use inferprobe_ebpf::{abi::kind, view::RecordView};

use crate::exchange::tls::plaintext::stream::{Fit, Stream};

/// Connections of libraries that are kept; beyond it, the silent ones are forgotten.
const STREAM_CAP: usize = 16_384;
/// Threads whose records are numbered; beyond it, all are forgotten.
const THREAD_CAP: usize = 65_536;
/// Silence after which a library's connection may be forgotten, ns.
const FORGET_NS: u64 = 60_000_000_000;

/// A connection of a library: its process, and its address there.
pub type StreamId = (u32, u64);

/// What libraries moved, shared by all connections.
#[derive(Debug, Clone, Default)]
pub struct Plaintexts(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    streams: BTreeMap<StreamId, Stream>,
    /// Number of the latest record of each thread.
    numbers: HashMap<(u32, u32), u32>,
}

impl Plaintexts {
    /// Adds a record of what a library moved.
    pub fn push(&self, view: &RecordView<'_>) {
        let record = &view.record;
        let mut kept = self.lock();
        if kept.numbers.len() >= THREAD_CAP {
            kept.numbers.clear();
        }
        let thread = (record.tgid, record.reader_tid);
        let before = kept.numbers.insert(thread, record.seq);
        if before.is_some_and(|before| record.seq != before.wrapping_add(1)) {
            // What is missing may be of any connection of the process.
            kept.forget_process(record.tgid);
        }
        if kept.streams.len() >= STREAM_CAP {
            let now_ns = record.last_read_ns;
            kept.streams
                .retain(|_, stream| now_ns.saturating_sub(stream.latest_ns) < FORGET_NS);
            if kept.streams.len() >= STREAM_CAP {
                kept.streams.clear();
            }
        }
        let stream = kept
            .streams
            .entry((record.tgid, record.cookie))
            .or_default();
        stream.latest_ns = record.last_read_ns;
        match record.kind {
            kind::PLAINTEXT_CUT => stream.cut(record.written_bytes),
            _ if record.written_bytes > 0 => stream.write(record.written_bytes, view.response),
            _ => {
                let tid = Some(record.reader_tid).filter(|tid| *tid != 0);
                stream.read(record.read_bytes, view.request, tid);
            }
        }
    }

    /// Returns the connection of a library of process `tgid` that read a request in records of these lengths and began to
    /// write a record of `written` bytes, and that is none of another socket's; `None` if there is none, or more than one.
    /// Thread `tid` read the request, if it is known.
    pub fn join(
        &self,
        cookie: u64,
        tgid: u32,
        tid: Option<u32>,
        request: &[u32],
        written: u32,
    ) -> Option<StreamId> {
        let mut kept = self.lock();
        let of_process = kept.streams.range_mut((tgid, 0)..=(tgid, u64::MAX));
        let mut fitting = of_process.filter(|(_, stream)| stream.may_be(tid, request, written));
        let (id, stream) = fitting.next()?;
        if fitting.next().is_some() {
            return None;
        }
        stream.joined = Some(cookie);
        Some(*id)
    }

    /// Takes the plaintext of a record that the server read.
    pub fn take_read(&self, id: StreamId, cookie: u64, bytes: u32) -> Fit {
        let mut kept = self.lock();
        match kept.joined(id, cookie) {
            Some(stream) => stream.take_read(bytes),
            None => Fit::Other,
        }
    }

    /// Takes the plaintext of a record that the server wrote.
    pub fn take_write(&self, id: StreamId, cookie: u64, bytes: u32) -> Fit {
        let mut kept = self.lock();
        match kept.joined(id, cookie) {
            Some(stream) => stream.take_write(bytes),
            None => Fit::Other,
        }
    }

    /// Ends the join with a socket.
    pub fn leave(&self, id: StreamId, cookie: u64) {
        let mut kept = self.lock();
        if kept.joined(id, cookie).is_some() {
            kept.streams.remove(&id);
        }
    }

    /// Forgets a process that ended.
    pub fn forget(&self, tgid: u32) {
        let mut kept = self.lock();
        kept.forget_process(tgid);
        kept.numbers.retain(|(process, _), _| *process != tgid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn joined(&mut self, id: StreamId, cookie: u64) -> Option<&mut Stream> {
        let stream = self.streams.get_mut(&id)?;
        (stream.joined == Some(cookie)).then_some(stream)
    }

    fn forget_process(&mut self, tgid: u32) {
        let later = self.streams.split_off(&(tgid, 0));
        let others = later
            .into_iter()
            .filter(|((process, _), _)| *process != tgid);
        self.streams.extend(others);
    }
}

#[cfg(test)]
mod tests;
