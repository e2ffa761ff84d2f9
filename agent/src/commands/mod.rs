//! Runs the subcommands, one file or folder each: wiring only.
//!
//! `main` passes checked options.
//! Does not depend on: the command line as typed.

mod arguments;
pub mod assets;
pub mod autoscale;
pub mod demo_server;
pub mod doctor;
mod feed;
mod print;
pub mod record;
mod runtime;
pub mod scale;
pub mod serve;
pub mod servers;
pub mod top;
pub mod view;
pub mod why;
