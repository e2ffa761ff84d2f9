//! Joins one TLS connection with the plaintext of its server's library, turn by turn, and follows it as HTTP/1 from there on.
//!
//! What is read here is timed by `turns` as well, whose requests count if the join ends.
//! Does not depend on: how records are found, the handshake.

use crate::exchange::{
    Peer,
    event::{Event, Sink},
    tls::{
        client_record::ClientRecord,
        plaintext::{
            Plaintexts,
            content::{Content, Received, Unjoined},
        },
        turns::ServerPart,
    },
    writes::Writes,
};

/// Records of a request that are kept until its response begins.
const REQUEST_CAP: usize = 1024;
/// Records of the server with which a response may begin: session tickets may come before it.
const TRIES: u32 = 4;
/// Bytes of an alert.
const ALERT: u32 = 2;

/// The plaintext of one connection, as far as it is known.
#[derive(Debug, Default)]
pub struct Reading {
    /// `None`: no plaintext is read.
    plaintexts: Option<Plaintexts>,
    /// `None`: it is not known whose plaintext is this connection's.
    pub content: Option<Content>,
    /// The records of the present request.
    request: Vec<Received>,
    /// Whether its response has begun.
    responded: bool,
    tries: u32,
    /// The write in which the record began that is being written: its start, and whether it is an upper bound.
    begun: Option<(u64, bool)>,
}

/// What became of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It goes on, or there is none.
    Same,
    /// It begins with the record.
    Joined,
    /// It has ended. The request that `turns` knows was not reported, unless `reported`.
    Ended {
        /// Whether everything that was observed was reported.
        reported: bool,
    },
}

impl Reading {
    /// Starts without a join.
    pub fn new(plaintexts: Option<Plaintexts>) -> Self {
        Self {
            plaintexts,
            ..Self::default()
        }
    }

    /// Adds a record of data that the server read, with so many bytes of plaintext.
    pub fn read(&mut self, record: &ClientRecord, bytes: u32, out: &mut dyn Sink) -> Change {
        let Some(plaintexts) = &self.plaintexts else {
            return Change::Same;
        };
        let received = (record.clone(), bytes);
        if let Some(content) = &mut self.content {
            return match content.read(plaintexts, &received, out) {
                Ok(()) => Change::Same,
                Err(Unjoined) => self.end(),
            };
        }
        if bytes == ALERT {
            return Change::Same;
        }
        if std::mem::take(&mut self.responded) {
            self.request.clear();
            self.tries = 0;
        }
        if self.request.len() < REQUEST_CAP {
            self.request.push(received);
        } else {
            self.tries = TRIES;
        }
        Change::Same
    }

    /// Adds what a write contains of one record of data. `is_response`: a request was read before.
    pub fn write(
        &mut self,
        peer: Peer,
        writes: &Writes<'_>,
        part: &ServerPart,
        out: &mut dyn Sink,
    ) -> Change {
        let Some(plaintexts) = &self.plaintexts else {
            return Change::Same;
        };
        if part.begins {
            self.begun = Some((writes.start_ns, writes.start_bounded));
        }
        if !part.ends {
            return Change::Same;
        }
        let (start_ns, start_bounded) = self
            .begun
            .take()
            .unwrap_or((writes.start_ns, writes.start_bounded));
        let writes = Writes {
            start_ns,
            start_bounded,
            ..*writes
        };
        let mut change = Change::Same;
        if self.content.is_none() {
            if self.request.is_empty() || self.tries >= TRIES {
                return Change::Same;
            }
            self.tries += 1;
            self.content = Content::join(plaintexts, peer, &self.request, part.plaintext, out);
            if self.content.is_none() {
                return Change::Same;
            }
            self.request = Vec::new();
            change = Change::Joined;
        }
        if let Some(content) = &mut self.content
            && content
                .write(plaintexts, &writes, part.plaintext, out)
                .is_err()
        {
            return self.end();
        }
        change
    }

    /// Says whether a response to the present request has begun.
    pub fn note_response(&mut self, responded: bool) {
        self.responded |= responded;
    }

    /// Ends the join, and drops the present request.
    pub fn end(&mut self) -> Change {
        self.request.clear();
        self.begun = None;
        self.tries = TRIES;
        self.responded = true;
        let (Some(content), Some(plaintexts)) = (self.content.take(), &self.plaintexts) else {
            return Change::Same;
        };
        content.leave(plaintexts);
        Change::Ended {
            reported: content.http1.is_idle(),
        }
    }
}

/// Receives what another part of the connection reports.
pub struct Discard;

impl Sink for Discard {
    fn event(&mut self, _: Event) {}
}
