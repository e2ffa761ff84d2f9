//! A mock HTTP server: responds as a function says, and remembers its requests.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// A server on a free port of 127.0.0.1 that serves until the test's process ends.
#[derive(Debug)]
pub struct MockServer {
    /// Where it listens.
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl MockServer {
    /// Starts a server. `respond` returns status and body for each request line (method and target).
    pub fn start(respond: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that disconnects does not affect the next one.
                let _ = exchange(&stream, &respond, &log);
            }
        });
        Self {
            port: address.port(),
            requests,
        }
    }

    /// Returns every request so far, as method and target.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn exchange(
    mut stream: &TcpStream,
    respond: impl Fn(&str) -> (u16, String),
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = BufReader::new(stream).lines();
    let first = head.next().transpose()?.unwrap_or_default();
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    let request = first.trim_end_matches(" HTTP/1.1").to_owned();
    let (status, body) = respond(&request);
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(request);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} \r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}
