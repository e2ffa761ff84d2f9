//! Spells the latest finished requests: `/api/v1/requests`.
//!
//! Rows are kept in a form without names of keys, so no key may be left out when it is written.
//! Does not depend on: how anything is measured.

use serde::{Deserialize, Serialize};

use crate::{
    api::{Labels, Served, Source, stages::Stages},
    history::sample::Sample,
};

/// Answer of `/api/v1/requests`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// When and by whom it was made.
    pub source: Source,
    /// What to give as `after` to get those that follow.
    pub next: u64,
    /// Number of the latest finished request; greater than `next` if the limit left some out.
    pub last: u64,
    /// Requests after `after` that are no longer kept.
    pub missed: u64,
    /// The requests, oldest first.
    pub requests: Vec<Request>,
}

/// One finished inference request. Moments are ns of the records' clock; `null`: unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its number among all finished requests, from 1.
    pub number: u64,
    /// Who served it.
    pub served: Served,
    /// Where its server runs; recordings of earlier agents do not have it.
    #[serde(default)]
    pub labels: Labels,
    /// Where the name of the model comes from.
    pub model_source: String,
    /// Its connection.
    pub conn: u64,
    /// Its number on its connection, from 0.
    pub seq: u32,
    /// Process that responded.
    pub pid: u32,
    /// Port of the server; `null` on a unix socket.
    pub local_port: Option<u16>,
    /// Port of the client; `null` on a unix socket.
    pub peer_port: Option<u16>,
    /// Method; empty if it was not read.
    pub method: String,
    /// Status code, of gRPC the HTTP status that matches its own; 0 if unknown.
    pub status: u16,
    /// Status of gRPC; `null` if it is none.
    pub grpc_status: Option<u32>,
    /// First byte readable.
    pub arrival_ns: Option<u64>,
    /// Connection accepted, on its first request.
    pub accepted_ns: Option<u64>,
    /// First byte read.
    pub first_read_ns: u64,
    /// Last byte read.
    pub last_read_ns: u64,
    /// First byte of the response written; `null` also if it came before the last read.
    pub first_write_ns: Option<u64>,
    /// Last byte of the response written.
    pub last_write_ns: Option<u64>,
    /// The parts of its duration, which add up to it; `null` if a stage is unknown.
    pub stages_ns: Option<Stages>,
    /// Why it was slow; `null` if it was not slow for its model.
    pub because: Option<String>,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the response.
    pub response_bytes: u64,
    /// Watched server that sent it; `null` if none did.
    pub gateway: Option<String>,
    /// What a TorchServe worker did for it; `null` if none was observed.
    pub worker: Option<Worker>,
    /// Its streamed response; `null` if it is not streamed.
    pub stream: Option<Stream>,
    /// Tokens; `null` if the response shows none.
    pub tokens: Option<Tokens>,
    /// What the verdict on its model knows of it.
    pub sample: Sample,
}

/// What a TorchServe worker did for a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its process.
    pub pid: u32,
    /// Dispatched to it.
    pub dispatched_ns: Option<u64>,
    /// First byte sent to it.
    pub arrival_ns: Option<u64>,
    /// Last byte read by it.
    pub last_read_ns: u64,
    /// First byte of its reply written.
    pub first_write_ns: Option<u64>,
    /// Last byte of its reply written.
    pub last_write_ns: u64,
    /// Last byte of its reply read by the frontend.
    pub reply_read_ns: Option<u64>,
}

/// A streamed response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// First chunk.
    pub first_chunk_ns: Option<u64>,
    /// Chunks; `null` if they could not all be counted.
    pub chunks: Option<u32>,
    /// Mean time from one chunk to the next.
    pub mean_gap_ns: Option<u64>,
    /// Times from one chunk to the next, µs, of the first 64 chunks; empty if one is unknown.
    pub gaps_us: Vec<u32>,
}

/// Tokens of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Of the prompt, as the response states it.
    pub input: Option<u64>,
    /// Generated, as the response states it.
    pub output: Option<u64>,
    /// Time from first byte readable to first token.
    pub first_ns: Option<u64>,
    /// Mean time from one token to the next.
    pub gap_ns: Option<u64>,
}
