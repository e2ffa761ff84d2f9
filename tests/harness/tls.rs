//! Starts servers with TLS and a client, and reads what each of them knows of its requests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::{
    agent::free_port,
    clock::wait_within,
    server_cases::hosts::{APPS, Kind, MARKS_LIMIT, MarkedServer, Marks},
};

/// Bytes of each body that nginx sends.
pub const NGINX_BODY_BYTES: usize = 40;

/// A server with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// One of set-up's, on OpenSSL in memory or on a socket.
    Python(Kind),
    /// node, with its own OpenSSL.
    Node,
    /// nginx: it keeps no marks.
    Nginx,
    /// Go's own TLS.
    Go,
    /// Java's own TLS.
    Java,
}

impl Program {
    /// Whether it keeps marks of its requests.
    pub fn keeps_marks(self) -> bool {
        self != Self::Nginx
    }

    /// What must be on the path to start it; `None` for what set-up brings.
    pub fn tool(self) -> Option<&'static str> {
        match self {
            Self::Python(_) => None,
            Self::Node => Some("node"),
            Self::Nginx => Some("nginx"),
            Self::Go => Some("go"),
            Self::Java => Some("java"),
        }
    }

    /// Returns the program and the words that start it on `port`, with its files in `folder`. It asks for a certificate
    /// of the client, if `certified`.
    fn words(
        self,
        port: u16,
        certified: bool,
        venv: &Path,
        folder: &Path,
    ) -> (PathBuf, Vec<String>) {
        let (key, certificate) = (
            format!("{APPS}/tls_key.pem"),
            format!("{APPS}/tls_cert.pem"),
        );
        let own = |words: &[&str]| {
            let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            words.extend([port.to_string(), key.clone(), certificate.clone()]);
            words.extend(certified.then(|| "cert".to_owned()));
            words
        };
        match self {
            Self::Python(kind) => {
                let (program, mut words) = kind.words(venv, port);
                let [key_option, certificate_option] = match kind {
                    Kind::UvicornAsyncio | Kind::UvicornUvloop => {
                        ["--ssl-keyfile", "--ssl-certfile"]
                    }
                    _ => ["--keyfile", "--certfile"],
                };
                words.extend([key_option.into(), key]);
                words.extend([certificate_option.into(), certificate.clone()]);
                if certified {
                    let (file, asks) = match kind {
                        Kind::Hypercorn => ("--ca-certs", ["--verify-mode", "CERT_REQUIRED"]),
                        Kind::Gunicorn => ("--ca-certs", ["--cert-reqs", "2"]),
                        _ => ("--ssl-ca-certs", ["--ssl-cert-reqs", "2"]),
                    };
                    words.extend([file.into(), certificate]);
                    words.extend(asks.map(str::to_owned));
                }
                (program, words)
            }
            Self::Node => ("node".into(), own(&[&format!("{APPS}/tls_node.js")])),
            Self::Go => ("go".into(), own(&["run", &format!("{APPS}/tls_go.go")])),
            Self::Java => (
                "java".into(),
                own(&[
                    "-Dsun.net.httpserver.nodelay=true",
                    &format!("{APPS}/TlsServer.java"),
                ]),
            ),
            Self::Nginx => {
                let asks = if certified {
                    format!("ssl_client_certificate {certificate}; ssl_verify_client on;")
                } else {
                    String::new()
                };
                let body = "r".repeat(NGINX_BODY_BYTES);
                // It answers by itself before it has read a body, so it asks another server, itself.
                let socket = folder.join("upstream").display().to_string();
                let text = format!(
                    "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}
                    http {{
                        access_log off; keepalive_requests 1000000; client_body_temp_path body;
                        proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
                        scgi_temp_path scgi; ssl_protocols TLSv1.2 TLSv1.3;
                        server {{ listen unix:{socket}; location / {{ return 200 {body}; }} }}
                        server {{
                            listen 127.0.0.1:{port} ssl; ssl_certificate {certificate};
                            ssl_certificate_key {key}; {asks}
                            location / {{ proxy_pass http://unix:{socket}; }}
                        }}
                    }}"
                );
                let file = folder.join("nginx.conf");
                fs::write(&file, text).expect("the folder is ours");
                let (folder, file) = (folder.display().to_string(), file.display().to_string());
                let words = ["-p".to_owned(), folder, "-c".to_owned(), file];
                ("nginx".into(), words.to_vec())
            }
        }
    }
}

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
    /// The client was about to send it.
    pub begun_ns: u64,
    /// The client had the whole response.
    pub ended_ns: u64,
}

/// A running server with TLS; it ends when dropped.
pub struct TlsServer {
    /// Port of 127.0.0.1.
    pub port: u16,
    python: PathBuf,
    server: MarkedServer,
}

impl TlsServer {
    /// Starts it, if of Python from `installed`, and waits until it listens. It asks for a certificate of the client, if
    /// `certified`.
    pub fn start(program: Program, certified: bool, installed: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the server's files");
        let (port, venv) = (free_port(), installed.join("venv"));
        let (executable, words) = program.words(port, certified, &venv, folder.path());
        let server = MarkedServer::start(folder, port, &executable, words);
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
