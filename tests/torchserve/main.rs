//! Tests with a real TorchServe, whose own counters the agent must match. Those that watch it need root.
//!
//! Tests that start an agent hold a `KernelGuard`; the others share the machine, since an agent watches every
//! TorchServe.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

mod autoscale;
mod clients;
mod comparison;
mod installation;
mod lifecycle;
mod scale;
mod times;
mod tls;
