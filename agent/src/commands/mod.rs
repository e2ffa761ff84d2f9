//! Runs the subcommands, one file each: wiring only.
//!
//! Does not depend on: the command line as typed; `main` hands over checked options.

mod arguments;
pub mod autoscale;
pub mod demo_server;
pub mod scale;
pub mod serve;
