//! Describes one TLS record that a server read, or one read of what the kernel decrypted.
//!
//! Does not depend on: what it contains.

use crate::exchange::reads::Reads;

/// A whole record of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRecord {
    /// Its type.
    pub kind: u8,
    /// Bytes after its header.
    pub fragment: u32,
    /// Bytes of its header; 0: the kernel decrypted it.
    pub head: u32,
    /// First byte readable, ns; `None` if that was not observed.
    pub arrival_ns: Option<u64>,
    /// First byte read, ns.
    pub first_read_ns: u64,
    /// Last byte read, ns.
    pub last_read_ns: u64,
    /// Last byte readable, ns; `None` if that was not observed.
    pub last_arrival_ns: Option<u64>,
    /// Thread that read the last byte; `None` if that is unknown.
    pub reader_tid: Option<u32>,
}

impl ClientRecord {
    /// Begins a record at byte `at` of `reads`.
    pub fn begun(kind: u8, head: u32, reads: &Reads<'_>, at: u64) -> Self {
        Self {
            kind,
            fragment: 0,
            head,
            arrival_ns: reads.arrivals.at(at),
            first_read_ns: reads.first_ns,
            last_read_ns: reads.first_ns,
            last_arrival_ns: None,
            reader_tid: None,
        }
    }

    /// Adds bytes of the record, the last of which is byte `last` of `reads`.
    pub fn extend(&mut self, reads: &Reads<'_>, last: u64) {
        // Only the last byte of a read is read with its last part.
        self.last_read_ns = match last + 1 == reads.bytes {
            true => reads.last_ns,
            false => reads.first_ns,
        };
        self.last_arrival_ns = reads.arrivals.at(last);
        self.reader_tid = reads.reader_tid;
    }

    /// Bytes on the connection.
    pub fn bytes(&self) -> u64 {
        u64::from(self.head) + u64::from(self.fragment)
    }
}
