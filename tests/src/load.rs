//! A closed-loop HTTP load client: N keep-alive connections on one thread, each sends its next request when the
//! answer to the last is complete.

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
use serde::Serialize;

use crate::{
    client::request,
    http::{content_length, head_len},
    stats::Spread,
};

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the server listens.
    pub address: SocketAddr,
    /// Number of keep-alive connections.
    pub connections: usize,
    /// How long to go on sending.
    pub duration: Duration,
    /// Request target.
    pub target: String,
    /// Bytes of request body.
    pub body_bytes: usize,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Answers received.
    pub requests: u64,
    /// Seconds from the first request to the last answer.
    pub elapsed_s: f64,
    /// Answers per second.
    pub requests_per_s: f64,
    /// Send to complete answer, nanoseconds.
    pub latency_ns: Spread,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    sent: Instant,
}

/// Runs the load to its end.
pub fn run(load: &Load) -> Result<Outcome> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let body = vec![b'b'; load.body_bytes];
    let bytes = request("POST", &load.target, &[], &body);
    let start = Instant::now();
    let mut connections = Vec::with_capacity(load.connections);
    for index in 0..load.connections {
        let mut stream = TcpStream::connect(load.address)
            .with_context(|| format!("connect to {}", load.address))?;
        stream.set_nodelay(true)?;
        epoll::add(
            &epoll,
            &stream,
            EventData::new_u64(index as u64),
            EventFlags::IN,
        )?;
        stream.write_all(&bytes)?;
        connections.push(Connection {
            stream,
            input: Vec::new(),
            sent: Instant::now(),
        });
    }

    let mut latencies_ns = Vec::new();
    let mut events = Vec::with_capacity(load.connections.max(1));
    let mut open = load.connections;
    let mut scratch = vec![0; 65536];
    let patience = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    while open > 0 {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience))?;
        anyhow::ensure!(!events.is_empty(), "no answer within 10 s");
        for event in &events {
            let index = usize::try_from(event.data.u64()).context("index of a connection")?;
            let connection = &mut connections[index];
            if !receive(connection, &mut scratch)? {
                continue;
            }
            let latency = connection.sent.elapsed();
            latencies_ns.push(u64::try_from(latency.as_nanos())?);
            if start.elapsed() < load.duration {
                connection.sent = Instant::now();
                connection.stream.write_all(&bytes)?;
            } else {
                open -= 1;
            }
        }
    }
    let elapsed_s = start.elapsed().as_secs_f64();
    let requests = latencies_ns.len() as u64;
    Ok(Outcome {
        requests,
        elapsed_s,
        requests_per_s: latencies_ns.len() as f64 / elapsed_s,
        latency_ns: Spread::of(latencies_ns).context("no answer at all")?,
    })
}

/// One read; true when it completed the answer.
fn receive(connection: &mut Connection, scratch: &mut [u8]) -> Result<bool> {
    let count = connection.stream.read(scratch)?;
    anyhow::ensure!(count > 0, "the server closed a connection");
    connection.input.extend_from_slice(&scratch[..count]);
    let Some(head_bytes) = head_len(&connection.input) else {
        return Ok(false);
    };
    let head = &connection.input[..head_bytes];
    anyhow::ensure!(
        head.starts_with(b"HTTP/1.1 200 "),
        "answered {:?}",
        String::from_utf8_lossy(head)
    );
    let length = content_length(head).context("an answer without Content-Length")?;
    let complete = connection.input.len() >= head_bytes + length;
    if complete {
        connection.input.clear();
    }
    Ok(complete)
}
