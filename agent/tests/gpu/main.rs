//! Tests the GPU collector with a stub of NVML that this test builds: real symbols, two invented devices.
//!
//! No value in these tests comes from a real GPU.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics; the helpers here are not test functions to clippy"
)]

mod collector;
mod energy;
mod failures;
mod values;
