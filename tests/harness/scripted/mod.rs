//! A server of bytes: each read and each write of a connection is told by a script, and stamped.
//!
//! It knows no protocol. It stands for servers that none of the others is: those with threads, odd buffers and odd ends.

pub mod cases;
pub mod play;
pub mod progress;
pub mod script;
