//! Writes the request log: one JSON line per finished request, with its times and never its payload.
//!
//! The pipeline calls it after the metrics, with the same observation.
//! Does not depend on: records, metrics.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde::Serialize;

use crate::{
    catalogue::route::Purpose, exchange::Exchange, observation::Observation,
    torchserve::exchange::WorkerExchange,
};

/// An open log file.
#[derive(Debug)]
pub struct RequestLog {
    to: BufWriter<File>,
}

/// One line. Times are CLOCK_MONOTONIC nanoseconds; `null` if unknown.
#[derive(Debug, Serialize)]
struct LogLine<'a> {
    conn: u64,
    seq: u32,
    pid: u32,
    local_port: Option<u16>,
    peer_port: Option<u16>,
    model: &'a str,
    version: &'a str,
    server: &'a str,
    purpose: &'static str,
    method: &'a str,
    status: u16,
    arrival_ns: Option<u64>,
    first_read_ns: u64,
    last_read_ns: u64,
    first_write_ns: Option<u64>,
    last_write_ns: Option<u64>,
    request_bytes: u64,
    response_bytes: u64,
    /// When the connection was accepted; absent if that was not observed, and after the connection's first request.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_ns: Option<u64>,
    /// What a TorchServe worker did for the request; absent if no worker was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerLine>,
    /// Times of a streamed response; absent if the response is not streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamLine>,
}

/// A streamed response. Times are nanoseconds from the request's arrival.
#[derive(Debug, Serialize)]
struct StreamLine {
    first_byte_ns: Option<u64>,
    first_chunk_ns: Option<u64>,
    chunks: Option<u32>,
    mean_gap_ns: Option<u64>,
}

/// The TorchServe worker's side of a line.
#[derive(Debug, Serialize)]
struct WorkerLine {
    pid: u32,
    code: i32,
    dispatched_ns: Option<u64>,
    arrival_ns: Option<u64>,
    last_read_ns: u64,
    first_write_ns: Option<u64>,
    last_write_ns: u64,
    reply_read_ns: Option<u64>,
}

impl RequestLog {
    /// Opens the file at `path` for appending; creates it if it is missing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            to: BufWriter::with_capacity(64 << 10, file),
        })
    }

    /// Adds the line of one request; `worker` is its worker's exchange, if one was observed.
    pub fn write(
        &mut self,
        exchange: &Exchange,
        worker: Option<&WorkerExchange>,
        observation: &Observation,
    ) -> io::Result<()> {
        let Exchange {
            peer,
            request,
            response,
        } = exchange;
        let identity = &observation.identity;
        let line = LogLine {
            conn: peer.cookie,
            seq: request.index,
            pid: peer.tgid,
            local_port: peer.local_port,
            peer_port: peer.peer_port,
            model: &identity.model,
            version: &identity.version,
            server: &identity.server,
            purpose: match observation.purpose {
                Purpose::Inference => "inference",
                Purpose::Admin => "admin",
                Purpose::Internal => "internal",
            },
            method: &request.method,
            status: response.status,
            arrival_ns: request.arrival_ns,
            first_read_ns: request.first_read_ns,
            last_read_ns: request.last_read_ns,
            first_write_ns: (!response.first_write_bounded).then_some(response.first_write_ns),
            last_write_ns: response.last_write_ns,
            request_bytes: request.bytes,
            response_bytes: response.bytes,
            accepted_ns: peer.accepted_ns.filter(|_| request.index == 0),
            worker: worker.map(|worker_exchange| WorkerLine {
                pid: worker_exchange.peer.tgid,
                code: worker_exchange.reply.code,
                dispatched_ns: worker_exchange.dispatched_ns,
                arrival_ns: worker_exchange.arrival_ns,
                last_read_ns: worker_exchange.last_read_ns,
                first_write_ns: worker_exchange.first_write_ns,
                last_write_ns: worker_exchange.last_write_ns,
                reply_read_ns: worker_exchange.reply_read_ns,
            }),
            stream: observation.stream.as_deref().map(|stream| StreamLine {
                first_byte_ns: stream.first_byte_ns,
                first_chunk_ns: stream.first_chunk_ns,
                chunks: stream.chunks,
                mean_gap_ns: stream.mean_gap_ns,
            }),
        };
        serde_json::to_writer(&mut self.to, &line)?;
        self.to.write_all(b"\n")
    }

    /// Writes the buffered lines to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
