//! Follows a WebSocket session: an HTTP/1 connection after the server agreed to the upgrade. It is one request, which ends with
//! the connection.
//!
//! Does not depend on: HTTP/1, what the messages say.

use crate::{
    exchange::{Request, Response, SessionMessages, reads::Reads, writes::Writes},
    protocol::websocket::MessageCount,
};

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// The request that asked for it, with the bytes that the server read since.
    pub request: Request,
    response: Response,
    received: MessageCount,
    sent: MessageCount,
}

impl Session {
    /// Begins after the server agreed to `request` with `response`.
    pub fn new(request: Request, response: Response) -> Self {
        Self {
            request,
            response,
            received: MessageCount::default(),
            sent: MessageCount::default(),
        }
    }

    /// Adds what the server read.
    pub fn read(&mut self, reads: &Reads<'_>) {
        self.request.bytes += reads.bytes;
        self.response.last_write_ns = self.response.last_write_ns.max(Some(reads.last_ns));
        self.received.feed(reads.visible, reads.bytes);
    }

    /// Adds what the server wrote, without the first `skipped` bytes.
    pub fn write(&mut self, writes: &Writes<'_>, skipped: u64) {
        let bytes = writes.bytes.saturating_sub(skipped);
        let visible = usize::try_from(skipped)
            .ok()
            .and_then(|skipped| writes.visible.get(skipped..));
        self.response.bytes += bytes;
        self.response.last_write_ns = self.response.last_write_ns.max(Some(writes.end_ns));
        self.sent.feed(visible.unwrap_or_default(), bytes);
    }

    /// Adds bytes that the server read, and wrote, unobserved. When that was is not known.
    pub fn skip(&mut self, read_bytes: u64, written_bytes: u64) {
        self.request.bytes += read_bytes;
        self.received.feed(&[], read_bytes);
        self.response.bytes += written_bytes;
        self.sent.feed(&[], written_bytes);
        self.response.last_write_ns = None;
    }

    /// Ends the session with its last transfer.
    pub fn end(self) -> (Request, Response) {
        let messages = SessionMessages {
            received: self.received.count(),
            sent: self.sent.count(),
        };
        let response = Response {
            session: Some(messages),
            // Nobody waits for the whole of a session.
            undrained_ns: None,
            ..self.response
        };
        (self.request, response)
    }
}
