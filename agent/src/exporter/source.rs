//! Defines what an endpoint serves.
//!
//! The agent and the autoscale command implement it.
//! Does not depend on: HTTP.

use crate::{
    api::{
        history::{History, Wanted},
        live::Live,
        requests::Requests,
    },
    metrics::{Format, Selection},
};

/// Source of the texts that an endpoint serves.
pub trait MetricsSource: Send + Sync + 'static {
    /// Returns the text of `/metrics`.
    fn metrics(&self, selection: &Selection, format: Format) -> String;

    /// Returns the text of `/healthz`, one line; `Err` if something is wrong.
    fn health(&self) -> Result<String, String>;

    /// Returns what page and API tell of; `None` if there are none.
    fn api(&self) -> Option<&dyn ApiSource> {
        None
    }
}

/// Source of what the API serves.
pub trait ApiSource: Send + Sync {
    /// Returns the names under which page and API may be opened, besides `localhost` and IP addresses.
    fn host_names(&self) -> &[String] {
        &[]
    }

    /// Returns what is known now.
    fn live(&self) -> Live;

    /// Returns at most `limit` finished requests after number `after`; the latest ones if that is `None`.
    fn requests(&self, after: Option<u64>, limit: usize) -> Requests;

    /// Returns the windows that are wanted.
    fn history(&self, wanted: &Wanted) -> History;
}
