//! What `inferprobe servers` reports of each listener.
//!
//! Does not depend on: how it is found, how it is formatted.

use serde::Serialize;

/// The list.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) listeners: Vec<Row>,
    /// Processes whose sockets could not be read.
    pub(super) unread_processes: usize,
    /// Whether the listeners of every network namespace are in the list.
    pub(super) every_namespace: bool,
}

/// One listener.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Process that holds it; `None` if that is not known.
    pub(super) pid: Option<u32>,
    /// Number of processes that hold it.
    pub(super) processes: usize,
    /// Command line of the process.
    pub(super) command: Option<String>,
    /// Address and port, or the path of a unix socket.
    pub(super) listens: String,
    /// TCP port.
    pub(super) port: Option<u16>,
    /// Label `server`; `None` if it is not watched.
    pub(super) server: Option<String>,
    /// Why it is watched, or why not.
    pub(super) why: String,
    /// Option that would watch it; `None` if it is watched.
    pub(super) option: Option<String>,
}
