//! A closed-loop HTTP load client on one thread.
//!
//! Each of N keep-alive connections sends its next requests when the responses to the last are complete. If a rate is
//! given, it also waits until they are due.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
};
use rustls::{ClientConnection, Stream, version::TLS13};
use serde::Serialize;

use crate::{
    client::request,
    http::{content_length, head_len},
    stats::Spread,
    tls_client,
};

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the server listens.
    pub address: SocketAddr,
    /// Number of keep-alive connections.
    pub connections: usize,
    /// Time for which to send.
    pub duration: Duration,
    /// Request target.
    pub target: String,
    /// Bytes of request body.
    pub body_bytes: usize,
    /// Requests per second, evenly spaced; `None` sends as fast as responses come.
    pub rate_per_s: Option<u32>,
    /// Requests in one send; at least 1.
    pub pipelined: u32,
    /// Whether the client speaks TLS 1.3.
    pub encrypted: bool,
}

/// Throughput and latency of a load.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Responses received.
    pub requests: u64,
    /// Seconds from the first request to the last response.
    pub elapsed_s: f64,
    /// Responses per second.
    pub requests_per_s: f64,
    /// Time from a send to the last response to it, in nanoseconds.
    pub latency_ns: Spread,
}

struct Connection {
    stream: TcpStream,
    /// Its TLS, if any.
    tls: Option<ClientConnection>,
    input: Vec<u8>,
    /// When the next request is due, or when the one in flight was.
    due: Instant,
    sent: Instant,
    /// Responses that are still missing.
    in_flight: u32,
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes)?,
            // The first send waits for the end of the handshake.
            Some(tls) => Stream::new(tls, &mut self.stream).write_all(bytes)?,
        }
        Ok(())
    }

    /// Reads once, and keeps the plaintext.
    fn read(&mut self, scratch: &mut [u8]) -> Result<()> {
        let count = match &mut self.tls {
            None => {
                let count = self.stream.read(scratch)?;
                self.input.extend_from_slice(&scratch[..count]);
                count
            }
            Some(tls) => {
                let count = tls.read_tls(&mut self.stream)?;
                let plaintext = tls.process_new_packets()?.plaintext_bytes_to_read();
                let from = self.input.len();
                self.input.resize(from + plaintext, 0);
                tls.reader().read_exact(&mut self.input[from..])?;
                count
            }
        };
        anyhow::ensure!(count > 0, "the server closed a connection");
        Ok(())
    }
}

/// Longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns a body of so many bytes: JSON that names a model last, if it fits.
fn body(bytes: usize) -> Vec<u8> {
    const START: &[u8] = b"{\"input\":\"";
    const END: &[u8] = b"\",\"model\":\"m\"}";
    match bytes.checked_sub(START.len() + END.len()) {
        Some(filled) => [START, &vec![b'b'; filled], END].concat(),
        None => vec![b'b'; bytes],
    }
}

/// Runs the load to its end.
pub fn run(load: &Load) -> Result<Outcome> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let body = body(load.body_bytes);
    let batch = load.pipelined.max(1);
    let bytes = request("POST", &load.target, &[], &body).repeat(usize::try_from(batch)?);
    let spacing = load.rate_per_s.map_or(Duration::ZERO, |rate| {
        Duration::from_secs(1) * batch / rate.max(1)
    });
    let turn = spacing * u32::try_from(load.connections)?;
    let start = Instant::now();
    let mut connections = Vec::with_capacity(load.connections);
    let mut due = start;
    for index in 0..load.connections {
        let stream = TcpStream::connect(load.address)
            .with_context(|| format!("connect to {}", load.address))?;
        stream.set_nodelay(true)?;
        let tls = load.encrypted.then(|| tls_client::connection(&[&TLS13]));
        epoll::add(
            &epoll,
            &stream,
            EventData::new_u64(index as u64),
            EventFlags::IN,
        )?;
        connections.push(Connection {
            stream,
            tls,
            input: Vec::new(),
            due,
            sent: start,
            in_flight: 0,
        });
        due += spacing;
    }

    let mut requests = 0;
    let mut latencies_ns = Vec::new();
    let mut events = Vec::with_capacity(load.connections.max(1));
    let mut scratch = vec![0; 65536];
    loop {
        let now = Instant::now();
        let over = now.duration_since(start) >= load.duration;
        let wait = send_due(&mut connections, &bytes, batch, now, over)?;
        let in_flight = connections
            .iter()
            .any(|connection| connection.in_flight > 0);
        if over && !in_flight {
            break;
        }
        events.clear();
        let limit = Timespec::try_from(wait.unwrap_or(PATIENCE))?;
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&limit))?;
        anyhow::ensure!(
            wait.is_some() || !events.is_empty(),
            "no answer within 10 s"
        );
        for event in &events {
            let index = usize::try_from(event.data.u64()).context("index of a connection")?;
            let connection = &mut connections[index];
            if !receive(connection, &mut scratch)? {
                continue;
            }
            requests += u64::from(batch);
            let latency = connection.sent.elapsed();
            latencies_ns.push(u64::try_from(latency.as_nanos())?);
            connection.due += turn;
        }
    }
    let elapsed_s = start.elapsed().as_secs_f64();
    Ok(Outcome {
        requests,
        elapsed_s,
        requests_per_s: requests as f64 / elapsed_s,
        latency_ns: Spread::of(latencies_ns).context("no answer at all")?,
    })
}

/// Sends the `batch` requests in `bytes` on each connection that is due, or on none if `over`. Returns the time until
/// the next one is due; `None` if none waits.
fn send_due(
    connections: &mut [Connection],
    bytes: &[u8],
    batch: u32,
    now: Instant,
    over: bool,
) -> Result<Option<Duration>> {
    let mut wait: Option<Duration> = None;
    for connection in connections {
        if over || connection.in_flight > 0 {
            continue;
        }
        if connection.due <= now {
            connection.sent = Instant::now();
            connection.in_flight = batch;
            connection.send(bytes)?;
        } else {
            let left = connection.due - now;
            wait = Some(wait.map_or(left, |wait| wait.min(left)));
        }
    }
    Ok(wait)
}

/// Reads once, and returns whether that completed the last missing response.
fn receive(connection: &mut Connection, scratch: &mut [u8]) -> Result<bool> {
    connection.read(scratch)?;
    let mut rest = connection.input.as_slice();
    while let Some(head_bytes) = head_len(rest) {
        let head = &rest[..head_bytes];
        anyhow::ensure!(
            head.starts_with(b"HTTP/1.1 200 "),
            "answered {:?}",
            String::from_utf8_lossy(head)
        );
        let length = content_length(head).context("an answer without Content-Length")?;
        let Some(behind) = rest.get(head_bytes + length..) else {
            break;
        };
        anyhow::ensure!(connection.in_flight > 0, "an answer too many");
        connection.in_flight -= 1;
        rest = behind;
    }
    let taken = connection.input.len() - rest.len();
    connection.input.drain(..taken);
    Ok(connection.in_flight == 0)
}
