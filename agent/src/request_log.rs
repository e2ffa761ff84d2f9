//! Writes the request log: one JSON line per finished request, with its times and never its payload.
//!
//! The pipeline calls it after the metrics, with the same observation.
//! Does not depend on: records, metrics.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;

use crate::{
    catalogue::route::Purpose, exchange::Exchange, observation::Observation,
    torchserve::exchange::WorkerExchange, verdict::slow::Because,
};

/// Time between two checks whether the file was renamed or removed while nothing is written to it, ns.
const CHECK_NS: u64 = 1_000_000_000;

/// An open log file. It follows its path: if the file is renamed or removed, the log continues in a new file.
#[derive(Debug)]
pub struct RequestLog {
    path: PathBuf,
    to: BufWriter<File>,
    /// Device and inode of the open file.
    id: (u64, u64),
    /// Set to have the file opened again at the next [`RequestLog::rotate`].
    reopen: Arc<AtomicBool>,
    checked_ns: u64,
}

/// One line. Times are CLOCK_MONOTONIC nanoseconds, in order; `null` if unknown, or if the first write of a response came
/// before the last read of its request.
#[derive(Debug, Serialize)]
struct LogLine<'a> {
    conn: u64,
    seq: u32,
    pid: u32,
    local_port: Option<u16>,
    peer_port: Option<u16>,
    model: &'a str,
    /// Where `model` comes from.
    model_source: &'static str,
    version: &'a str,
    server: &'a str,
    /// Container of the server, and its pod; absent if it runs in none, or if the label is switched off.
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    container: &'a str,
    purpose: &'static str,
    method: &'a str,
    status: u16,
    arrival_ns: Option<u64>,
    first_read_ns: u64,
    last_read_ns: u64,
    first_write_ns: Option<u64>,
    last_write_ns: Option<u64>,
    /// How much of the time from last read to first write the serving thread was ready and waited for a CPU, ms.
    starved_ms: Option<f64>,
    /// How long the connection's send buffer was too full for the server to write more, because the client received
    /// slowly, ms.
    undrained_ms: Option<f64>,
    /// Why it was slow; absent if it was not slow for its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'static str>,
    request_bytes: u64,
    response_bytes: u64,
    /// When the connection was accepted; absent if that was not observed, and after the connection's first request.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_ns: Option<u64>,
    /// Messages of the WebSocket session that the request began; absent if it began none.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionLine>,
    /// Watched server that sent the request; absent if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<&'a str>,
    /// What a TorchServe worker did for the request; absent if no worker was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerLine>,
    /// Times of a streamed response; absent if the response is not streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamLine>,
    /// Tokens of a language model's response; absent if it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<TokensLine>,
}

/// A WebSocket session: its messages; `null` if some could not be counted.
#[derive(Debug, Serialize)]
struct SessionLine {
    received: Option<u64>,
    sent: Option<u64>,
}

/// A streamed response. Times are nanoseconds from the request's arrival.
#[derive(Debug, Serialize)]
struct StreamLine {
    first_byte_ns: Option<u64>,
    first_chunk_ns: Option<u64>,
    chunks: Option<u32>,
    mean_gap_ns: Option<u64>,
}

/// Tokens of a response: how many it states, when the first came, and the mean time from one to the next.
#[derive(Debug, Serialize)]
struct TokensLine {
    input: Option<u64>,
    output: Option<u64>,
    first_ns: Option<u64>,
    gap_ns: Option<u64>,
}

/// The TorchServe worker's side of a line.
#[derive(Debug, Serialize)]
struct WorkerLine {
    pid: u32,
    code: i32,
    dispatched_ns: Option<u64>,
    arrival_ns: Option<u64>,
    last_read_ns: u64,
    first_write_ns: Option<u64>,
    last_write_ns: u64,
    reply_read_ns: Option<u64>,
}

impl RequestLog {
    /// Opens the file at `path` for appending; creates it if it is missing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (to, id) = open(path)?;
        Ok(Self {
            // Another directory may be the working directory later.
            path: std::path::absolute(path)?,
            to,
            id,
            reopen: Arc::default(),
            checked_ns: 0,
        })
    }

    /// Returns what another thread sets to have the file opened again.
    pub fn reopen_request(&self) -> Arc<AtomicBool> {
        self.reopen.clone()
    }

    /// Continues in a new file at the log's path if that was requested, or if the path no longer names the open file;
    /// checks the latter whenever lines wait to be written, and once a second. Returns whether it did.
    ///
    /// Lines that wait go to the new file. If it cannot be opened, the log continues in the old one.
    pub fn rotate(&mut self, now_ns: u64) -> io::Result<bool> {
        let is_requested = self.reopen.swap(false, Ordering::Relaxed);
        if !is_requested {
            let is_due = now_ns.saturating_sub(self.checked_ns) >= CHECK_NS;
            if !is_due && self.to.buffer().is_empty() {
                return Ok(false);
            }
            self.checked_ns = now_ns;
            let is_moved = match fs::metadata(&self.path) {
                Ok(there) => id_of(&there) != self.id,
                Err(err) => err.kind() == io::ErrorKind::NotFound,
            };
            if !is_moved {
                return Ok(false);
            }
        }
        let (to, id) = open(&self.path)?;
        let (_, waiting) = std::mem::replace(&mut self.to, to).into_parts();
        self.id = id;
        let waiting = waiting.map_err(io::Error::other)?;
        self.to.write_all(&waiting)?;
        Ok(true)
    }

    /// Adds the line of one request; `worker` is its worker's exchange, if one was observed.
    pub fn write(
        &mut self,
        exchange: &Exchange,
        worker: Option<&WorkerExchange>,
        observation: &Observation,
    ) -> io::Result<()> {
        let Exchange {
            peer,
            request,
            response,
        } = exchange;
        let identity = &observation.identity;
        let [namespace, pod, container] = identity.replica.container_labels();
        let last_read_ns = exchange.read_before_end_ns();
        let line = LogLine {
            conn: peer.cookie,
            seq: request.index,
            pid: peer.tgid,
            local_port: peer.local_port,
            peer_port: peer.peer_port,
            model: &identity.model,
            model_source: observation.model_source.name(),
            version: &identity.version,
            server: &identity.server,
            namespace,
            pod,
            container,
            purpose: match observation.purpose {
                Purpose::Inference => "inference",
                Purpose::Admin => "admin",
                Purpose::Internal => "internal",
            },
            method: &request.method,
            status: response.status,
            arrival_ns: request.arrival_ns,
            first_read_ns: request.first_read_ns,
            last_read_ns,
            first_write_ns: (!response.first_write_bounded
                && response.first_write_ns >= last_read_ns)
                .then_some(response.first_write_ns),
            last_write_ns: response.last_write_ns,
            because: observation.because.map(Because::name),
            starved_ms: observation.starved_ns.map(|ns| ns as f64 / 1e6),
            undrained_ms: response.undrained_ns.map(|ns| ns as f64 / 1e6),
            request_bytes: request.bytes,
            response_bytes: response.bytes,
            accepted_ns: peer.accepted_ns.filter(|_| request.index == 0),
            session: response.session.map(|session| SessionLine {
                received: session.received,
                sent: session.sent,
            }),
            gateway: observation.hop.gateway.as_deref(),
            worker: worker.map(|worker_exchange| WorkerLine {
                pid: worker_exchange.peer.tgid,
                code: worker_exchange.reply.code,
                dispatched_ns: worker_exchange.dispatched_ns,
                arrival_ns: worker_exchange.arrival_ns,
                last_read_ns: worker_exchange.last_read_ns,
                first_write_ns: worker_exchange.first_write_ns,
                last_write_ns: worker_exchange.last_write_ns,
                reply_read_ns: worker_exchange.reply_read_ns,
            }),
            stream: observation.stream.as_deref().map(|stream| StreamLine {
                first_byte_ns: stream.first_byte_ns,
                first_chunk_ns: stream.first_chunk_ns,
                chunks: stream.chunks,
                mean_gap_ns: stream.mean_gap_ns,
            }),
            tokens: observation.tokens.map(|tokens| TokensLine {
                input: tokens.usage.input,
                output: tokens.usage.output,
                first_ns: tokens.first.known_ns(),
                gap_ns: tokens.gap.known_ns(),
            }),
        };
        serde_json::to_writer(&mut self.to, &line)?;
        self.to.write_all(b"\n")
    }

    /// Writes the buffered lines to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, (u64, u64))> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let id = id_of(&file.metadata()?);
    Ok((BufWriter::with_capacity(64 << 10, file), id))
}

fn id_of(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder, which is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("inferprobe-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(log: &mut RequestLog, line: &str) {
        log.to.write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn renamed_or_removed_log_continues_in_a_new_file() {
        let folder = Folder::new("renamed");
        let (path, old) = (folder.0.join("log"), folder.0.join("log.1"));
        let mut log = RequestLog::open(&path).unwrap();
        write(&mut log, "a\n");
        assert!(!log.rotate(CHECK_NS).unwrap());
        log.flush().unwrap();
        fs::rename(&path, &old).unwrap();
        // Nothing waits, and the next check is not due.
        assert!(!log.rotate(CHECK_NS * 2 - 1).unwrap());
        write(&mut log, "b\n");
        assert!(log.rotate(CHECK_NS * 2 - 1).unwrap());
        write(&mut log, "c\n");
        log.flush().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "a\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\nc\n");
        fs::remove_file(&path).unwrap();
        assert!(log.rotate(CHECK_NS * 3).unwrap());
        write(&mut log, "d\n");
        log.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "d\n");
    }

    #[test]
    fn request_to_reopen_is_served_at_once_and_once() {
        let folder = Folder::new("reopened");
        let (path, old) = (folder.0.join("log"), folder.0.join("log.1"));
        let mut log = RequestLog::open(&path).unwrap();
        fs::rename(&path, &old).unwrap();
        log.reopen_request().store(true, Ordering::Relaxed);
        assert!(log.rotate(0).unwrap());
        assert!(!log.rotate(0).unwrap());
        write(&mut log, "a\n");
        log.flush().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
    }

    #[test]
    fn log_continues_in_the_old_file_if_no_new_one_can_be_opened() {
        let folder = Folder::new("stuck");
        let (path, old) = (folder.0.join("log"), folder.0.join("log.1"));
        let mut log = RequestLog::open(&path).unwrap();
        fs::rename(&path, &old).unwrap();
        fs::create_dir(&path).unwrap();
        log.reopen_request().store(true, Ordering::Relaxed);
        assert!(log.rotate(0).is_err());
        write(&mut log, "a\n");
        log.flush().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "a\n");
    }
}
