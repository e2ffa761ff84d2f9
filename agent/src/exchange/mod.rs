//! Turns the records of a connection into requests and responses, pairs them, and times them.
//!
//! `reads` and `writes` describe what a record reports. `http1` pairs by order, `http2` by stream, `opaque` without any
//! payload, `tls` without a key, `zmtp` ignores its connections, and `late` finds out which of them one is; they push their events to
//! `event::Sink`.
//! Does not depend on: the kernel, a clock, names of processes, any server.

pub mod body_search;
pub mod byte_accounting;
pub mod chunks;
pub mod event;
pub mod generation;
pub mod http1;
pub mod http2;
pub mod late;
pub mod opaque;
pub mod reads;
pub mod record_stream;
pub mod threads;
pub mod tls;
pub mod upgrade;
pub mod writes;
pub mod zmtp;

use uuid::Uuid;

use crate::{
    exchange::{chunks::Chunks, generation::Generation, threads::ThreadWait},
    protocol::grpc::{ModelName, NamedBy},
};

/// A request, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number of the request on its connection, from 0.
    pub index: u32,
    /// Method; empty if the head was not copied.
    pub method: String,
    /// Target; empty, or cut off, if the head was not copied whole.
    pub target: String,
    /// First byte readable, ns; `None` if that was not observed.
    pub arrival_ns: Option<u64>,
    /// First byte read, ns.
    pub first_read_ns: u64,
    /// Latest byte read, ns.
    pub last_read_ns: u64,
    /// Last byte readable, ns; `None` if that was not observed.
    pub last_arrival_ns: Option<u64>,
    /// Thread that read its last bytes; `None` if that is unknown.
    pub reader_tid: Option<u32>,
    /// Bytes, head and body.
    pub bytes: u64,
    /// Whether it was read to its end, as far as its end is known.
    pub complete: bool,
    /// Model that its content names; `None` if it names none, or was not copied.
    pub named: Option<Box<ModelName>>,
    /// `User-Agent`, its first 64 bytes; `None` if it has none, or it was not copied.
    pub user_agent: Option<Box<str>>,
    /// Whether its content may name a model in bytes that were not searched.
    pub content_cut: bool,
}

/// A response, as far as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// First byte handed to the kernel, ns.
    pub first_write_ns: u64,
    /// Whether `first_write_ns` is only an upper bound: the return of a long send.
    pub first_write_bounded: bool,
    /// Whether it began before its request was read to the end.
    pub early: bool,
    /// What its thread waited for, from the last read to the first write; `None` if not one thread did both.
    pub thread_wait: Option<ThreadWait>,
    /// How long, until its end, the connection's send buffer was too full for the server to write more: bytes waited for
    /// the client, ns; `None` if that is not observed.
    pub undrained_ns: Option<u64>,
    /// Last byte handed to the kernel, ns; `None` if the end of the response is unknown.
    pub last_write_ns: Option<u64>,
    /// Bytes, head and body.
    pub bytes: u64,
    /// The server's own ID of the request; `None` if the response has none.
    pub request_id: Option<Uuid>,
    /// `grpc-status`; `None` if there is none.
    pub grpc_status: Option<u32>,
    /// The pieces of its body; `None` if it is not streamed.
    pub chunks: Option<Box<Chunks>>,
    /// What a language model generated; `None` if the body was not read for that.
    pub generation: Option<Box<Generation>>,
    /// The messages of the WebSocket session that it began; `None` if it began none.
    pub session: Option<SessionMessages>,
}

/// Messages of a WebSocket session. `None`: some could not be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionMessages {
    /// From the client.
    pub received: Option<u64>,
    /// From the server.
    pub sent: Option<u64>,
}

impl Response {
    /// A response before its first byte.
    pub(crate) const NOT_BEGUN: Self = Self {
        status: 0,
        first_write_ns: 0,
        first_write_bounded: false,
        early: false,
        thread_wait: None,
        undrained_ns: Some(0),
        last_write_ns: None,
        bytes: 0,
        request_id: None,
        grpc_status: None,
        chunks: None,
        generation: None,
        session: None,
    };
}

/// A connection, as the records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Socket cookie.
    pub cookie: u64,
    /// Process that responded.
    pub tgid: u32,
    /// Port of the server; `None` for AF_UNIX.
    pub local_port: Option<u16>,
    /// Port of the client; `None` for AF_UNIX.
    pub peer_port: Option<u16>,
    /// When the server accepted it, ns; `None` if that was not observed.
    pub accepted_ns: Option<u64>,
    /// Process that connected, if it is on this host; `None` if that was not observed.
    pub client: Option<u32>,
}

/// A request and its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The connection.
    pub peer: Peer,
    /// The request.
    pub request: Request,
    /// The response.
    pub response: Response,
}

impl Exchange {
    /// Whether the request was still being read when the response began, so that no time belongs to the handler alone.
    pub fn overlaps(&self) -> bool {
        self.response.early || self.response.first_write_ns < self.request.last_read_ns
    }

    /// Last read of the request that is not after the last write of the response, ns.
    pub fn read_before_end_ns(&self) -> u64 {
        let ended_ns = self.response.last_write_ns.unwrap_or(u64::MAX);
        self.request.last_read_ns.min(ended_ns)
    }

    /// Whether it is a gRPC call, as far as that was observed.
    pub fn is_grpc(&self) -> bool {
        self.response.grpc_status.is_some() || self.request.is_call()
    }
}

impl Request {
    /// Whether its own bytes show that it is a gRPC call.
    pub fn is_call(&self) -> bool {
        let named = self.named.as_ref();
        named.is_some_and(|named| named.by == NamedBy::Message)
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A request of 20 ns, a handler of 300 ns and a response of 4,000 ns.
    pub(crate) fn exchange() -> Exchange {
        Exchange {
            peer: Peer {
                cookie: 1,
                tgid: 2,
                local_port: Some(80),
                peer_port: Some(81),
                accepted_ns: None,
                client: None,
            },
            request: Request {
                index: 0,
                method: "POST".into(),
                target: "/predictions/m".into(),
                arrival_ns: Some(1_000),
                first_read_ns: 1_001,
                last_read_ns: 1_021,
                last_arrival_ns: Some(1_000),
                reader_tid: None,
                bytes: 10,
                complete: true,
                named: None,
                user_agent: None,
                content_cut: false,
            },
            response: Response {
                status: 200,
                first_write_ns: 1_321,
                first_write_bounded: false,
                early: false,
                thread_wait: None,
                undrained_ns: None,
                last_write_ns: Some(5_321),
                bytes: 10,
                request_id: None,
                grpc_status: None,
                chunks: None,
                generation: None,
                session: None,
            },
        }
    }
}
