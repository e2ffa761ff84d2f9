//! Defines the command line of the reference server.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Serves HTTP/1.1, and reports on request when each of its reads returned and each of its writes was called.
///
/// Once it listens, it prints `listening PORT` or `listening PATH`. It reads commands from standard input: `stamps`
/// prints one JSON object per finished request, then `end`; `codes` prints one object with the number of responses of
/// each status; `listen PATH` listens on one more unix socket; `leave` ends the first thread while the others serve on.
/// The server ends when standard input ends.
#[derive(Debug, Clone, Parser)]
#[command(name = "reference-server")]
pub struct Options {
    /// TCP port on 127.0.0.1 to listen on; 0 for a free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Unix socket to listen on instead
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// System calls to read and write with
    #[arg(long, value_enum, default_value_t = IoMode::ReadWrite)]
    pub io: IoMode,
    /// Buffer sizes of the successive reads of a request; the last one repeats
    #[arg(
        long,
        value_name = "BYTES",
        value_delimiter = ',',
        default_value = "65536"
    )]
    pub read_sizes: Vec<usize>,
    /// Look at the first bytes of each request with MSG_PEEK before reading them
    #[arg(long)]
    pub peek: bool,
    /// Milliseconds to sleep between the moment a request is readable and its first read
    #[arg(long, default_value_t = 0)]
    pub read_sleep_ms: u64,
    /// Worker processes to fork; 0 serves in the first process
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// How workers share the port
    #[arg(long, value_enum, default_value_t = Forking::ListenFirst)]
    pub forking: Forking,
    /// Respond with the request's body, from one thread on epoll, and stamp nothing
    #[arg(long)]
    pub echo: bool,
    /// Text without effect, by which the agent finds the command line
    #[arg(long, value_name = "TEXT")]
    pub tag: Option<String>,
}

/// Which system calls carry the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IoMode {
    /// read(2) and write(2)
    ReadWrite,
    /// recvfrom(2) and sendto(2)
    RecvSend,
    /// readv(2) and writev(2), two buffers each
    Vectored,
    /// recvmsg(2) and sendmsg(2), two buffers each
    Message,
    /// read(2); write(2) for the head of a response, and sendfile(2) for its body
    Sendfile,
}

impl IoMode {
    /// Modes whose bytes are in the caller's memory, for tests that use each.
    pub const ALL: [Self; 4] = [
        Self::ReadWrite,
        Self::RecvSend,
        Self::Vectored,
        Self::Message,
    ];

    /// Returns the value as written on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::RecvSend => "recv-send",
            Self::Vectored => "vectored",
            Self::Message => "message",
            Self::Sendfile => "sendfile",
        }
    }
}

/// How worker processes share the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Forking {
    /// The parent listens, then forks; the workers accept
    ListenFirst,
    /// Each worker listens for itself, with SO_REUSEPORT
    ReusePort,
    /// The parent listens and accepts, and forks a worker for each connection
    PerConnection,
}
