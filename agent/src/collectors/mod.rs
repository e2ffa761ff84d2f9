//! Reads the host, the GPUs, the watched servers and the agent's own process.
//!
//! All but the last are read on threads of their own, so that no scrape waits for them.
//! Does not depend on: the exposition.

mod cpu_times;
pub mod engines;
pub mod gpu;
pub mod host;
pub mod process;
pub mod readers;
pub mod servers;
