//! Tests that need neither root nor anything that set-up fetches.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

mod doctor;
mod reference_server;
mod scaling;
mod servers;
mod service_manager;
mod terminal;
mod top;
mod usage;
