//! Starts the servers for one attach mode, and the agent that watches them.

use std::{net::TcpListener, path::Path};

use tempfile::TempDir;

use crate::{
    agent::{Agent, launcher::Launcher, request_log::Logged},
    grpc::server::GrpcServer,
    server::Server,
    server_cases::hosts::{Host, Kind},
    tracefs::Tracefs,
};

/// Ways in which the reference server reads and writes, and whether a selection of the cases is enough.
const KINDS: [(&[&str], bool); 5] = [
    (&[], false),
    (&["--io", "recv-send"], true),
    (&["--io", "vectored", "--read-sizes", "24,16360"], true),
    (&["--io", "message"], true),
    (&["--io", "sendfile"], true),
];
/// Pattern by which the agent watches the server on a unix socket.
const UNIX: &str = "reference-server .*--unix";

/// A reference server that cases are played against.
pub(super) struct Hosted {
    /// How it reads and writes.
    pub(super) name: String,
    /// The server.
    pub(super) host: Host,
    /// Whether a selection of the cases is enough.
    pub(super) brief: bool,
}

/// Servers; they end when dropped.
pub(super) struct Stage {
    /// Serves only the requests that are timed.
    pub(super) timed: Server,
    /// Where scripted connections are accepted.
    pub(super) scripted: TcpListener,
    /// One of each kind.
    pub(super) hosts: Vec<Hosted>,
    /// One on a unix socket.
    pub(super) unix: Server,
    /// A gRPC server with one connection at a time.
    pub(super) calls: GrpcServer,
    /// Where connections with TLS are accepted.
    pub(super) encrypted: TcpListener,
    _folder: TempDir,
}

impl Stage {
    /// Starts every server.
    pub(super) fn set() -> Self {
        let folder = tempfile::tempdir().expect("a folder for a socket");
        let socket = folder.path().join("socket");
        let socket = socket.to_str().expect("the path is text");
        let host = |&(args, brief): &(&'static [&'static str], bool)| {
            let name = args.get(1).unwrap_or(&"read-write");
            Hosted {
                name: (*name).to_owned(),
                // None of them is a Python server.
                host: Host::start(Kind::Reference(args), Path::new("")),
                brief,
            }
        };
        Self {
            timed: Server::start(&[]),
            scripted: listen(),
            hosts: KINDS.iter().map(host).collect(),
            unix: Server::start(&["--unix", socket]),
            calls: GrpcServer::start(),
            encrypted: listen(),
            _folder: folder,
        }
    }

    /// Starts an agent that watches every server. Returns what it reported if it ended by itself instead.
    pub(super) fn watch(&self, args: &[String]) -> Result<Agent, String> {
        let mut args = args.to_vec();
        for port in self.ports().chain([self.timed.port()]) {
            args.extend(["--watch-port".to_owned(), port.to_string()]);
        }
        args.extend(["--watch-exe".to_owned(), UNIX.to_owned()]);
        // Kprobes on returns need tracefs, which a fresh machine has not mounted.
        Agent::try_start_by(Launcher::agent().with_tracefs(Tracefs::Own), &args)
    }

    /// Returns whether a row is of a server here other than the timed one: an agent finds every server of the machine.
    pub(super) fn has(&self, row: &Logged) -> bool {
        match row.local_port {
            Some(port) => self.ports().any(|own| own == port),
            None => row.pid == self.unix.pid(),
        }
    }

    /// Returns the ports of all servers but the timed one.
    fn ports(&self) -> impl Iterator<Item = u16> {
        let hosts = self.hosts.iter().map(|hosted| hosted.host.port);
        let listeners = [&self.scripted, &self.encrypted].into_iter().map(port_of);
        hosts.chain(listeners).chain([self.calls.port])
    }
}

/// Returns the port on which connections are accepted.
pub(super) fn port_of(listener: &TcpListener) -> u16 {
    let address = listener.local_addr();
    address.expect("a listener has an address").port()
}

fn listen() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port")
}
