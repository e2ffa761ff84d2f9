//! Keeps what a TLS library read and wrote on one of its connections, in order, until records of the same lengths were observed.
//!
//! A record that the server reads is one read of the library, or several. What the library writes at once is one record, or
//! several, of which all but the last are full.
//! Does not depend on: sockets, times, other connections.

use std::collections::VecDeque;

/// Most bytes of plaintext in a record (RFC 8446, section 5.1).
const RECORD_CAP: u64 = 1 << 14;
/// Reads, and writes, that wait for their records.
const WAITING_CAP: usize = 4_096;
/// Bytes of plaintext that are kept while they wait.
const BYTES_CAP: usize = 1 << 20;
/// Most bytes of an alert, and of a message that announces new keys: no library's caller sees either.
const CONTROL_CAP: u32 = 5;

/// One call of the library.
#[derive(Debug)]
struct Piece {
    bytes: u64,
    /// The first of them, as many as were copied.
    visible: Vec<u8>,
    /// How many were taken.
    taken: u64,
}

/// Plaintext of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// How many bytes it has.
    pub bytes: u64,
    /// The first of them, as many as were copied.
    pub visible: Vec<u8>,
}

/// Whether a record is the next of what the library read, or wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Next(Taken),
    /// It is none of the library's caller: an alert, or new keys.
    Control,
    /// It is not.
    Other,
}

/// A connection of a library.
#[derive(Debug, Default)]
pub struct Stream {
    /// The socket that it belongs to; `None`: not known.
    pub joined: Option<u64>,
    /// When it was last used, ns.
    pub latest_ns: u64,
    reads: VecDeque<Piece>,
    writes: VecDeque<Piece>,
    /// Thread of the latest read.
    reader_tid: Option<u32>,
    /// Whether the latest write has to be repeated, with the same bytes.
    repeats: bool,
    kept_bytes: usize,
}

impl Stream {
    /// Adds a read of so many bytes, of which these were copied.
    pub fn read(&mut self, bytes: u64, visible: &[u8], tid: Option<u32>) {
        if self.joined.is_none() && !self.writes.is_empty() {
            // Another request.
            self.clear();
        }
        self.reader_tid = tid;
        let piece = self.piece(bytes, visible);
        self.reads.push_back(piece);
        self.limit();
    }

    /// Adds a write.
    pub fn write(&mut self, bytes: u64, visible: &[u8]) {
        if std::mem::take(&mut self.repeats) {
            if self.writes.back().is_some_and(|last| last.bytes == bytes) {
                return;
            }
            self.fail();
        }
        let piece = self.piece(bytes, visible);
        self.writes.push_back(piece);
        self.limit();
    }

    /// Corrects the latest write: the library took only `bytes` of it.
    pub fn cut(&mut self, bytes: u64) {
        let Some(last) = self.writes.back_mut() else {
            return;
        };
        if bytes == 0 {
            self.repeats = true;
        } else if bytes < last.taken || bytes > last.bytes {
            self.fail();
        } else {
            last.bytes = bytes;
            last.visible
                .truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
            if last.taken == bytes {
                self.writes.pop_back();
            }
        }
    }

    /// Whether it may be the connection of a socket whose server read a request in records of these lengths, on this thread, and
    /// began to write a record of `written` bytes.
    pub fn may_be(&self, tid: Option<u32>, request: &[u32], written: u32) -> bool {
        let is_thread = match (tid, self.reader_tid) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let first = self.writes.front();
        let is_first =
            first.is_some_and(|first| first.taken == 0 && next_record(first) == u64::from(written));
        self.joined.is_none() && is_thread && is_first && self.are_reads(request)
    }

    /// Whether all reads are those of records of these lengths.
    fn are_reads(&self, request: &[u32]) -> bool {
        let mut from = 0;
        for &record in request {
            let Some(reads) = self.reads_of(from, record) else {
                return false;
            };
            from += reads;
        }
        from > 0 && from == self.reads.len()
    }

    /// Returns how many reads, from this one on, are a record of so many bytes; `None` if none end where it does.
    fn reads_of(&self, from: usize, bytes: u32) -> Option<usize> {
        let mut left = u64::from(bytes);
        for (index, read) in self.reads.iter().skip(from).enumerate() {
            left = left.checked_sub(read.bytes)?;
            if left == 0 {
                return Some(index + 1);
            }
        }
        None
    }

    /// Takes the plaintext of a record of so many bytes that the server read.
    pub fn take_read(&mut self, bytes: u32) -> Fit {
        let Some(reads) = self.reads_of(0, bytes) else {
            return match bytes <= CONTROL_CAP {
                true => Fit::Control,
                false => Fit::Other,
            };
        };
        let mut visible = Vec::new();
        let mut is_visible = true;
        for read in self.reads.drain(..reads) {
            self.kept_bytes -= read.visible.len();
            if is_visible {
                visible.extend_from_slice(&read.visible);
                is_visible = read.visible.len() as u64 == read.bytes;
            }
        }
        Fit::Next(Taken {
            bytes: bytes.into(),
            visible,
        })
    }

    /// Takes the plaintext of a record of so many bytes that the server wrote.
    pub fn take_write(&mut self, bytes: u32) -> Fit {
        let next = self.writes.front_mut();
        let is_next = next
            .as_ref()
            .is_some_and(|next| next_record(next) == u64::from(bytes));
        let Some(next) = next.filter(|_| is_next) else {
            let is_whole = self.writes.front().is_none_or(|next| next.taken == 0);
            let is_control = is_whole && bytes <= CONTROL_CAP;
            return if is_control { Fit::Control } else { Fit::Other };
        };
        let from = usize::try_from(next.taken).unwrap_or(usize::MAX);
        next.taken += u64::from(bytes);
        let to = usize::try_from(next.taken).unwrap_or(usize::MAX);
        let copied = next.visible.len();
        let visible = next.visible[from.min(copied)..to.min(copied)].to_vec();
        if next.taken == next.bytes {
            self.kept_bytes -= copied;
            self.writes.pop_front();
        }
        Fit::Next(Taken {
            bytes: bytes.into(),
            visible,
        })
    }

    fn piece(&mut self, bytes: u64, visible: &[u8]) -> Piece {
        self.kept_bytes += visible.len();
        Piece {
            bytes,
            visible: visible.to_vec(),
            taken: 0,
        }
    }

    /// How many reads, or writes, wait.
    pub fn waiting(&self) -> usize {
        self.reads.len().max(self.writes.len())
    }

    /// Fails if too much waits: its records are not observed.
    fn limit(&mut self) {
        if self.waiting() > WAITING_CAP || self.kept_bytes > BYTES_CAP {
            self.fail();
        }
    }

    /// Ends the join: what follows is not what the socket shows.
    fn fail(&mut self) {
        self.clear();
        self.joined = None;
    }

    fn clear(&mut self) {
        self.reads.clear();
        self.writes.clear();
        self.repeats = false;
        self.kept_bytes = 0;
    }
}

/// Bytes of plaintext in the next record of a write.
fn next_record(write: &Piece) -> u64 {
    write.bytes.saturating_sub(write.taken).min(RECORD_CAP)
}
