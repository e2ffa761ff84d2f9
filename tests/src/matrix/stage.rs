//! What stands while one rung is tried: the servers, and the agent that watches them.

use std::{net::TcpListener, path::Path};

use tempfile::TempDir;

use crate::{
    agent::Agent,
    calls::server::CallServer,
    differential::hosts::{Host, Kind},
    server::Server,
};

/// Ways in which the reference server reads and writes.
const KINDS: [&[&str]; 5] = [
    &[],
    &["--io", "recv-send"],
    &["--io", "vectored", "--read-sizes", "24,16360"],
    &["--io", "message"],
    &["--io", "sendfile"],
];
/// What the servers on unix sockets are watched by.
const UNIX: &str = "reference-server .*--unix";

/// Servers; they end when dropped.
pub(super) struct Stage {
    /// Serves the requests that are timed, and nobody else.
    pub(super) timed: Server,
    /// Where scripted connections are accepted.
    pub(super) scripted: TcpListener,
    /// One of each kind, and what it is called.
    pub(super) hosts: Vec<(String, Host)>,
    /// One on a unix socket.
    pub(super) unix: Server,
    /// A server of gRPC with one connection.
    pub(super) calls: CallServer,
    _folder: TempDir,
}

impl Stage {
    /// Starts every server.
    pub(super) fn set() -> Self {
        let folder = tempfile::tempdir().expect("a folder for a socket");
        let socket = folder.path().join("socket");
        let socket = socket.to_str().expect("the path is text");
        let host = |args: &&'static [&'static str]| {
            let kind = Kind::Reference(args);
            let name = args.get(1).unwrap_or(&"read-write");
            // No server of Python is among them.
            ((*name).to_owned(), Host::start(kind, Path::new("")))
        };
        Self {
            timed: Server::start(&[]),
            scripted: TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port"),
            hosts: KINDS.iter().map(host).collect(),
            unix: Server::start(&["--unix", socket]),
            calls: CallServer::start(),
            _folder: folder,
        }
    }

    /// Starts an agent that watches every server; what it said, if it ended by itself instead.
    pub(super) fn watch(&self, args: &[String]) -> Result<Agent, String> {
        let scripted = self.scripted.local_addr();
        let scripted = scripted.expect("a listener has an address").port();
        let mut ports = vec![self.timed.port(), scripted, self.calls.port];
        ports.extend(self.hosts.iter().map(|(_, host)| host.port));
        let mut args = args.to_vec();
        for port in ports {
            args.extend(["--watch-port".to_owned(), port.to_string()]);
        }
        args.extend(["--watch-exe".to_owned(), UNIX.to_owned()]);
        Agent::try_start(&args)
    }
}
