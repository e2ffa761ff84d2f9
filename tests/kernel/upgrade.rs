//! Covers HTTP/1.1 connections that are upgraded to HTTP/2 (RFC 7540, section 3.2), or to another protocol.

use std::{
    io::{IoSlice, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use inferprobe_tests::{
    agent::{Agent, free_port, request_log::Logged},
    clock::{monotonic_ns, wait_for},
    grpc::python::installed,
    process::Owned,
    require_kernel::require_kernel,
    server::stamps::Call,
};

const UPGRADE: &[u8] =
    b"POST /predictions/first HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n\
    Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
const AGREED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`
const OK: &[u8] = &[0x88];

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[0, 0, len, kind, flags, 0, 0, 0, stream], payload].concat()
}

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])
}

/// Returns what a client sends once the server has agreed.
fn hello() -> Vec<u8> {
    [PREFACE, &settings()].concat()
}

/// Returns a request on stream 3.
fn next_request() -> Vec<u8> {
    let path = b"/predictions/next";
    let len = u8::try_from(path.len()).unwrap();
    // POST, http, the path, and the authority `x`.
    let block = [&[0x83, 0x86, 0x44, len], &path[..], b"\x41\x01x"].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, 3, &block)
}

fn answer(stream: u8) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, OK);
    [head, frame(DATA, END_STREAM, stream, b"done")].concat()
}

/// How the server's first bytes are cut into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Agreement and settings in one write, from one buffer.
    Together,
    /// The same from two buffers.
    Scattered,
    /// In two writes.
    Apart,
    /// Settings after the client's were read.
    AfterHello,
    /// Agreement, settings and response in one write.
    AtOnce,
}

const WAYS: [Way; 5] = [
    Way::Together,
    Way::Scattered,
    Way::Apart,
    Way::AfterHello,
    Way::AtOnce,
];

fn stamped<T>(call: impl FnOnce() -> T) -> (T, Call) {
    let call_ns = monotonic_ns();
    let value = call();
    let return_ns = monotonic_ns();
    (value, Call { call_ns, return_ns })
}

fn read(stream: &mut TcpStream, bytes: usize) -> Call {
    let mut whole = vec![0; bytes];
    stamped(|| stream.read_exact(&mut whole).unwrap()).1
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> Call {
    stamped(|| stream.write_all(bytes).unwrap()).1
}

/// Serves both requests of a connection. Returns the read of the first, and the write of its response.
fn serve(stream: &mut TcpStream, way: Way) -> (Call, Call) {
    let asked = read(stream, UPGRADE.len());
    let mut answered = None;
    match way {
        Way::Together => drop(write(stream, &[AGREED, &settings()].concat())),
        Way::Scattered => {
            let settings = settings();
            let parts = [IoSlice::new(AGREED), IoSlice::new(&settings)];
            let written = stream.write_vectored(&parts).unwrap();
            assert_eq!(written, AGREED.len() + settings.len());
        }
        Way::Apart => {
            write(stream, AGREED);
            write(stream, &settings());
        }
        Way::AfterHello => drop(write(stream, AGREED)),
        Way::AtOnce => {
            let all = [AGREED, &settings(), &answer(1)].concat();
            answered = Some(write(stream, &all));
        }
    }
    read(stream, hello().len());
    if way == Way::AfterHello {
        write(stream, &settings());
    }
    let answered = answered.unwrap_or_else(|| write(stream, &answer(1)));
    read(stream, next_request().len());
    write(stream, &answer(3));
    (asked, answered)
}

/// Plays the client of [`serve`].
fn ask(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(UPGRADE).unwrap();
    read(&mut stream, AGREED.len());
    stream.write_all(&hello()).unwrap();
    read(&mut stream, settings().len() + answer(1).len());
    stream.write_all(&next_request()).unwrap();
    read(&mut stream, answer(3).len());
    stream
}

fn holds(call: Call, at_ns: u64) -> bool {
    (call.call_ns..=call.return_ns).contains(&at_ns)
}

#[test]
fn upgraded_request_is_counted_once_with_the_times_of_its_response() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    for way in WAYS {
        println!("{way:?}");
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let agent = Agent::start(&["--watch-port", &port.to_string()]);
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let stamps = serve(&mut stream, way);
            (stamps, stream)
        });
        let client = ask(port);
        let ((asked, answered), served) = server.join().unwrap();
        let rows = agent.rows(2, |row| row.local_port == Some(port));
        drop((client, served));
        let models: Vec<_> = rows
            .iter()
            .map(|row| (row.seq, row.model.as_str(), row.status))
            .collect();
        assert_eq!(models, [(0, "first", 200), (1, "next", 200)]);
        assert!(holds(asked, rows[0].last_read_ns), "{asked:?} {rows:?}");
        let written_ns = rows[0].first_write_ns.unwrap();
        assert!(holds(answered, written_ns), "{answered:?} {rows:?}");
        let metrics = agent.metrics();
        assert_eq!(metrics.sum("inferprobe_records_lost_total", &[]), 0.0);
        assert_eq!(metrics.sum("inferprobe_requests_total", &[]), 2.0);
        assert_eq!(metrics.sum("inferprobe_coverage_ratio", &[]), 1.0);
        agent.stop();
    }
}

#[test]
fn websocket_is_one_session() {
    const ASKED: &[u8] =
        b"GET /predictions/chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const AGREED: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const SAID: &[u8] = b"\x81\x05hello";
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read(&mut stream, ASKED.len());
        write(&mut stream, AGREED);
        write(&mut stream, SAID);
        read(&mut stream, SAID.len());
        write(&mut stream, SAID);
    });
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(ASKED).unwrap();
    read(&mut client, AGREED.len() + SAID.len());
    client.write_all(SAID).unwrap();
    read(&mut client, SAID.len());
    server.join().unwrap();
    drop(client);
    let rows = agent.rows(1, |row| row.local_port == Some(port));
    let summary = |row: &Logged| (row.model.clone(), row.status);
    let summaries: Vec<_> = rows.iter().map(summary).collect();
    assert_eq!(summaries, [("chat".to_owned(), 101)]);
    // One session, which ends with its last message.
    let session = rows[0].session.as_ref().unwrap();
    assert_eq!((session.received, session.sent), (Some(1), Some(2)));
    let said = SAID.len() as u64;
    assert_eq!(rows[0].request_bytes, ASKED.len() as u64 + said);
    assert_eq!(rows[0].response_bytes, AGREED.len() as u64 + 2 * said);
    let metrics = agent.metrics();
    for (direction, expected) in [("received", 1.0), ("sent", 2.0)] {
        let labels = [("direction", direction)];
        let counted = metrics.sum("inferprobe_session_messages_total", &labels);
        assert_eq!(counted, expected);
    }
    let lost = agent.metrics().sum("inferprobe_records_lost_total", &[]);
    assert_eq!(lost, 0.0);
    agent.stop();
}

/// An ASGI application that responds to any request after 20 ms.
const APP: &str = r#"
import asyncio, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await asyncio.sleep(0.02)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})

config = Config()
config.bind = ["127.0.0.1:" + sys.argv[1]]
asyncio.run(serve(app, config))
"#;

#[test]
fn upgraded_request_to_hypercorn_is_measured() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let Some(bin) = installed() else { return };
    let port = free_port();
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    let child = Command::new(bin.join("python"))
        .args(["-c", APP, &port.to_string()])
        .stderr(Stdio::null())
        .spawn();
    let _server = Owned(child.unwrap());
    let mut client = wait_for("hypercorn", Duration::from_secs(20), || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let limit = Some(Duration::from_secs(10));
    client.set_read_timeout(limit).unwrap();
    client.write_all(UPGRADE).unwrap();
    until(&mut client, b"\r\n\r\n");
    client.write_all(&hello()).unwrap();
    until(&mut client, b"done");
    client.write_all(&next_request()).unwrap();
    until(&mut client, b"done");
    let rows = agent.rows(2, |row| row.local_port == Some(port));
    let summaries: Vec<_> = rows
        .iter()
        .map(|row| (row.seq, row.model.as_str(), row.status))
        .collect();
    assert_eq!(summaries, [(0, "first", 200), (1, "next", 200)]);
    for row in &rows {
        let handler_ns = row.handler_ns().unwrap();
        assert!(handler_ns >= 20_000_000, "{row:?}");
    }
    let lost = agent.metrics().sum("inferprobe_records_lost_total", &[]);
    assert_eq!(lost, 0.0);
    agent.stop();
}

/// Reads until the bytes so far contain `end`.
fn until(stream: &mut TcpStream, end: &[u8]) {
    let mut seen = Vec::new();
    while !seen.windows(end.len()).any(|part| part == end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
}
