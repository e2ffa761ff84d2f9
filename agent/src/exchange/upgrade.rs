//! Holds what an HTTP/1 connection passes on when the server upgrades it to HTTP/2.
//!
//! `http1` makes it, `http2` continues from it.
//! Does not depend on: either of the two.

use crate::exchange::{Peer, Request};

/// The state of a connection at its upgrade.
#[derive(Debug)]
pub struct Upgrade {
    /// Whose connection it is.
    pub peer: Peer,
    /// The request that asks for the upgrade, and gets its response on the first stream; `None` if it was not observed.
    pub request: Option<Request>,
    /// Number of the latest record of HTTP/1.
    pub latest_seq: u32,
    /// Bytes of the present run of writes that belong to HTTP/1.
    pub written_bytes: u64,
    /// Bytes that belong to no request, and were not counted yet.
    pub missed_bytes: u64,
    /// Bytes of a request that the kernel half copies.
    pub copied_bytes: u32,
}
