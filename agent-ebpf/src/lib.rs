//! What both halves share: the records that cross the ring, and the decisions the kernel half takes.
//!
//! `no_std` and pure: no maps, no helpers, no clock. The eBPF program (`main.rs`) compiles these modules for the kernel,
//! the agent reads the records with them, and the host runs their tests: the same code everywhere.
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
pub mod sniff;
pub mod view;
