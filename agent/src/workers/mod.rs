//! Which processes are watched, and what they serve.
//!
//! `known` recognises servers by their command lines, `registry` keeps who is watched and names them.

pub mod known;
pub mod registry;
pub mod torchserve;
