//! Finds the processes to watch, and names what they serve.
//!
//! `listeners` finds the sockets that listen, `modules` what a process has mapped. `trials`
//! decides about the others by their first requests.
//! `containers` names the container and the pod of a process.
//! `registry` holds the watched processes; `recognised` recognises one from what `procfs` reads, if `pid_namespace` finds
//! that procfs is the host's.
//! Does not depend on: records, metrics.

pub mod containers;
pub mod listeners;
mod modules;
pub mod pid_namespace;
pub mod procfs;
mod recognised;
pub mod registry;
pub mod roster;
pub mod trials;
pub mod watch;
