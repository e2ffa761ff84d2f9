//! Names who served a request: the labels of its series.
//!
//! `Server` describes a process; `Identity` combines it with the model and version in a request's path. `Replica` tells apart
//! servers of one name. `Hop` says where a request stands if a gateway sent it on.
//! Does not depend on: processes, records, metrics.

mod replica;

use std::sync::Arc;

pub use replica::{Container, KEPT_AFTER_END, REPLICA_LABELS, Replica, ShownLabels};

use crate::catalogue::{
    entry::Entry,
    route::{ModelSource, Route},
};

/// A server process, and the labels of its requests.
#[derive(Debug, Clone)]
pub struct Server {
    /// Label `server`.
    pub name: Arc<str>,
    /// Model if neither request nor response names one.
    pub model: Arc<str>,
    /// Version if the path names none.
    pub version: Arc<str>,
    /// Where `model` comes from.
    pub model_source: ModelSource,
    /// Whether it dispatches requests to workers that are watched too.
    pub is_frontend: bool,
    /// Whether only other processes of the same server send it requests.
    pub is_internal: bool,
    /// Whether `name` is configured, or that of `entry`; otherwise it is the process's own, which others may have too.
    pub is_named: bool,
    /// Its entry in the catalogue; `None` if it matches none.
    pub entry: Option<Arc<Entry>>,
    /// Where it runs.
    pub replica: Replica,
}

impl Server {
    /// Whether both processes belong to the same server.
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_named && other.is_named && self.name == other.name
    }

    /// Its name, and where it runs.
    pub fn instance(&self) -> Instance {
        Instance {
            server: self.name.clone(),
            replica: self.replica.clone(),
        }
    }
}

/// One of the servers of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance {
    /// Label `server`.
    pub server: Arc<str>,
    /// Where it runs.
    pub replica: Replica,
}

/// Where a request stands among those that one request of a client causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Label `server` of the watched server that sent it; `None` if none did.
    pub gateway: Option<Arc<str>>,
    /// Whether it is the one that TorchServe's families count: no server nearer to the model does.
    pub is_nearest: bool,
}

impl Hop {
    /// A request that no watched server sent, and that its server did not send on.
    pub const ONLY: Self = Self {
        gateway: None,
        is_nearest: true,
    };
}

/// Who served a request, as the metrics label it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Model name: from the request, else from the response, the configuration, the command line or the process's name.
    pub model: Arc<str>,
    /// Version: from the request's path, else from configuration, else `default`, as in TorchServe's labels.
    pub version: Arc<str>,
    /// The server's kind or name: `torchserve`, a configured name, or the process's name.
    pub server: Arc<str>,
    /// Where the server runs.
    pub replica: Replica,
}

impl Identity {
    /// Combines a server with a route; model and version of the route precede those of the server.
    pub fn new(server: Server, route: Route) -> Self {
        let named = |name: Option<String>| name.map(Arc::from);
        Self {
            model: named(route.model).unwrap_or(server.model),
            version: named(route.version).unwrap_or(server.version),
            server: server.name,
            replica: server.replica,
        }
    }

    /// The server.
    pub fn instance(&self) -> Instance {
        Instance {
            server: self.server.clone(),
            replica: self.replica.clone(),
        }
    }

    /// The processes that serve it: those of its server in its container, whatever they listen on.
    pub fn processes(&self) -> Instance {
        Instance {
            server: self.server.clone(),
            replica: self.replica.without_port(),
        }
    }
}

/// What tests are about, unless they say otherwise.
#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A process of server `s`, which serves model `d` and is in no catalogue.
    pub(crate) fn server() -> Server {
        Server {
            name: "s".into(),
            model: "d".into(),
            version: "default".into(),
            model_source: ModelSource::ProcessName,
            is_frontend: false,
            is_internal: false,
            is_named: true,
            entry: None,
            replica: Replica::default(),
        }
    }

    /// One of several pods that serve at port 8000.
    pub(crate) fn pod(number: usize) -> Replica {
        let container = Container {
            namespace: "llm".into(),
            pod: format!("vllm-{number}").into(),
            name: "server".into(),
        };
        Replica::new(Some(8000), &container, ShownLabels::ALL)
    }
}
