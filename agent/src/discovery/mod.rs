//! Which processes are watched, and what they serve.
//!
//! `registry` keeps who is watched and names them, with what `process` reads of one, where `sight` finds that procfs tells
//! of them. `torchserve` tells TorchServe's workers apart, and `handovers` when they were given work.

pub mod pid_namespace;
pub mod procfs;
pub mod registry;
pub mod watch;
