//! A stand-in for an HTTP server: answers as a function says, and remembers what it was asked.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// A server on a free port of 127.0.0.1 that serves until the test's process ends.
#[derive(Debug)]
pub struct StandIn {
    /// Where it listens.
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    /// Starts a server that answers each request line (method and target) with a status and a body.
    pub fn start(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away has no bearing on the next one.
                let _ = exchange(&stream, &answer, &log);
            }
        });
        Self {
            port: address.port(),
            asked,
        }
    }

    /// Every request so far, as method and target.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn exchange(
    mut stream: &TcpStream,
    answer: impl Fn(&str) -> (u16, String),
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = BufReader::new(stream).lines();
    let first = head.next().transpose()?.unwrap_or_default();
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    let asked = first.trim_end_matches(" HTTP/1.1").to_owned();
    let (status, body) = answer(&asked);
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(asked);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} \r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}
