//! Runs the subcommands, one file or folder each: wiring only.
//!
//! `main` passes checked options.
//! Does not depend on: the command line as typed.

mod arguments;
pub mod assets;
pub mod autoscale;
pub mod demo_server;
pub mod doctor;
mod runtime;
pub mod scale;
pub mod serve;
pub mod servers;
