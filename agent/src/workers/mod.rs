//! Which processes are watched, and what they serve.
//!
//! `known` recognises servers by their command lines, `registry` keeps who is watched and names them. `torchserve`
//! tells TorchServe's workers apart, and `handovers` when they were given work.

pub mod handovers;
pub mod known;
pub mod registry;
pub mod torchserve;
