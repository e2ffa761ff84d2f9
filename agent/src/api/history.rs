//! Spells the last minutes in windows: `/api/v1/history`.
//!
//! Windows are kept in a form without names of keys, so no key may be left out when one is written.
//! Does not depend on: how anything is measured.

use serde::{Deserialize, Serialize};

use crate::api::{Served, Source, stages::Stages};

/// Answer of `/api/v1/history`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When and by whom it was made.
    pub source: Source,
    /// Length of a window, ms.
    pub window_ms: u64,
    /// What was served; empty: all requests of the host.
    pub served: Vec<Served>,
    /// Windows in which requests ended, oldest first; the last one may not be over.
    pub windows: Vec<Window>,
    /// Readings of GPUs, oldest first.
    pub gpus: Vec<GpuReading>,
}

/// The requests that ended in a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its number: it began at `index` times its length, on the records' clock.
    pub index: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Responses with status 400 to 499.
    pub client_errors: u64,
    /// Responses with status 500 and above.
    pub server_errors: u64,
    /// Requests of which each stage is known.
    pub complete: u64,
    /// Sums of their parts, ns.
    pub sums_ns: Stages,
    /// Durations: `[upper bound in ns, requests]` of each bucket that is not empty. Bounds are a fourth of a power of two
    /// apart.
    pub durations: Vec<(u64, u64)>,
    /// `QueueTime` of TorchServe: its sum and number.
    pub queue_time: Sum,
    /// `HandlerTime` of TorchServe.
    pub handler_time: Sum,
    /// `PredictionTime` of TorchServe.
    pub prediction_time: Sum,
    /// Tokens of prompts.
    pub input_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
    /// Responses that state tokens.
    pub with_tokens: u64,
    /// Times to first token.
    pub first_token: Sum,
    /// Mean times from one token to the next, of each response.
    pub token_gap: Sum,
}

/// A sum of durations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// The sum, ns.
    pub ns: u64,
    /// How many were added.
    pub count: u64,
}

/// One reading of one GPU, in TorchServe's terms. `null`: the device has no such value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuReading {
    /// When, ns of the records' clock.
    pub at_ns: u64,
    /// Index of the device.
    pub device: u32,
    /// `GPUUtilization`, percent.
    pub busy_pct: Option<f64>,
    /// `GPUMemoryUtilization`, percent.
    pub memory_pct: Option<f64>,
    /// `GPUMemoryUsed`, MiB.
    pub memory_mib: Option<f64>,
}
