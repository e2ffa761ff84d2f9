//! Measures how fast one core processes prepared records, from their bytes to the metrics, without a kernel.
//!
//! Prints a line of JSON for each kind of traffic, or for those whose name contains the argument: `{"traffic":"...","records":1,"requests":1,"cpu_s":1.0}`.
//! Does not depend on: the eBPF programs.

use std::{collections::HashMap, io::Write as _, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use inferprobe::{
    catalogue::Catalogue,
    discovery::{
        registry::Registry,
        roster::Roster,
        watch::{Target, Watch},
    },
    history::History,
    metrics::{Format, Metrics, Selection},
    pipeline::{Pipeline, connections::ConnectionTable},
};
use inferprobe_ebpf::abi::{Record, flag, kind, mode};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// Requests of each kind.
const REQUESTS: u32 = 200_000;
/// Connections that carry them, one after the other.
const CONNECTIONS: u32 = 64;
/// Chunks of a streamed response.
const CHUNKS: u32 = 30;
/// Records between two ticks: as many as a drain finds at 200,000 a second.
const RECORDS_PER_TICK: usize = 4_000;
const PORT: u16 = 8080;
/// Time from one record to the next, ns.
const STEP_NS: u64 = 5_000;

const BODY: &[u8] = br#"{"inputs": [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75], "id": "x01"}"#;

fn main() -> Result<()> {
    let kinds: [(&str, Traffic); 3] = [
        ("requests over kept connections", kept_connections),
        ("answers in chunks", chunked_responses),
        ("calls over gRPC", calls),
    ];
    let only = std::env::args().nth(1).unwrap_or_default();
    for (traffic, write) in kinds {
        if !traffic.contains(&only) {
            continue;
        }
        let mut tape = Tape::default();
        write(&mut tape);
        let records = tape.ends.len();
        let (requests, cpu_s) = drain(&tape)?;
        ensure!(
            requests == u64::from(tape.requests),
            "{traffic}: {requests} of {} requests counted",
            tape.requests
        );
        let line =
            json!({"traffic": traffic, "records": records, "requests": requests, "cpu_s": cpu_s});
        writeln!(std::io::stdout(), "{line}").context("print a line")?;
    }
    Ok(())
}

/// Writes the records of one kind of traffic to a tape.
type Traffic = fn(&mut Tape);

/// Entries of the ring, one after the other.
#[derive(Default)]
struct Tape {
    bytes: Vec<u8>,
    /// Where each entry ends.
    ends: Vec<usize>,
    /// Of each connection, without and with `flag::RESPONSES`: the number of the latest record, and the bytes of the present
    /// run of writes.
    latest: HashMap<(u32, u8), (u32, u64)>,
    now_ns: u64,
    requests: u32,
}

impl Tape {
    fn push(&mut self, connection: u32, mode: u8, kind: u8, request: &[u8], response: &[u8]) {
        self.now_ns += STEP_NS;
        let side = match (mode, kind) {
            (mode::STREAMS, kind::PROGRESS) => flag::RESPONSES,
            _ => 0,
        };
        let (seq, written_bytes) = self.latest.entry((connection, side)).or_default();
        *seq += 1;
        if kind != kind::PROGRESS {
            *written_bytes = 0;
        }
        *written_bytes += response.len() as u64;
        let last = response.iter().rev().take(8).rev();
        let record = Record {
            cookie: u64::from(connection) + 1,
            arrival_ns: self.now_ns - 4_000,
            first_read_ns: self.now_ns - 3_000,
            last_read_ns: self.now_ns - 3_000,
            read_bytes: request.len() as u64,
            first_write_ns: self.now_ns - 1_000,
            last_write_ns: self.now_ns,
            written_bytes: *written_bytes,
            tail: last.fold(0, |tail, byte| tail << 8 | u64::from(*byte)),
            seq: *seq,
            tgid: std::process::id(),
            request_len: u16::try_from(request.len()).expect("it fits a record"),
            response_len: u16::try_from(response.len()).expect("it fits a record"),
            local_port: PORT,
            peer_port: 40_000,
            kind,
            flags: flag::ARRIVAL_KNOWN | flag::ONE_ARRIVAL | side,
            mode,
            ..Record::NONE
        };
        self.bytes.extend(bytemuck::bytes_of(&record));
        self.bytes.extend(request);
        self.bytes.extend(response);
        self.ends.push(self.bytes.len());
    }
}

/// Processes all records; returns how many requests were counted, and the CPU time, seconds.
fn drain(tape: &Tape) -> Result<(u64, f64)> {
    let watch = Watch {
        target: Target::Port(PORT),
        model: None,
        version: None,
        server: Some("bench".into()),
    };
    let catalogue = Catalogue::new(Vec::new()).context("read the catalogue")?;
    let registry = Registry::new(vec![watch], Arc::new(catalogue), Some(std::process::id()));
    let metrics = Arc::new(Metrics::new("bench"));
    let mut pipeline = Pipeline::new(
        registry,
        ConnectionTable::new(true),
        metrics.clone(),
        None,
        0,
    );
    // As the agent runs it: with what page, `top` and verdicts need.
    pipeline.publish_to(Arc::new(Roster::default()), Arc::new(History::default()));
    let before_s = core_s();
    let mut start = 0;
    for (index, &end) in tape.ends.iter().enumerate() {
        pipeline.on_record(&tape.bytes[start..end]);
        start = end;
        if index % RECORDS_PER_TICK == 0 {
            pipeline.set_now(index as u64 * STEP_NS);
            pipeline.tick(|_, _| None);
        }
    }
    pipeline.finish();
    let cpu_s = core_s() - before_s;
    let text = metrics.encode(&Selection::all(), Format::Text);
    let totals = text
        .lines()
        .filter(|line| line.starts_with("inferprobe_requests_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    Ok((totals.sum(), cpu_s))
}

/// CPU time of this thread, seconds.
fn core_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A request and its response in one record.
fn kept_connections(tape: &mut Tape) {
    let request = post("/predictions/resnet-18", BODY);
    let head = format!(
        "HTTP/1.1 200 OK\r\nx-request-id: f043ec09-d650-4c73-8e29-cab71d5c951f\r\nPragma: no-cache\r\n\
         Cache-Control: no-cache; no-store, must-revalidate, private\r\nExpires: Thu, 01 Jan 1970 00:00:00 UTC\r\n\
         Content-Type: application/json\r\ncontent-length: {}\r\nconnection: keep-alive\r\n\r\n",
        BODY.len()
    );
    let response = [head.as_bytes(), BODY].concat();
    for index in 0..REQUESTS {
        tape.push(
            index % CONNECTIONS,
            mode::MESSAGES,
            kind::EXCHANGE,
            &request,
            &response,
        );
    }
    tape.requests = REQUESTS;
}

/// A record for the request, and one for each chunk.
fn chunked_responses(tape: &mut Tape) {
    let request = post(
        "/v1/chat/completions",
        br#"{"model": "tiny-7b", "messages": [{"role": "user", "content": "Say this is a test."}], "stream": true}"#,
    );
    let head = b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n\
        content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    let event = br#"data: {"id":"cmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":" a"}}]}"#;
    let chunk = [
        format!("{:x}\r\n", event.len() + 2).as_bytes(),
        event,
        b"\n\n\r\n",
    ]
    .concat();
    let requests = REQUESTS / CHUNKS;
    for index in 0..requests {
        let connection = index % CONNECTIONS;
        tape.push(connection, mode::MESSAGES, kind::EXCHANGE, &request, head);
        for _ in 0..CHUNKS {
            tape.push(connection, mode::MESSAGES, kind::PROGRESS, b"", &chunk);
        }
        tape.push(
            connection,
            mode::MESSAGES,
            kind::PROGRESS,
            b"",
            b"0\r\n\r\n",
        );
    }
    tape.requests = requests;
}

/// A record for each call and one for its response, on one stream after the other.
fn calls(tape: &mut Tape) {
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let settings = frame(4, 0, 0, &[]);
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    let message = [
        &[0, 0, 0, 0, 66, 0x0a, 4][..],
        b"tiny",
        &[0x2a, 58],
        &[7; 58],
    ]
    .concat();
    let reply = [&[0, 0, 0, 0, 32][..], &[7; 32]].concat();
    for connection in 0..CONNECTIONS {
        tape.push(connection, mode::STREAMS, kind::READ, &hello, b"");
        tape.push(connection, mode::STREAMS, kind::PROGRESS, b"", &settings);
    }
    for index in 0..REQUESTS {
        let stream = index / CONNECTIONS * 2 + 1;
        let request = [
            frame(
                1,
                4,
                stream,
                &[&[0x83][..], &field(":path", path), &field("te", "trailers")].concat(),
            ),
            frame(0, 1, stream, &message),
        ];
        let response = [
            frame(
                1,
                4,
                stream,
                &[&[0x88][..], &field("content-type", "application/grpc")].concat(),
            ),
            frame(0, 0, stream, &reply),
            frame(1, 5, stream, &field("grpc-status", "0")),
        ];
        let connection = index % CONNECTIONS;
        tape.push(
            connection,
            mode::STREAMS,
            kind::READ,
            &request.concat(),
            b"",
        );
        tape.push(
            connection,
            mode::STREAMS,
            kind::PROGRESS,
            b"",
            &response.concat(),
        );
    }
    tape.requests = REQUESTS;
}

fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: inference.example:8080\r\nUser-Agent: python-requests/2.32.3\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len())
        .expect("frames are short")
        .to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field that does not go into the table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).expect("fields are short"));
        field.extend(text.bytes());
    }
    field
}
