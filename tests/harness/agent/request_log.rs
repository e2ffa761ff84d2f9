//! Defines the rows of the agent's request log, and the times that follow from them.
//!
//! Does not depend on: a running agent.

use serde::Deserialize;

/// One row of the request log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// Connection, as the agent counts them.
    pub conn: u64,
    /// Number of the request on its connection, from 0.
    pub seq: u32,
    /// The process that responded.
    pub pid: u32,
    /// The server's port; `None` on a unix socket.
    pub local_port: Option<u16>,
    /// The client's port; `None` on a unix socket.
    pub peer_port: Option<u16>,
    /// Label `model`.
    pub model: String,
    /// Where `model` comes from.
    pub model_source: String,
    /// Label `version`.
    pub version: String,
    /// Label `server`.
    pub server: String,
    /// Namespace of the server's pod; empty without one.
    #[serde(default)]
    pub namespace: String,
    /// The server's pod; empty without one.
    #[serde(default)]
    pub pod: String,
    /// The server's container; empty without one.
    #[serde(default)]
    pub container: String,
    /// `inference` or `admin`.
    pub purpose: String,
    /// Request method.
    pub method: String,
    /// Status code.
    pub status: u16,
    /// First byte readable; `None` if not observed.
    pub arrival_ns: Option<u64>,
    /// First byte read.
    pub first_read_ns: u64,
    /// Last byte read.
    pub last_read_ns: u64,
    /// First byte of the response written; `None` if only an upper bound is known.
    pub first_write_ns: Option<u64>,
    /// Last byte of the response written; `None` if not observed.
    pub last_write_ns: Option<u64>,
    /// How long the serving thread waited for a CPU between the last read and the first write; `None` if unknown.
    pub starved_ms: Option<f64>,
    /// How long the connection's send buffer was too full for the server to write more; `None` if not observed.
    pub undrained_ms: Option<f64>,
    /// Why it was slow for its model; `None` if it was not, or if that is unknown.
    pub because: Option<String>,
    /// Head and body of the request.
    pub request_bytes: u64,
    /// Head and body of the response.
    pub response_bytes: u64,
    /// Accept of the connection; `None` if not observed, and for all but its first request.
    pub accepted_ns: Option<u64>,
    /// Messages of a WebSocket session; `None` if the request began none.
    pub session: Option<LoggedSession>,
    /// Watched server that sent the request; `None` if none did.
    pub gateway: Option<String>,
    /// What a frontend's worker did for the request; `None` without a frontend.
    pub worker: Option<LoggedWorker>,
    /// The chunks of a streamed response; `None` for any other response.
    pub stream: Option<LoggedStream>,
    /// The tokens of a language model's response; `None` for any other response.
    pub tokens: Option<LoggedTokens>,
}

/// Tokens of a response. The first counts from the request's arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedTokens {
    /// Tokens of the prompt; `None` if the response does not state them.
    pub input: Option<u64>,
    /// Tokens that were generated; `None` if the response does not state them.
    pub output: Option<u64>,
    /// First token; `None` if there is none, or it could not be timed.
    pub first_ns: Option<u64>,
    /// Mean time from one token to the next; `None` if there are fewer than two, or they could not be timed.
    pub gap_ns: Option<u64>,
}

/// The chunks of a streamed response. Times count from the request's arrival, and are `None` if not observed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedStream {
    /// First byte of the response.
    pub first_byte_ns: Option<u64>,
    /// First byte of its body.
    pub first_chunk_ns: Option<u64>,
    /// Number of chunks; `None` if the agent could not separate them.
    pub chunks: Option<u32>,
    /// Mean time from one chunk to the next.
    pub mean_gap_ns: Option<u64>,
}

/// The messages of a WebSocket session; `None` if the agent could not count them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedSession {
    /// From the client.
    pub received: Option<u64>,
    /// From the server.
    pub sent: Option<u64>,
}

/// The worker's half of a row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedWorker {
    /// Process.
    pub pid: u32,
    /// Outcome of the whole batch: 200, or an error.
    pub code: i32,
    /// Dispatch by the frontend's thread for the worker; `None` if not observed.
    pub dispatched_ns: Option<u64>,
    /// First byte sent by the frontend; `None` if not observed.
    pub arrival_ns: Option<u64>,
    /// Last byte read by the worker.
    pub last_read_ns: u64,
    /// First byte of its reply; `None` if only an upper bound is known.
    pub first_write_ns: Option<u64>,
    /// Last byte of its reply.
    pub last_write_ns: u64,
    /// Last byte of its reply read by the frontend; `None` if not observed.
    pub reply_read_ns: Option<u64>,
}

impl Logged {
    /// Returns the wait between arrival and first read.
    pub fn queue_ns(&self) -> Option<u64> {
        Some(self.first_read_ns.saturating_sub(self.arrival_ns?))
    }

    /// Returns the wait between the frontend's last read and its dispatch of the request, as far as observed.
    pub fn internal_queue_ns(&self) -> Option<u64> {
        let worker = self.worker.as_ref()?;
        let dispatched_ns = worker.dispatched_ns.filter(|ns| *ns >= self.last_read_ns);
        let left_queue_ns = dispatched_ns.or(worker.arrival_ns)?;
        Some(left_queue_ns.saturating_sub(self.last_read_ns))
    }

    /// Returns the time between the worker's last read and its first write.
    pub fn worker_ns(&self) -> Option<u64> {
        let worker = self.worker.as_ref()?;
        Some(worker.first_write_ns?.saturating_sub(worker.last_read_ns))
    }

    /// Returns the time between the frontend's last read of the request and its last read of the reply, as far as
    /// observed.
    pub fn latency_ns(&self) -> Option<u64> {
        let worker = self.worker.as_ref()?;
        let replied_ns = worker.reply_read_ns.unwrap_or(worker.last_write_ns);
        Some(replied_ns.saturating_sub(self.last_read_ns))
    }

    /// Returns the time between last read and first write.
    pub fn handler_ns(&self) -> Option<u64> {
        Some(self.first_write_ns?.saturating_sub(self.last_read_ns))
    }
}
