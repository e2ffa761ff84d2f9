//! Holds one exchange of a TorchServe worker: the frame it read, its reply, and their times.
//!
//! A worker connection emits it; the join and the request log read it.
//! Does not depend on: how frame and reply are found.

use crate::{
    exchange::{Peer, threads::ThreadWait},
    torchserve::frames::{command::WorkerCommand, reply::Reply},
};

/// A frame that a worker read, and the worker's reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerExchange {
    /// The connection; `tgid` is the worker.
    pub peer: Peer,
    /// The frontend's frame.
    pub command: WorkerCommand,
    /// Last byte of the worker's previous reply handed to the kernel, ns; `None` if that was not observed.
    pub idle_since_ns: Option<u64>,
    /// When the frontend's thread for the worker dispatched the frame, ns; `None` if that was not observed.
    pub dispatched_ns: Option<u64>,
    /// First byte sent by the frontend, ns; `None` if that was not observed.
    pub arrival_ns: Option<u64>,
    /// Last byte read by the worker, ns.
    pub last_read_ns: u64,
    /// The reply, or its last part if it was streamed.
    pub reply: Reply,
    /// First reply byte handed to the kernel, ns; `None` if only an upper bound is known.
    pub first_write_ns: Option<u64>,
    /// What the worker's thread waited for, from the last read to the first write; `None` if not one thread did both.
    pub thread_wait: Option<ThreadWait>,
    /// Last reply byte handed to the kernel, ns.
    pub last_write_ns: u64,
    /// Last reply byte read by the frontend, ns; `None` if that was not observed.
    pub reply_read_ns: Option<u64>,
}

/// The result of a load: the first exchange of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelLoad<'a> {
    /// Name that the model was registered under; `None` if it was not captured.
    pub model: Option<&'a str>,
    /// When the frontend had the reply, ns; `None` if the load failed.
    pub loaded_ns: Option<u64>,
}

impl WorkerExchange {
    /// Returns the load that this exchange is; `None` if it is a batch.
    pub fn load(&self) -> Option<ModelLoad<'_>> {
        let WorkerCommand::Load { model_name, .. } = &self.command else {
            return None;
        };
        Some(ModelLoad {
            model: model_name.as_deref(),
            loaded_ns: (self.reply.code == 200).then(|| self.replied_ns()),
        })
    }

    /// Returns when the frontend had the whole reply, ns: when it read it, else when the worker wrote it.
    pub fn replied_ns(&self) -> u64 {
        self.reply_read_ns.unwrap_or(self.last_write_ns)
    }
}
