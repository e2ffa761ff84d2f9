//! Tests that load programs into the kernel, which needs root: a real agent against servers that stamp their own clock.
//!
//! Each test holds a `KernelGuard`, so they run one at a time. In virtual machines the same program runs, by filter.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

mod accept;
mod accuracy;
mod artifacts;
mod backlog;
mod connections;
mod discovery;
mod doctor;
mod endings;
mod first_requests;
mod gateways;
mod gpu;
mod grpc;
mod hostile;
mod idle;
mod in_flight;
mod losses;
mod no_payload;
mod patterns;
mod privilege;
mod receivers;
mod recording;
mod reload;
mod replicas;
mod rotation;
mod scripted_server;
mod server_cases;
mod starved;
mod streams;
mod tls;
mod tokens;
mod unix;
mod unobserved;
mod upgrade;
mod uploads;
mod verdicts;
mod volume;
