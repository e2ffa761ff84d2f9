//! Defines the JSON that the endpoint serves under `/api/v1`: the page, `top`, `why` and scripts read it.
//!
//! `live` is what is known now, `requests` the latest finished requests, `history` the last minutes in windows. Every
//! answer says when it was made. An unknown value is `null`. Readers ignore keys that they do not know, so keys may be
//! added; a key that changes its meaning or vanishes needs a new version.
//! Does not depend on: how anything is measured, HTTP.

pub mod history;
pub mod live;
pub mod requests;
mod served;
pub mod stages;
pub mod verdict;

use serde::{Deserialize, Serialize};

pub use served::{Labels, Served};

/// Version of the API: the number in its paths.
pub const VERSION: u32 = 1;

/// When an answer was made, and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Version of the API.
    pub api_version: u32,
    /// Version of the agent.
    pub agent_version: String,
    /// Name of the host.
    pub hostname: String,
    /// When the agent started, ns of the records' clock: another value means another run, whose counters began anew.
    pub started_ns: u64,
    /// Now, ns of the records' clock (CLOCK_MONOTONIC). All moments are on this clock.
    pub now_ns: u64,
    /// The same moment, ms since the Unix epoch.
    pub unix_ms: u64,
}
