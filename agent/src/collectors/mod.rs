//! Reads the host, the GPUs and the agent's own process.
//!
//! Host and GPUs are read on threads of their own, so that no scrape waits for them.
//! Does not depend on: the exposition.

pub mod gpu;
pub mod host;
pub mod process;
pub mod servers;
