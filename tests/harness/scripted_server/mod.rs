//! A server that reads and writes exactly as a script says, and stamps each call.
//!
//! It covers servers unlike the others: with threads, odd buffers and odd endings. Does not depend on: any protocol.

pub mod cases;
pub mod play;
pub mod progress;
pub mod script;
