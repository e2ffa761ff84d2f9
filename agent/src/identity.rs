//! Names who served a request: the labels that its figures carry.
//!
//! `Server` is what is known of a process; `Identity` is that joined with what a request's path says.
//! Does not depend on: processes, records, metrics.

use std::sync::Arc;

use crate::catalogue::{entry::Entry, route::Route};

/// Names that a server's requests are counted under.
#[derive(Debug, Clone)]
pub struct Server {
    /// Label `server`.
    pub name: Arc<str>,
    /// Model where the path names none.
    pub model: Arc<str>,
    /// Version where the path names none.
    pub version: Arc<str>,
    /// Whether `model` is the configuration's: then a request's body has no say.
    pub model_is_set: bool,
    /// Whether it hands requests on to workers that are watched too.
    pub is_frontend: bool,
    /// Whether other processes of the same server alone ask it.
    pub is_internal: bool,
    /// Its entry in the catalogue.
    pub entry: Option<Arc<Entry>>,
}

/// Who answered a request, as the metrics label it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Model name: from the request, else from configuration, else from the command line, else the process's name.
    pub model: Arc<str>,
    /// Version the client asked for in the path, else from configuration, else `default`, as TorchServe labels it.
    pub version: Arc<str>,
    /// The server's kind or name: `torchserve`, a configured name, or the process's name.
    pub server: Arc<str>,
}

impl Identity {
    /// Who `server` is where the path says `route`: the path names the model before the server does.
    pub fn new(server: Server, route: Route) -> Self {
        let named = |name: Option<String>| name.map(Arc::from);
        Self {
            model: named(route.model).unwrap_or(server.model),
            version: named(route.version).unwrap_or(server.version),
            server: server.name,
        }
    }
}
