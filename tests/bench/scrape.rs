//! Measures how long a scrape takes after many models have been served: on one kept connection, plain and compressed.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    http::{content_length, head_len},
    server::Server,
    stats::Spread,
};

use crate::report::{Row, Section};

/// Models served before the scrapes; the echo load's own is one of them.
pub(crate) const MODELS: usize = 200;
/// Requests to each model but the load's.
const REQUESTS_EACH: usize = 5;
/// Requests sent here.
pub(crate) const REQUESTS: usize = (MODELS - 1) * REQUESTS_EACH;
/// Longest time from a request to its place in the metrics.
const AGENT_LAG: Duration = Duration::from_secs(10);
const P99_TARGET_MS: f64 = 5.0;

/// Serves every model, then scrapes `count` times plain and as often compressed.
pub(crate) fn measure(agent: &Agent, server: &Server, count: u32) -> Result<Section> {
    serve_models(agent, server)?;
    let mut scraper = Scraper::connect(agent.port)?;
    let mut rows = Vec::new();
    for (name, fields) in [("plain", &[][..]), ("gzip", &["Accept-Encoding: gzip"][..])] {
        let bytes = request("GET", "/metrics", fields, b"");
        let mut latencies_ns = Vec::new();
        let mut body_bytes = 0;
        let cpu_before_s = agent.cpu_s();
        for _ in 0..count {
            let start = Instant::now();
            body_bytes = scraper.scrape(&bytes)?;
            latencies_ns.push(u64::try_from(start.elapsed().as_nanos())?);
        }
        let cpu_ms = (agent.cpu_s() - cpu_before_s) * 1e3 / f64::from(count);
        let spread = Spread::of(latencies_ns).context("no scrape")?;
        let p99_ms = ns_to_ms_f64(spread.p99);
        let p50 = Row::new(format!("{name}, p50"), ms(spread.p50));
        rows.push(p50.detail(format!(
            "{count} scrapes of {body_bytes} bytes, {cpu_ms:.2} ms of the agent's CPU time each"
        )));
        let p99 = Row::new(format!("{name}, p99"), ms(spread.p99));
        rows.push(
            p99.at_most(p99_ms, P99_TARGET_MS, "ms")
                .detail(format!("at most {}", ms(spread.max))),
        );
    }
    Ok(Section {
        title: format!("Time of a scrape at {MODELS} models, on a kept loopback connection"),
        rows,
    })
}

/// Sends requests to models of many names, and waits until the agent has counted them.
fn serve_models(agent: &Agent, server: &Server) -> Result<()> {
    let mut client = Connection::open_tcp(server.port())?;
    for round in 0..REQUESTS_EACH {
        // The load has sent to a model already.
        for model in 1..MODELS {
            let target = format!("/predictions/m{model}");
            client
                .exchange(&request("POST", &target, &[], b"x"))
                .with_context(|| format!("round {round} of requests to many models"))?;
        }
    }
    wait_for("every model in the metrics", AGENT_LAG, || {
        let (_, text) = agent.get("/metrics");
        (models(&text) == MODELS).then_some(())
    });
    Ok(())
}

/// Returns how many models have a series of request times.
fn models(text: &str) -> usize {
    let series = "inferprobe_request_duration_seconds_count{";
    text.lines().filter(|line| line.starts_with(series)).count()
}

/// A client that discards responses, so that the time is the agent's.
struct Scraper {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Scraper {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connect to the agent")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: vec![0; 256 * 1024],
        })
    }

    /// Sends a request, reads the response to its end, and returns the length of its body.
    fn scrape(&mut self, request: &[u8]) -> Result<usize> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        let head_bytes = loop {
            filled += self.read(filled)?;
            if let Some(head_bytes) = head_len(&self.input[..filled]) {
                break head_bytes;
            }
        };
        let head = &self.input[..head_bytes];
        anyhow::ensure!(
            head.starts_with(b"HTTP/1.1 200 "),
            "the agent answered {:?}",
            String::from_utf8_lossy(head)
        );
        let length = content_length(head).context("a scrape without Content-Length")?;
        let mut left = (head_bytes + length).saturating_sub(filled);
        while left > 0 {
            left = left.saturating_sub(self.read(0)?);
        }
        Ok(length)
    }

    /// Reads once into the buffer, from `start` on.
    fn read(&mut self, start: usize) -> Result<usize> {
        let count = self.stream.read(&mut self.input[start..])?;
        anyhow::ensure!(count > 0, "the agent closed the connection");
        Ok(count)
    }
}

fn ms(ns: u64) -> String {
    format!("{:.2} ms", ns_to_ms_f64(ns))
}

fn ns_to_ms_f64(ns: u64) -> f64 {
    ns as f64 / 1e6
}
