//! Starts Python servers with TLS and a client, and reads what each of them knows of its requests.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::{
    clock::wait_within,
    server_cases::hosts::{APPS, Kind, MARKS_LIMIT, Marks, PythonServer},
};

/// What a client sends.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests in all.
    pub requests: usize,
    /// Connections at once.
    pub connections: usize,
    /// Requests of one connection; the next one resumes its session.
    pub per_connection: usize,
    /// Newest version that the client offers.
    pub version: &'static str,
    /// The protocol that it offers by ALPN, or `-`.
    pub alpn: &'static str,
    /// Bytes of each body, both ways.
    pub body_bytes: usize,
    /// Whether it sends a certificate.
    pub certified: bool,
}

/// A request, as the client knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Sent {
    /// Its case.
    pub case: String,
    /// The client's port.
    pub port: u16,
    /// Its number on the connection.
    pub index: u32,
}

/// A running server with TLS; it ends when dropped.
pub struct TlsServer {
    /// Port of 127.0.0.1.
    pub port: u16,
    python: PathBuf,
    server: PythonServer,
}

impl TlsServer {
    /// Starts it from `installed`, and waits until it listens. It asks for a certificate of the client, if `certified`.
    pub fn start(kind: Kind, certified: bool, installed: &Path) -> Self {
        let (key, certificate) = (
            format!("{APPS}/tls_key.pem"),
            format!("{APPS}/tls_cert.pem"),
        );
        let [key_option, certificate_option] = match kind {
            Kind::UvicornAsyncio | Kind::UvicornUvloop => ["--ssl-keyfile", "--ssl-certfile"],
            _ => ["--keyfile", "--certfile"],
        };
        let mut options = vec![key_option.into(), key];
        options.extend([certificate_option.into(), certificate.clone()]);
        if certified {
            options.extend(["--ssl-ca-certs".into(), certificate]);
            options.extend(["--ssl-cert-reqs".into(), "2".into()]);
        }
        let server = PythonServer::start(kind, installed, options);
        Self {
            port: server.port,
            python: installed.join("venv/bin/python"),
            server,
        }
    }

    /// Sends a load; returns what the client knows of its requests.
    pub fn load(&self, load: Load) -> Vec<Sent> {
        let numbers = [
            usize::from(self.port),
            load.requests,
            load.connections,
            load.per_connection,
        ];
        let output = Command::new(&self.python)
            .arg(format!("{APPS}/tls_client.py"))
            .args(numbers.map(|number| number.to_string()))
            .args([load.version, load.alpn, &load.body_bytes.to_string()])
            .arg(if load.certified { "cert" } else { "-" })
            .output()
            .expect("python runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{load:?}: {errors}");
        let lines = String::from_utf8_lossy(&output.stdout);
        let sent = lines.lines().map(serde_json::from_str);
        sent.collect::<Result<_, _>>().expect("lines are JSON")
    }

    /// Returns the server's own marks of `count` requests.
    pub fn marks(&self, count: usize) -> Vec<Marks> {
        let read = || {
            let marks = self.server.marks_so_far();
            (marks.len() >= count).then_some(marks)
        };
        wait_within(MARKS_LIMIT, read).expect("the server wrote its marks")
    }
}
