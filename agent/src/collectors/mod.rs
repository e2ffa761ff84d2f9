//! Sources of figures that are read again and again: the host, the GPUs, the agent itself.
//!
//! Each publishes to the metrics from its own thread and never makes a scrape wait.

pub mod gpu;
pub mod host;
pub mod process;
