//! Starts Python servers with TLS and a client, and reads what each of them knows of its requests.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    agent::free_port,
    clock::wait_within,
    process_group::ProcessGroup,
    server_cases::hosts::{Kind, Marks},
};

const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers");
/// Longest time until a server listens, and until it has written its marks.
const START_LIMIT: Duration = Duration::from_secs(60);
const MARKS_LIMIT: Duration = Duration::from_secs(10);

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
    folder: TempDir,
    _process_group: ProcessGroup,
}

impl TlsServer {
    /// Starts it from `installed`, and waits until it listens. It asks for a certificate of the client, if `certified`.
    pub fn start(kind: Kind, certified: bool, installed: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the server's files");
        let console = File::create(folder.path().join("console")).expect("the folder is ours");
        let (port, venv) = (free_port(), installed.join("venv"));
        let (program, mut words) = kind.words(&venv, port);
        let (key, certificate) = (
            format!("{APPS}/tls_key.pem"),
            format!("{APPS}/tls_cert.pem"),
        );
        let [key_option, certificate_option] = match kind {
            Kind::UvicornAsyncio | Kind::UvicornUvloop => ["--ssl-keyfile", "--ssl-certfile"],
            _ => ["--keyfile", "--certfile"],
        };
        words.extend([key_option.into(), key]);
        words.extend([certificate_option.into(), certificate.clone()]);
        if certified {
            words.extend(["--ssl-ca-certs".into(), certificate]);
            words.extend(["--ssl-cert-reqs".into(), "2".into()]);
        }
        let mut command = ProcessGroup::command(&program);
        command
            .args(words)
            .current_dir(folder.path())
            .env("PYTHONPATH", APPS)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("MARKS", folder.path().join("marks"))
            .stdout(console.try_clone().expect("a file can be shared"))
            .stderr(console);
        let process_group = ProcessGroup::start(command);
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).ok();
        assert!(
            wait_within(START_LIMIT, listens).is_some(),
            "{kind:?} does not listen: {}",
            fs::read_to_string(folder.path().join("console")).unwrap_or_default()
        );
        Self {
            port,
            python: venv.join("bin/python"),
            folder,
            _process_group: process_group,
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
        let file = self.folder.path().join("marks");
        let read = || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines = text.split_inclusive('\n');
            let whole = lines.filter(|line| line.ends_with('\n'));
            let marks: Vec<Marks> = whole
                .map(|line| serde_json::from_str(line).expect("a mark is JSON"))
                .collect();
            (marks.len() >= count).then_some(marks)
        };
        wait_within(MARKS_LIMIT, read).expect("the server wrote its marks")
    }
}
