//! Reads a running agent, on this host or behind ssh.
//!
//! `target` is where it is, `tunnel` a running ssh, `client` asks for what the agent's endpoint serves as JSON.
//! Does not depend on: what is shown of it.

pub mod client;
pub mod target;
pub mod tunnel;
