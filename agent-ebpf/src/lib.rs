//! What the agent and the eBPF program share: the records that cross the ring, and the program's decisions.
//!
//! The program (`program/main.rs`) compiles these modules for the kernel, the agent reads the records with them, and
//! the host runs their tests. `no_std`.
//! Does not depend on: maps, helpers, the clock.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod arrival;
pub mod conn;
pub mod duplicate;
pub mod globals;
pub mod http2_frames;
pub mod segment;
pub mod send_buffer;
pub mod sniff;
pub mod tls_records;
pub mod unobserved;
pub mod view;
