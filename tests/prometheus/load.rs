//! Requests that move every family that dashboards and rules use.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use inferprobe_tests::{
    client::{Connection, request},
    http::head_len,
    server::Server,
    torchserve::{Ports, traffic::Client},
};

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const WORD: &str = r#"{"choices":[{"index":0,"delta":{"content":"word"}}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4}}"#;

/// Serves chats on a port of its own until the test ends: streams of four tokens, of which only every second one states
/// their number.
pub(crate) fn serve_chats() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for (at, socket) in listener.incoming().enumerate() {
            // A client that leaves in the middle is no fault of this server.
            let _ = chat(socket.unwrap(), at % 2 == 0);
        }
    });
    port
}

fn chat(mut socket: TcpStream, states_usage: bool) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut input, mut block) = (Vec::new(), [0; 4096]);
    while head_len(&input).is_none_or(|len| input.len() < len + 2) {
        let len = socket.read(&mut block)?;
        if len == 0 {
            return Ok(());
        }
        input.extend_from_slice(&block[..len]);
    }
    socket.write_all(CHUNKED.as_bytes())?;
    let usage = if states_usage { USAGE } else { "[DONE]" };
    for data in [WORD, WORD, WORD, WORD, usage] {
        thread::sleep(Duration::from_millis(2));
        let event = format!("data: {data}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        socket.write_all(chunk.as_bytes())?;
    }
    socket.write_all(b"0\r\n\r\n")
}

/// Sends one round of requests: to a TorchServe, to the reference server, and to the server of chats.
pub(crate) fn round(torchserve: Ports, server: &Server, chats: u16, round: usize) {
    let mut client = Client::new(torchserve.inference);
    client.predict("tiny", 1);
    client.status("POST", "/predictions/tiny", r#"{"set_code": 503}"#);
    client.status("POST", "/predictions/unknown", "{}");

    let mut connection = Connection::open(&server.place).unwrap();
    let mut ask = |target: &str| {
        let bytes = request("POST", target, &[], b"{}");
        connection.exchange(&bytes).unwrap();
    };
    for _ in 0..20 {
        ask("/predictions/m?sleep_us=300");
    }
    ask("/predictions/m?sleep_ms=20");
    ask("/predictions/m?status=503");
    // More models than the agent has labels for.
    for at in 0..20 {
        ask(&format!("/predictions/model-{round}-{at}?status=404"));
    }

    // A client that leaves, one whose response begins before its request has ended, and bytes that are no request.
    let mut leaves = Connection::open(&server.place).unwrap();
    leaves
        .send(&request("POST", "/predictions/m?sleep_ms=50", &[], b"{}"))
        .unwrap();
    leaves.reset().unwrap();
    let mut early = Connection::open(&server.place).unwrap();
    let target = "/predictions/m?status=413&early=1&close=1";
    let _ = early.exchange(&request("POST", target, &[], &[b'x'; 300_000]));
    let mut garbage = Connection::open(&server.place).unwrap();
    garbage
        .send(b"\x16\x03\x01 no request at all\r\n\r\n")
        .unwrap();

    for _ in 0..2 {
        let bytes = request("POST", "/v1/chat/completions", &[], b"{}");
        let mut client = Connection::open_tcp(chats).unwrap();
        client.exchange(&bytes).unwrap();
    }
}
