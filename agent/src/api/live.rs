//! Spells what is known now: `/api/v1/live`.
//!
//! Does not depend on: how anything is measured.

use serde::{Deserialize, Serialize};

use crate::api::{
    Labels, Served, Source,
    verdict::{Span, Verdict},
};

/// Answer of `/api/v1/live`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// When and by whom it was made.
    pub source: Source,
    /// Time that the figures of requests are about, ms: from so long ago until now.
    pub span_ms: u64,
    /// Whether the probes work.
    pub probes: Probes,
    /// All inference requests of the host.
    pub totals: Figures,
    /// Share of the bytes on watched sockets that belong to counted requests.
    pub coverage: Coverage,
    /// What was lost since the agent started.
    pub losses: Vec<Loss>,
    /// What the agent costs.
    pub cost: Cost,
    /// Each model, those with most requests first.
    pub models: Vec<Model>,
    /// Models that are not listed, because there are too many.
    pub models_omitted: u64,
    /// Each watched server.
    pub servers: Vec<Server>,
    /// The host.
    pub host: Host,
    /// The GPUs.
    pub gpus: Gpus,
}

/// Whether the probes work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Their state.
    pub state: ProbeState,
    /// Why they are not attached; `null` if they are, or are switched off.
    pub reason: Option<String>,
}

/// State of the probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// Requests are measured.
    Attached,
    /// The configuration switches them off.
    #[default]
    Off,
    /// They stopped.
    Failed,
}

/// Figures of requests that ended in the span.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests that ended.
    pub requests: u64,
    /// The same, per second.
    pub per_second: f64,
    /// Responses with status 400 to 499.
    pub client_errors: u64,
    /// Responses with status 500 and above.
    pub server_errors: u64,
    /// Requests of which the duration is known: the percentiles are of these.
    pub timed: u64,
    /// Half of the requests took at most this, ns; `null` if none is known. At most 9 % off.
    pub p50_ns: Option<u64>,
    /// 99 of 100 requests took at most this, ns.
    pub p99_ns: Option<u64>,
    /// Requests that a server has begun to read and not answered to the end; `null` if unknown.
    pub in_flight: Option<u64>,
    /// Tokens; `null` if no response stated any.
    pub tokens: Option<Tokens>,
}

/// Tokens of language models in the span.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// Responses that state tokens.
    pub responses: u64,
    /// Tokens of prompts, per second, as responses state them.
    pub input_per_second: f64,
    /// Tokens generated, per second, as responses state them.
    pub output_per_second: f64,
    /// Mean time from first byte readable to first token, ns; `null` if none is known.
    pub first_token_ns: Option<u64>,
    /// Mean time from one token to the next, ns; `null` if none is known.
    pub token_gap_ns: Option<u64>,
}

/// Share of the bytes on watched sockets that belong to counted requests, since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The share, 0 to 1; `null` if there were no bytes.
    pub ratio: Option<f64>,
    /// Bytes read and written.
    pub socket_bytes: u64,
    /// Bytes that belong to no counted request.
    pub missed_bytes: u64,
}

/// What was lost for one reason, since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The metric that counts it.
    pub metric: String,
    /// The server; `null` if the metric has no such label, or it is unknown.
    pub server: Option<String>,
    /// The reason, a label of the metric.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// What the agent's process costs. What its programs in the kernel take is not in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// CPUs that it kept busy lately; `null` if unknown.
    pub cpus: Option<f64>,
    /// CPU time since its start, s; `null` if unknown.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, bytes; `null` if unknown.
    pub memory_bytes: Option<u64>,
}

/// One model of one server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Which one.
    pub served: Served,
    /// Where it runs.
    pub labels: Labels,
    /// Its requests.
    pub figures: Figures,
    /// What the verdict is about.
    pub now: Span,
    /// What it is compared with; `null` if nothing ended in that time.
    pub before: Option<Span>,
    /// Why its requests are slow.
    pub verdict: Verdict,
}

/// A watched server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Label `server` of its series.
    pub server: String,
    /// Its processes, at most 64 of them.
    pub pids: Vec<u32>,
    /// How many processes it has.
    pub processes: u64,
    /// Its coverage.
    pub coverage: Coverage,
    /// Its threads; `null` if unknown.
    pub threads: Option<u64>,
}

/// The host. `null`: unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Busy share of all CPUs, 0 to 1.
    pub cpu_ratio: Option<f64>,
    /// Share of memory that is not available, 0 to 1.
    pub memory_ratio: Option<f64>,
    /// Memory in use, bytes.
    pub memory_used_bytes: Option<u64>,
}

/// The GPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpus {
    /// Whether they can be read; false also if there is no NVIDIA driver.
    pub readable: bool,
    /// Each GPU.
    pub devices: Vec<Gpu>,
}

/// One GPU, or a MIG instance of one. `null`: unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Index.
    pub device: String,
    /// UUID.
    pub uuid: String,
    /// MIG instance; empty if it is the whole GPU.
    pub mig: String,
    /// Share of time in which it ran a kernel, 0 to 1.
    pub busy_ratio: Option<f64>,
    /// Memory in use, bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<u64>,
    /// Power that it draws, W.
    pub power_watts: Option<f64>,
    /// Power limit, W.
    pub power_limit_watts: Option<f64>,
    /// Temperature, °C.
    pub temperature_celsius: Option<f64>,
    /// What limits its clocks now.
    pub throttled_by: Vec<String>,
    /// Who uses it.
    pub processes: Vec<GpuProcess>,
}

/// A process on a GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// Process.
    pub pid: u32,
    /// Its server; empty if it is none that is watched.
    pub server: String,
    /// Its model; empty if it is unknown.
    pub model: String,
    /// Share of time in which it ran kernels, 0 to 1.
    pub busy_ratio: Option<f64>,
    /// Memory that it uses, bytes.
    pub memory_bytes: Option<u64>,
}
