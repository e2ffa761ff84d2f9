//! Defines what an endpoint serves.
//!
//! The agent and the autoscale command implement it.
//! Does not depend on: HTTP.

use crate::{
    api::live::Live,
    metrics::{Format, Selection},
};

/// Source of the texts that an endpoint serves.
pub trait MetricsSource: Send + Sync + 'static {
    /// Returns the text of `/metrics`.
    fn metrics(&self, selection: &Selection, format: Format) -> String;

    /// Returns the text of `/healthz`, one line; `Err` if something is wrong.
    fn health(&self) -> Result<String, String>;

    /// Returns what the API tells of; `None` if there is no API.
    fn api(&self) -> Option<&dyn ApiSource> {
        None
    }
}

/// Source of what the API serves.
pub trait ApiSource: Send + Sync {
    /// Returns what is known now.
    fn live(&self) -> Live;
}
