//! Compares the times of streamed responses with the clock of the client that reads them.

use std::thread;

use inferprobe_tests::{
    agent::{
        Agent,
        request_log::{Logged, LoggedStream},
    },
    client::{Connection, request},
    require_kernel::require_kernel,
    server::Server,
    stream::{Streamed, stream},
};

const CHUNKS: u32 = 200;
const MS: u64 = 1_000_000;
/// Largest error of the time to the first chunk, and of the mean gap.
const LIMIT_NS: u64 = MS;
/// Rounds, of which one must be within the limits: a client that loses its CPU stamps its chunks late.
const ROUNDS: u32 = 3;

/// Body bytes of a chunk: together far more than any record carries.
const PIECE_BYTES: usize = 40;

/// Requests `count` concurrent streams, each on a new connection. Returns the times of their clients, and the agent's
/// rows.
fn ask(server: &Server, agent: &Agent, target: &str, count: usize) -> Vec<(Streamed, Logged)> {
    let before = agent.log().len();
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let (port, bytes) = (server.port(), request("POST", target, &[], b"{}"));
            thread::spawn(move || stream(port, &bytes, PIECE_BYTES).unwrap())
        })
        .collect();
    let seen: Vec<Streamed> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let rows = agent.rows(before + count, |_| true);
    seen.into_iter()
        .map(|streamed| {
            let port = Some(streamed.local_port);
            let row = rows[before..].iter().find(|row| row.peer_port == port);
            (streamed, row.unwrap().clone())
        })
        .collect()
}

fn logged(row: &Logged) -> &LoggedStream {
    row.stream
        .as_ref()
        .unwrap_or_else(|| panic!("no stream: {row:?}"))
}

/// Asserts that the agent's counts are right, and returns whether its times are within the limits of the client's.
fn holds(pairs: &[(Streamed, Logged)]) -> bool {
    let errors = pairs.iter().map(|(seen, row)| {
        let stream = logged(row);
        assert_eq!(seen.pieces_ns.len(), CHUNKS as usize);
        assert_eq!(stream.chunks, Some(CHUNKS), "{row:?}");
        let first_chunk_ns = stream.first_chunk_ns.unwrap();
        let mean_gap_ns = stream.mean_gap_ns.unwrap();
        (
            first_chunk_ns.abs_diff(seen.first_piece_ns().unwrap()),
            mean_gap_ns.abs_diff(seen.mean_gap_ns().unwrap()),
        )
    });
    let worst = errors.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1))).unwrap();
    println!("largest error of first chunk and mean gap, ns: {worst:?}");
    worst.0 <= LIMIT_NS && worst.1 <= LIMIT_NS
}

/// Streams `count` concurrent responses in up to [`ROUNDS`] rounds, until one is within the limits.
fn hold(target: &str, count: usize) {
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let mut asked = 0;
    let held = (1..=ROUNDS).any(|round| {
        println!("round {round} of {target}");
        asked += count;
        holds(&ask(&server, &agent, target, count))
    });
    assert!(held, "an error is over {LIMIT_NS} ns in each round");

    let metrics = agent.metrics();
    let asked = asked as f64;
    for (name, expected) in [
        ("inferprobe_stream_chunks_count", asked),
        ("inferprobe_stream_chunks_sum", asked * f64::from(CHUNKS)),
        (
            "inferprobe_stream_chunk_gap_seconds_count",
            asked * f64::from(CHUNKS - 1),
        ),
        ("inferprobe_stream_time_to_first_chunk_seconds_count", asked),
        ("inferprobe_stream_unknown_total", 0.0),
    ] {
        assert_eq!(metrics.sum(name, &[]), expected, "{name}");
    }
}

#[test]
fn events_in_chunks_are_timed() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let target = format!("/v1/completions?events=1&chunks={CHUNKS}&body={PIECE_BYTES}&gap_ms=3");
    hold(&target, 1);
}

#[test]
fn chunks_without_events_are_timed() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let target = format!("/api/generate?chunks={CHUNKS}&body={PIECE_BYTES}&gap_ms=1");
    hold(&target, 1);
}

#[test]
fn events_until_close_are_timed() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let target = format!(
        "/generate_stream?http10=1&events=1&until_close=1&pieces={CHUNKS}&body={PIECE_BYTES}&gap_ms=2"
    );
    hold(&target, 1);
}

#[test]
fn concurrent_streams_are_each_timed() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let target = format!("/v1/completions?events=1&chunks={CHUNKS}&body={PIECE_BYTES}&gap_ms=5");
    hold(&target, 8);
}

#[test]
fn head_before_the_first_chunk_is_no_chunk() {
    const WAIT_NS: u64 = 50 * MS;
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let target = "/v1/chat/completions?events=1&chunks=3&body=40&gap_ms=2&first_gap_ms=50";
    let [(seen, row)] = &ask(&server, &agent, target, 1)[..] else {
        panic!("one stream was asked for")
    };
    let stream = logged(row);
    assert_eq!(stream.chunks, Some(3));
    let (first_byte_ns, first_chunk_ns) = (
        stream.first_byte_ns.unwrap(),
        stream.first_chunk_ns.unwrap(),
    );
    assert!(first_chunk_ns - first_byte_ns >= WAIT_NS, "{row:?}");
    assert!(first_byte_ns < seen.first_byte_ns - seen.sent_ns + LIMIT_NS);

    let metrics = agent.metrics();
    let labels = [("gen_ai_operation_name", "chat"), ("error_type", "")];
    for (name, labels, least_s) in [
        (
            "gen_ai_server_time_to_first_token_seconds_sum",
            &labels[..1],
            0.05,
        ),
        (
            "gen_ai_server_time_per_output_token_seconds_sum",
            &labels[..1],
            0.002,
        ),
        (
            "gen_ai_server_request_duration_seconds_sum",
            &labels[..],
            0.056,
        ),
    ] {
        let sum = metrics.sum(name, labels);
        assert!(sum >= least_s, "{name}: {sum}");
    }
}

#[test]
fn pieces_are_counted_however_they_are_written() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    for what in [
        // A chunk in three writes, of which the last contains only its line end.
        "chunks=200&write_size=22",
        "chunks=200",
        "chunks=200&trailers=1",
        "until_close=1&pieces=200",
        "until_close=1&pieces=200&http10=1&events=1",
    ] {
        let target = format!("/generate?{what}&body={PIECE_BYTES}");
        for (seen, row) in ask(&server, &agent, &target, 4) {
            assert_eq!(seen.pieces_ns.len(), CHUNKS as usize, "{what}");
            assert_eq!(logged(&row).chunks, Some(CHUNKS), "{what}: {row:?}");
            assert!(row.last_write_ns.is_some(), "{what}: {row:?}");
        }
    }
    assert_eq!(
        agent.metrics().sum("inferprobe_records_lost_total", &[]),
        0.0
    );
}

#[test]
fn response_of_known_length_is_no_stream() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let mut client = Connection::open(&server.place).unwrap();
    let bytes = request(
        "POST",
        "/v1/completions?split=1&gap_ms=2&body=100",
        &[],
        b"{}",
    );
    client.exchange(&bytes).unwrap();
    let rows = agent.rows(1, |_| true);
    assert!(rows[0].stream.is_none(), "{rows:?}");
    let metrics = agent.metrics();
    for (name, expected) in [
        ("gen_ai_server_request_duration_seconds_count", 1.0),
        ("gen_ai_server_time_to_first_token_seconds_count", 0.0),
        ("inferprobe_stream_chunks_count", 0.0),
    ] {
        assert_eq!(metrics.sum(name, &[]), expected, "{name}");
    }
}
