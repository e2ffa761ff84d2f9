//! From segments to requests: what the records of one connection say was asked and answered, and when.
//!
//! Pure: no kernel, no clock, no names of processes. `table` holds the connections, `requests` and `answers` find the
//! messages in each direction, `body` what a request's body names, `connection` pairs them first in, first out; `http2`
//! does all of it by stream. `chunks` holds the pieces of a streamed answer. `turns` does without their bytes. `worker`
//! does the same as `connection` with the frames of TorchServe's workers. `hops` joins the two by the request's number,
//! `lines` by order where there is none. `coverage` counts bytes.

pub mod answers;
pub mod body;
pub mod chunks;
pub mod connection;
pub mod coverage;
pub mod event;
pub mod hops;
pub mod http2;
pub mod lines;
pub mod reads;
pub mod requests;
pub mod sequence;
pub mod table;
pub mod turns;
pub mod worker;

use uuid::Uuid;

use crate::{
    exchange::chunks::Chunks,
    protocol::{
        grpc::{ModelName, NamedBy},
        torchserve::{command::Command, reply::Reply},
    },
};

/// One request as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number of the request on its connection, from 0.
    pub index: u32,
    /// Method; empty where the head could not be seen.
    pub method: String,
    /// Target; empty, or cut off, where the head could not be seen whole.
    pub target: String,
    /// First byte readable, ns; `None` when that was not seen.
    pub arrival_ns: Option<u64>,
    /// First byte read, ns.
    pub first_read_ns: u64,
    /// Latest byte read, ns.
    pub last_read_ns: u64,
    /// Bytes, head and body.
    pub bytes: u64,
    /// Whether it was read to its end, as far as its end can be told.
    pub complete: bool,
    /// Model that its content names.
    pub named: Option<Box<ModelName>>,
}

/// One answer as far as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// First byte handed to the kernel, ns.
    pub first_write_ns: u64,
    /// Whether `first_write_ns` is only an upper bound: the return of a long send.
    pub first_write_bounded: bool,
    /// Last byte handed to the kernel, ns; `None` when the end of the answer cannot be told.
    pub last_write_ns: Option<u64>,
    /// Bytes, head and body.
    pub bytes: u64,
    /// The server's own number of the request, where its answer tells it.
    pub request_id: Option<Uuid>,
    /// `grpc-status`; `None` where there is none.
    pub grpc_status: Option<u32>,
    /// The pieces of its body; `None` where it is no stream.
    pub chunks: Option<Box<Chunks>>,
}

/// A connection, as the records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Socket cookie.
    pub cookie: u64,
    /// Process that answered.
    pub tgid: u32,
    /// Port of the server; `None` for AF_UNIX.
    pub local_port: Option<u16>,
    /// Port of the client; `None` for AF_UNIX.
    pub peer_port: Option<u16>,
    /// When the server accepted it, ns; `None` when that was not seen.
    pub accepted_ns: Option<u64>,
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Where.
    pub peer: Peer,
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub answer: Answer,
}

impl Exchange {
    /// Whether it was a call of gRPC, as far as that was seen.
    pub fn is_grpc(&self) -> bool {
        self.answer.grpc_status.is_some() || self.request.is_call()
    }
}

impl Request {
    /// Whether its own bytes show that it is a call of gRPC.
    pub fn is_call(&self) -> bool {
        let named = self.named.as_ref();
        named.is_some_and(|named| named.by == NamedBy::Message)
    }
}

/// A frame that a TorchServe worker read, and its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerExchange {
    /// Where; `tgid` is the worker.
    pub peer: Peer,
    /// What the frontend asked.
    pub command: Command,
    /// When the worker wrote the last byte of its reply before, ns; `None` when that was not seen.
    pub idle_since_ns: Option<u64>,
    /// When the frontend's thread for the worker handed the frame on to be sent, ns; `None` when that was not seen.
    pub handed_ns: Option<u64>,
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
    pub taken_ns: Option<u64>,
}

impl WorkerExchange {
    /// When the frontend had the whole reply, ns: as it read it, else as the worker wrote it.
    pub fn replied_ns(&self) -> u64 {
        self.taken_ns.unwrap_or(self.last_write_ns)
    }
}
