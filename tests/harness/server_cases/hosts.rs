//! Starts the servers against which the cases are played, and reads what each knows of its own requests.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    agent::free_port,
    client::Connection,
    clock::wait_within,
    process_group::ProcessGroup,
    require_kernel::skip,
    server::{Server, stamps::Stamp},
    server_cases::play::Play,
};

/// Names the folder that set-up made: `venv`.
const FOLDER: &str = "INFERPROBE_SERVERS_DIR";
/// Applications of the servers.
pub const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers");
/// Longest time until a server listens.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest time until a server has written its marks.
pub(crate) const MARKS_LIMIT: Duration = Duration::from_secs(10);

/// A kind of server, each with its own way to use sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// uvicorn on asyncio, with h11.
    UvicornAsyncio,
    /// uvicorn on uvloop, with httptools.
    UvicornUvloop,
    /// gunicorn with threads.
    Gunicorn,
    /// hypercorn on asyncio, in its own process.
    Hypercorn,
    /// The blocking gRPC server for Python.
    Grpcio,
    /// The reference server, with these options.
    Reference(&'static [&'static str]),
}

impl Kind {
    /// Returns whether it runs the ASGI application.
    pub fn is_asgi(self) -> bool {
        matches!(
            self,
            Self::UvicornAsyncio | Self::UvicornUvloop | Self::Hypercorn
        )
    }

    /// Returns whether it supports HTTP/1.
    pub fn is_http1(self) -> bool {
        self != Self::Grpcio
    }

    /// Returns whether it supports HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Hypercorn | Self::Grpcio)
    }

    /// Returns whether it reads only a few bytes at a time, so that a long body takes long.
    pub fn is_slow(self) -> bool {
        matches!(self, Self::Reference(args) if args.contains(&"1"))
    }

    /// Returns its program in `venv`, and the words that start it on `port`.
    pub fn words(self, venv: &Path, port: u16) -> (PathBuf, Vec<String>) {
        let bin = venv.join("bin");
        let at = format!("127.0.0.1:{port}");
        let listen = ["--host".into(), "127.0.0.1".into(), "--port".into()];
        let uvicorn = |how: &[&str]| {
            let mut words = vec!["asgi_app:app".to_owned()];
            words.extend(listen);
            words.push(port.to_string());
            words.extend(how.iter().map(|word| (*word).to_owned()));
            let quiet = ["--ws", "wsproto", "--no-access-log", "--timeout-keep-alive"];
            words.extend(quiet.map(str::to_owned));
            words.push("60".into());
            words
        };
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Self::UvicornAsyncio => (
                bin.join("uvicorn"),
                uvicorn(&["--loop", "asyncio", "--http", "h11"]),
            ),
            Self::UvicornUvloop => (
                bin.join("uvicorn"),
                uvicorn(&["--loop", "uvloop", "--http", "httptools"]),
            ),
            Self::Gunicorn => (
                bin.join("gunicorn"),
                own(&[
                    "wsgi_app:app",
                    "--bind",
                    &at,
                    "--worker-class",
                    "gthread",
                    "--threads",
                    "4",
                    "--keep-alive",
                    "60",
                    "--no-control-socket",
                ]),
            ),
            Self::Hypercorn => (
                bin.join("hypercorn"),
                own(&["asgi_app:app", "--bind", &at, "--keep-alive", "60"]),
            ),
            Self::Grpcio => (
                bin.join("python"),
                own(&[&format!("{APPS}/grpc_app.py"), &port.to_string()]),
            ),
            Self::Reference(_) => unreachable!("it is not of Python"),
        }
    }
}

/// What a Python server knows of a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// Field `x-case` of the request.
    pub case: String,
    /// The process that ran the handler.
    pub pid: u32,
    /// The handler began.
    pub entered_ns: u64,
    /// It had the whole body; `None` if it did not read it, or did not get it.
    pub read_ns: Option<u64>,
    /// It was about to send the start of its response; `None` if it did not.
    pub begun_ns: Option<u64>,
    /// It had sent the end of its response, or had stopped.
    pub ended_ns: u64,
    /// Status of the response; 0 if it did not begin.
    pub status: u16,
    /// Bytes of the body that it got.
    pub body_bytes: u64,
}

/// Returns the folder that set-up made; `None`, with the reason printed, without one.
pub fn installed() -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    if let Some(folder) = folder
        && folder.join("venv/bin/uvicorn").is_file()
    {
        return Some(folder);
    }
    skip(&format!("{FOLDER} names no folder with Python servers"));
    None
}

impl From<&Stamp> for Marks {
    fn from(stamp: &Stamp) -> Self {
        Self {
            case: String::new(),
            pid: 0,
            entered_ns: stamp.last_read.return_ns,
            read_ns: Some(stamp.last_read.return_ns),
            begun_ns: Some(stamp.first_write.call_ns),
            ended_ns: stamp.last_write.return_ns,
            status: stamp.status,
            body_bytes: 0,
        }
    }
}

/// A running server that writes its marks to a file; it ends when dropped.
pub struct MarkedServer {
    /// Port of 127.0.0.1.
    pub port: u16,
    folder: TempDir,
    _process_group: ProcessGroup,
}

impl MarkedServer {
    /// Starts a Python server from `installed`, and waits until it listens.
    pub fn of_python(kind: Kind, installed: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the server's files");
        let port = free_port();
        let (program, words) = kind.words(&installed.join("venv"), port);
        Self::start(folder, port, &program, words)
    }

    /// Starts a program that listens on `port` with its files in `folder`, and waits until it does.
    pub fn start(folder: TempDir, port: u16, program: &Path, words: Vec<String>) -> Self {
        let console = File::create(folder.path().join("console")).expect("the folder is ours");
        let mut command = ProcessGroup::command(&program);
        command
            .args(words)
            .current_dir(folder.path())
            .env("PYTHONPATH", APPS)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("MARKS", folder.path().join("marks"))
            .stdout(console.try_clone().expect("a file can be shared"))
            .stderr(console);
        let server = Self {
            port,
            folder,
            _process_group: ProcessGroup::start(command),
        };
        let connected = wait_within(START_LIMIT, || Connection::open_tcp(port).ok());
        assert!(
            connected.is_some(),
            "{} does not listen after {START_LIMIT:?}: {}",
            program.display(),
            server.console()
        );
        server
    }

    /// Returns its marks, as far as it has written them.
    pub fn marks_so_far(&self) -> Vec<Marks> {
        let text = fs::read_to_string(self.folder.path().join("marks")).unwrap_or_default();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("a mark is JSON"))
            .collect()
    }

    /// Returns what it has printed.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.folder.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

enum Running {
    Python(MarkedServer),
    Reference(Server),
}

/// A running server; it ends when dropped.
pub struct Host {
    /// Its kind.
    pub kind: Kind,
    /// Port of 127.0.0.1.
    pub port: u16,
    running: Running,
}

impl Host {
    /// Starts it, if it is a Python server from `installed`, and waits until it listens.
    pub fn start(kind: Kind, installed: &Path) -> Self {
        let (port, running) = if let Kind::Reference(args) = kind {
            let server = Server::start(args);
            (server.port(), Running::Reference(server))
        } else {
            let server = MarkedServer::of_python(kind, installed);
            (server.port, Running::Python(server))
        };
        Self {
            kind,
            port,
            running,
        }
    }

    /// Returns its marks of the requests `cases` of the play, in order, as far as they come. The reference server does
    /// not know the cases by name.
    pub fn marks(&mut self, play: &Play, cases: &[&str]) -> Vec<Option<Marks>> {
        let mut marks = Vec::new();
        let _ = wait_within(MARKS_LIMIT, || {
            marks = self.marks_so_far(play, cases);
            marks.iter().all(Option::is_some).then_some(())
        });
        marks
    }

    fn marks_so_far(&mut self, play: &Play, cases: &[&str]) -> Vec<Option<Marks>> {
        match &mut self.running {
            Running::Python(server) => {
                let all = server.marks_so_far();
                let of = |case: &&str| all.iter().find(|marks| marks.case == **case).cloned();
                cases.iter().map(of).collect()
            }
            Running::Reference(server) => {
                let mut stamps = server.stamps(0);
                stamps.retain(|stamp| {
                    stamp.peer_port == Some(play.local_port)
                        && play.time_ns.contains(&stamp.first_read.return_ns)
                });
                stamps.sort_by_key(|stamp| stamp.seq);
                let nth = |n: usize| stamps.get(n).map(Marks::from);
                (0..cases.len()).map(nth).collect()
            }
        }
    }

    /// Returns what it has printed.
    pub fn console(&self) -> String {
        match &self.running {
            Running::Python(server) => server.console(),
            Running::Reference(_) => String::new(),
        }
    }
}
