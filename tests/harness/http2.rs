//! A small HTTP/2 client: it sends requests as frames, with header blocks of only literals, and reads the frame types
//! of responses.
//!
//! It does not decode the header blocks of responses: the servers of these tests record their status themselves.

use std::{collections::HashMap, io};

use crate::{client::Connection, clock::monotonic_ns, server::stamps::Call};

/// Bytes that a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Returns the bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame of a test is short");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns the frames with which a client opens a connection: empty settings.
pub fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()
}

/// Returns the frames of a request; one without a body ends with its header block.
pub fn request(stream: u32, fields: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal without indexing (RFC 7541, 6.2.2), its strings not compressed.
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "one byte holds the length");
            block.push(u8::try_from(text.len()).expect("checked"));
            block.extend(text.as_bytes());
        }
    }
    let ends = if body.is_none() { END_STREAM } else { 0 };
    let mut bytes = frame(HEADERS, END_HEADERS | ends, stream, &block);
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, stream, body));
    }
    bytes
}

/// Returns a frame that resets a stream.
pub fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// Returns a gRPC message.
pub fn message(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a message of a test is short");
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// A client's end of one connection.
pub struct Client {
    connection: Connection,
    /// When each stream's response was complete.
    ended_ns: HashMap<u32, u64>,
}

impl Client {
    /// Uses a connection on which the preface was sent, or will be with the first request.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            ended_ns: HashMap::new(),
        }
    }

    /// Sends bytes in one call.
    pub fn send(&mut self, bytes: &[u8]) -> Call {
        self.connection.send(bytes).expect("the server reads")
    }

    /// Reads until the response on `stream` has ended, answers other frames as HTTP/2 requires, and returns when it
    /// ended.
    pub fn wait_end(&mut self, stream: u32) -> io::Result<u64> {
        loop {
            if let Some(ended_ns) = self.ended_ns.get(&stream) {
                return Ok(*ended_ns);
            }
            self.read_frame()?;
        }
    }

    fn read_frame(&mut self) -> io::Result<()> {
        let head = self.connection.receive_bytes(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self
            .connection
            .receive_bytes(usize::try_from(length).expect("24 bits"))?;
        match kind {
            SETTINGS | PING if flags & ACK == 0 => {
                self.send(&frame(
                    kind,
                    ACK,
                    0,
                    if kind == PING { &payload } else { b"" },
                ));
            }
            DATA if !payload.is_empty() => {
                let taken = length.to_be_bytes();
                let both = [
                    frame(WINDOW_UPDATE, 0, 0, &taken),
                    frame(WINDOW_UPDATE, 0, stream, &taken),
                ];
                // If the stream has ended, it needs no window.
                let shown = if flags & END_STREAM == 0 { 2 } else { 1 };
                self.send(&both[..shown].concat());
            }
            _ => {}
        }
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if ends || kind == RST_STREAM {
            self.ended_ns.insert(stream, monotonic_ns());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_block_of_literals_and_its_body() {
        assert_eq!(
            request(3, &[("a", "bc")], Some(b"x")),
            b"\0\0\x06\x01\x04\0\0\0\x03\0\x01a\x02bc\0\0\x01\0\x01\0\0\0\x03x"
        );
        assert_eq!(request(1, &[], None), b"\0\0\0\x01\x05\0\0\0\x01");
    }
}
