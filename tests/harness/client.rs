//! A raw HTTP/1.1 client: it sends bytes unchanged, reads responses to their end, and stamps every send.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

use crate::{
    clock::{monotonic_ns, wait_for},
    http::{Head, chunked_content, chunked_len, head_len},
    server::{Place, stamps::Call},
};

/// Longest wait for bytes of a response.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the bytes of a request, with a Content-Length unless `fields` frames the body or there is none.
pub fn request(method: &str, target: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    let framed = fields
        .iter()
        .any(|field| field.starts_with("Transfer-Encoding") || field.starts_with("Content-Length"));
    if !framed && (!body.is_empty() || method == "POST") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Head as received.
    pub head: Head,
    /// Content, without chunk framing.
    pub body: Vec<u8>,
    /// Head and body as received, chunk framing included.
    pub bytes: u64,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A client's end of one connection.
pub struct Connection {
    stream: Stream,
    input: Vec<u8>,
    /// Buffer of a read.
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a server of these tests.
    pub fn open(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp(port) => Self::open_tcp(*port),
            Place::Unix(path) => Self::open_unix(path),
        }
    }

    /// Connects to a port of 127.0.0.1.
    pub fn open_tcp(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::new(Stream::Tcp(stream)))
    }

    /// Connects to a unix socket.
    pub fn open_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::new(Stream::Unix(stream)))
    }

    fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            buffer: vec![0; 65536],
        }
    }

    /// Returns this end's port, which is the server's peer port; `None` on a unix socket.
    pub fn local_port(&self) -> Option<u16> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok().map(|address| address.port()),
            Stream::Unix(_) => None,
        }
    }

    /// Sends bytes unchanged, in one write unless the kernel accepts fewer.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<Call> {
        let call_ns = monotonic_ns();
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes)?,
            Stream::Unix(stream) => stream.write_all(bytes)?,
        }
        let return_ns = monotonic_ns();
        Ok(Call { call_ns, return_ns })
    }

    /// Reads the response to a request; interim responses are skipped. `head_only`: the request was HEAD.
    pub fn receive(&mut self, head_only: bool) -> io::Result<Response> {
        loop {
            let answer = self.receive_one(head_only)?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    /// Reads one response, interim or not.
    pub fn receive_one(&mut self, head_only: bool) -> io::Result<Response> {
        let head_bytes = self.until(head_len)?;
        let head = Head::parse(&self.input[..head_bytes]);
        self.input.drain(..head_bytes);
        let status = head
            .word(1)
            .parse()
            .map_err(|_| io::Error::other(format!("not a status line: {:?}", head.start)))?;
        let (body, sent) = if head_only || status < 200 || status == 204 || status == 304 {
            (Vec::new(), 0)
        } else if head.chunked() {
            let (sent, _) = self.until(chunked_len)?;
            let content = chunked_content(&self.input[..sent]).unwrap_or_default();
            self.input.drain(..sent);
            (content, sent)
        } else if let Some(length) = head.content_length() {
            self.until(|bytes| (bytes.len() >= length).then_some(()))?;
            (self.input.drain(..length).collect(), length)
        } else {
            while self.fill()? {}
            let body = std::mem::take(&mut self.input);
            let sent = body.len();
            (body, sent)
        };
        let bytes = (head_bytes + sent) as u64;
        Ok(Response {
            status,
            head,
            body,
            bytes,
        })
    }

    /// Reads `count` bytes of whatever protocol, at most `most` at once, each time after `pause`.
    pub fn receive_slowly(&mut self, count: usize, most: usize, pause: Duration) -> io::Result<()> {
        self.buffer.resize(most, 0);
        while self.input.len() < count {
            thread::sleep(pause);
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Sends a request in one write and reads its response.
    pub fn exchange(&mut self, bytes: &[u8]) -> io::Result<(Call, Response)> {
        let call = self.send(bytes)?;
        let answer = self.receive(bytes.starts_with(b"HEAD "))?;
        Ok((call, answer))
    }

    /// Ends this direction; responses can still be read.
    pub fn finish_sending(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Ends the connection at once and discards what is in flight, as the kernel does for a client that crashed.
    pub fn reset(self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => Ok(set_socket_linger(stream, Some(Duration::ZERO))?),
            Stream::Unix(_) => Ok(()),
        }
    }

    /// Reads exactly `count` bytes, of whatever protocol.
    pub fn receive_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.until(|bytes| (bytes.len() >= count).then_some(()))?;
        Ok(self.input.drain(..count).collect())
    }

    /// Returns whether the server ends the connection without a further byte.
    pub fn ends(&mut self) -> bool {
        self.input.is_empty() && !matches!(self.fill(), Ok(true))
    }

    fn until<T>(&mut self, done: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        loop {
            if let Some(found) = done(&self.input) {
                return Ok(found);
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fill(&mut self) -> io::Result<bool> {
        let count = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut self.buffer),
            Stream::Unix(stream) => stream.read(&mut self.buffer),
        }?;
        self.input.extend_from_slice(&self.buffer[..count]);
        Ok(count > 0)
    }
}

/// Sends one GET to a local HTTP endpoint on a new connection, and returns status and body.
pub fn get(port: u16, target: &str) -> io::Result<(u16, String)> {
    let mut connection = Connection::open_tcp(port)?;
    let bytes = request("GET", target, &["Connection: close"], b"");
    let (_, answer) = connection.exchange(&bytes)?;
    let body = String::from_utf8(answer.body).map_err(io::Error::other)?;
    Ok((answer.status, body))
}

/// Waits until `what` listens on a port of 127.0.0.1.
///
/// # Panics
/// If it does not within `limit`.
pub fn await_listener(what: &str, port: u16, limit: Duration) {
    wait_for(what, limit, || Connection::open_tcp(port).ok());
}

/// Sends one POST of JSON to a local HTTP endpoint on a new connection, which must succeed.
///
/// # Panics
/// If the status is another than 200, or the connection fails.
pub fn post_json(port: u16, target: &str, body: &str) {
    let fields = ["Content-Type: application/json"];
    let bytes = request("POST", target, &fields, body.as_bytes());
    let mut connection = Connection::open_tcp(port).expect("the endpoint takes connections");
    let (_, response) = connection.exchange(&bytes).expect("it responds");
    let text = String::from_utf8_lossy(&response.body);
    assert_eq!(response.status, 200, "{target}: {text}");
}
