//! Defines what the reference server records of a finished request, as one JSON object.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

/// Every finished request of a server, shared by the threads of its connections.
pub type Stamps = Arc<Mutex<Vec<Stamp>>>;

/// Entry and return of a system call, on CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Just before the call.
    pub call_ns: u64,
    /// Just after it.
    pub return_ns: u64,
}

/// One request, as its server recorded it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stamp {
    /// Connection, in order of acceptance, from 0.
    pub conn: u64,
    /// The client's port; `None` on a unix socket.
    pub peer_port: Option<u16>,
    /// Number of the request on its connection, from 0.
    pub seq: u32,
    /// Request target, query included.
    pub target: String,
    /// When poll reported the request readable; `None` unless the server sleeps before it reads.
    pub readable_ns: Option<u64>,
    /// The read that brought the first byte of the request.
    pub first_read: Call,
    /// The read that brought its last byte.
    pub last_read: Call,
    /// The write of the first byte of the response (interim responses do not count).
    pub first_write: Call,
    /// The write of its last byte.
    pub last_write: Call,
    /// How long the kernel says that the thread waited for a CPU between last read and first write; `None` unless the
    /// handler uses CPU time.
    pub starved_ns: Option<u64>,
    /// Status code of the response.
    pub status: u16,
    /// Head and body of the request.
    pub request_bytes: u64,
    /// Head and body of the response as sent.
    pub response_bytes: u64,
}

impl Stamp {
    /// Returns the time from the return of the last read to the call of the first write.
    pub fn handler_ns(&self) -> u64 {
        self.first_write
            .call_ns
            .saturating_sub(self.last_read.return_ns)
    }
}
