//! The maps, one file for each kind of content, with the few operations on them.
//!
//! The hooks use them, and `backend`. A map's name has at most 15 bytes in the kernel, which cuts longer ones.
//! Does not depend on: hooks, the decisions that the library makes.

pub(crate) mod accepts;
pub(crate) mod calls;
pub(crate) mod clients;
pub(crate) mod drops;
pub(crate) mod plaintexts;
pub(crate) mod processes;
pub(crate) mod progress;
pub(crate) mod records;
pub(crate) mod sockets;
pub(crate) mod watched;
pub(crate) mod workers;
