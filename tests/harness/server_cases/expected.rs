//! Defines what the agent must report of a request, and what its client knows of it.

use std::ops::Range;

use crate::server::stamps::Call;

/// How a request ends for its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a response: there is one row.
    Answered,
    /// Without: it counts as unfinished.
    Unanswered,
    /// The server may have begun a response that the client did not read: a row, or unfinished.
    Either,
    /// The server did not parse it as a request: no row, and unfinished at most.
    Unserved,
}

/// What is uncertain in a request, and so not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lenient {
    /// Nothing: every value and time is compared.
    No,
    /// The response came before the body: how much of it was read by then depends on the server.
    Early,
    /// The server refused it, or made of it what it liked: its status is the one that the client got.
    Refused,
    /// It shares its connection's bytes with others, or with a protocol that follows: sizes are not certain.
    Shared,
}

/// One request of a case, and what must come out of it.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Its field `x-case`: the case, and its number on the connection.
    pub case: String,
    /// Method.
    pub method: &'static str,
    /// Label `model`; empty where the request names none.
    pub model: String,
    /// `inference` or `admin`.
    pub purpose: &'static str,
    /// Status of the response.
    pub status: u16,
    /// The code under which it counts: a gRPC status has a corresponding HTTP code.
    pub code: u16,
    /// Position in the client's bytes on this connection.
    pub place: Range<usize>,
    /// How it ends.
    pub ending: Ending,
    /// What is not held against it.
    pub lenient: Lenient,
    /// Time from the first part of the response to its last, at least.
    pub stream_ns: u64,
    /// Head and body of the response; `None` if the client did not get it.
    pub response_bytes: Option<u64>,
    /// When the client had the whole response.
    pub received_ns: Option<u64>,
}

/// A send of the client: which of its bytes, and when.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Which bytes of the connection.
    pub place: Range<usize>,
    /// When.
    pub call: Call,
}

impl Expected {
    /// The sends of its first and of its last byte; `None` for what was not sent.
    pub fn sends(&self, sends: &[Sent]) -> (Option<Call>, Option<Call>) {
        let of = |at: usize| {
            let sent = sends.iter().find(|sent| sent.place.contains(&at));
            sent.map(|sent| sent.call)
        };
        (of(self.place.start), of(self.place.end - 1))
    }
}
