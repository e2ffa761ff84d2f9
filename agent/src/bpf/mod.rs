//! The agent's hold on the kernel: what it can do here, the programs it loads, the records it gets back.
//!
//! Knows nothing of protocols, processes' names or metrics.

pub mod attach;
pub mod attach_mode;
pub mod btf;
pub mod capabilities;
pub mod hooks;
pub mod kretprobe;
pub mod loader;
pub mod maps;
pub mod mmap_array;
pub mod offsets;
pub mod options;
pub mod preemption;
pub mod preflight;
pub mod privileges;
pub mod recursion_misses;
pub mod report;
pub mod selftest;
