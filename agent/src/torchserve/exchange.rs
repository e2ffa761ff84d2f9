//! Holds one piece of work of a worker: the frame it read, its reply, and when each of them moved.
//!
//! Does not depend on: how the two are found.

use crate::{
    exchange::Peer,
    torchserve::frames::{command::WorkerCommand, reply::Reply},
};

/// A frame that a TorchServe worker read, and its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerExchange {
    /// Where; `tgid` is the worker.
    pub peer: Peer,
    /// What the frontend asked.
    pub command: WorkerCommand,
    /// When the worker wrote the last byte of its reply before, ns; `None` when that was not seen.
    pub idle_since_ns: Option<u64>,
    /// When the frontend's thread for the worker handed the frame on to be sent, ns; `None` when that was not seen.
    pub dispatched_ns: Option<u64>,
    /// First byte sent by the frontend, ns; `None` when that was not seen.
    pub arrival_ns: Option<u64>,
    /// Last byte read by the worker, ns.
    pub last_read_ns: u64,
    /// The reply, or its last part where it was streamed.
    pub reply: Reply,
    /// First reply byte handed to the kernel, ns; `None` when only its upper bound is known.
    pub first_write_ns: Option<u64>,
    /// Last reply byte handed to the kernel, ns.
    pub last_write_ns: u64,
    /// Last reply byte read by the frontend, ns; `None` when that was not seen.
    pub reply_read_ns: Option<u64>,
}

impl WorkerExchange {
    /// When the frontend had the whole reply, ns: as it read it, else as the worker wrote it.
    pub fn replied_ns(&self) -> u64 {
        self.reply_read_ns.unwrap_or(self.last_write_ns)
    }
}
