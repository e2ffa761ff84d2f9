//! The agent's hold on the kernel: what it can do here, the programs it loads, the records it gets back.
//!
//! Knows nothing of protocols, processes' names or metrics.

pub mod attach;
pub mod btf;
pub mod capabilities;
pub mod choice;
pub mod hooks;
pub mod kretprobe;
pub mod ladder;
pub mod loader;
pub mod offsets;
pub mod options;
pub mod preemption;
pub mod preflight;
pub mod privilege;
pub mod rings;
pub mod selftest;
pub mod skipped;
pub mod window;
