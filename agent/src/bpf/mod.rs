//! Loads the eBPF programs, attaches them, and reads what they report.
//!
//! `serve` and the doctor attach the probes; the event loop drains the maps.
//! Does not depend on: protocols, process names, metrics.

pub mod attach;
pub mod attach_mode;
mod attempt;
pub mod btf;
pub mod capabilities;
pub mod error;
pub mod hook_id;
pub mod hooks;
pub mod kretprobe;
pub mod loader;
pub mod maps;
pub mod mmap_array;
pub mod offsets;
pub mod open_sockets;
pub mod options;
pub mod plaintext;
pub mod plaintext_thread;
pub mod preemption;
pub mod preflight;
pub mod privileges;
pub mod report;
pub mod ring;
mod seccomp;
pub mod selftest;
mod syscall;
pub mod uprobe;
pub mod user_namespace;
