//! Says what an endpoint serves, whoever has the figures: the agent, or the autoscale command.
//!
//! Does not depend on: HTTP.

use crate::metrics::{Format, Selection};

/// What an endpoint serves under its two paths.
pub trait MetricsSource: Send + Sync + 'static {
    /// The text of `/metrics`.
    fn metrics(&self, selection: &Selection, format: Format) -> String;

    /// The text of `/healthz`, one line; `Err` if something is wrong.
    fn health(&self) -> Result<String, String>;
}
