//! Lists the stages of a request that are counted when they are unknown, with the moments that bound them.
//!
//! `requests` counts under their names, and the documentation has one row for each. Does not depend on: values.

use crate::metrics::{families, family::Family};

/// One stage of a request.
#[derive(Debug)]
pub struct Stage {
    /// Label `stage`.
    pub name: &'static str,
    /// Moment at which it begins.
    pub from: &'static str,
    /// Moment at which it ends.
    pub to: &'static str,
    /// Family with its histogram; `None` if it has none.
    pub family: Option<&'static Family>,
}

/// The wait in the socket.
pub static QUEUE: Stage = Stage {
    name: "queue",
    from: "first request byte readable",
    to: "first request byte read",
    family: Some(&families::REQUEST_QUEUE),
};

/// The server's work.
pub static HANDLER: Stage = Stage {
    name: "handler",
    from: "last request byte read",
    to: "first response byte written",
    family: Some(&families::REQUEST_HANDLER),
};

/// The part of the handler stage in which the serving thread waited for a CPU.
pub static STARVED: Stage = Stage {
    name: "starved",
    from: "last request byte read by the thread that responds",
    to: "first response byte written by it",
    family: Some(&families::REQUEST_STARVED),
};

/// The writing of the response.
pub static STREAM: Stage = Stage {
    name: "stream",
    from: "first response byte written",
    to: "last response byte written",
    family: None,
};

/// The wait inside TorchServe.
pub static INNER_QUEUE: Stage = Stage {
    name: "inner_queue",
    from: "last request byte read by TorchServe's frontend",
    to: "dispatch to a worker",
    family: Some(&families::REQUEST_INNER_QUEUE),
};

/// The work of a TorchServe worker.
pub static WORKER: Stage = Stage {
    name: "worker",
    from: "last request byte read by a TorchServe worker",
    to: "first byte of its reply",
    family: Some(&families::REQUEST_WORKER),
};

/// Every stage, in the order of the documentation.
pub static ALL: [&Stage; 6] = [&QUEUE, &HANDLER, &STARVED, &STREAM, &INNER_QUEUE, &WORKER];
