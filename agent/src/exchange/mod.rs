//! From segments to requests: what the records of one connection say was asked and answered, and when.
//!
//! Pure: no kernel, no clock, no names of processes. `table` holds the connections, `requests` and `answers` find the
//! messages in each direction, `body` what a request's body names, `connection` pairs them first in, first out; `http2`
//! does all of it by stream. `chunks` holds the pieces of a streamed answer. `turns` does without their bytes. `worker`
//! does the same as `connection` with the frames of TorchServe's workers. `hops` joins the two by the request's number,
//! `lines` by order where there is none. `coverage` counts bytes.

pub mod byte_accounting;
pub mod chunks;
pub mod event;
pub mod http1;
pub mod http2;
pub mod opaque;
pub mod reads;
pub mod record_stream;

use uuid::Uuid;

use crate::{
    exchange::chunks::Chunks,
    protocol::grpc::{ModelName, NamedBy},
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
pub struct Response {
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
    pub response: Response,
}

impl Exchange {
    /// Whether it was a call of gRPC, as far as that was seen.
    pub fn is_grpc(&self) -> bool {
        self.response.grpc_status.is_some() || self.request.is_call()
    }
}

impl Request {
    /// Whether its own bytes show that it is a call of gRPC.
    pub fn is_call(&self) -> bool {
        let named = self.named.as_ref();
        named.is_some_and(|named| named.by == NamedBy::Message)
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A request of 20 ns, a handler of 300 and an answer of 4,000.
    pub(crate) fn exchange() -> Exchange {
        Exchange {
            peer: Peer {
                cookie: 1,
                tgid: 2,
                local_port: Some(80),
                peer_port: Some(81),
                accepted_ns: None,
            },
            request: Request {
                index: 0,
                method: "POST".into(),
                target: "/predictions/m".into(),
                arrival_ns: Some(1_000),
                first_read_ns: 1_001,
                last_read_ns: 1_021,
                bytes: 10,
                complete: true,
                named: None,
            },
            response: Response {
                status: 200,
                first_write_ns: 1_321,
                first_write_bounded: false,
                last_write_ns: Some(5_321),
                bytes: 10,
                request_id: None,
                grpc_status: None,
                chunks: None,
            },
        }
    }
}
