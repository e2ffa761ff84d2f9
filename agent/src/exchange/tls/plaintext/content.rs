//! Reads a connection whose plaintext is known: its requests and responses are those of HTTP/1, and its moments the socket's.
//!
//! Does not depend on: how the plaintext was found, how TLS is followed without it.

use inferprobe_ebpf::{abi::Record, segment::COPIED_DEFAULT};

use crate::{
    exchange::{
        Peer,
        event::{Event, Sink, TlsEvent},
        http1::Http1Connection,
        reads::{Arrivals, Reads},
        tls::{
            client_record::ClientRecord,
            plaintext::{
                Plaintexts, StreamId,
                stream::{Fit, Taken},
            },
        },
        writes::Writes,
    },
    protocol::http1,
};

/// The content of one connection.
#[derive(Debug)]
pub struct Content {
    /// The library's connection.
    id: StreamId,
    cookie: u64,
    /// The connection as it would be without TLS.
    pub http1: Http1Connection,
    /// The last bytes written, as [`Writes::tail`].
    tail: u64,
}

/// A record did not fit, so that the connection is not read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unjoined;

/// A record of the client, and bytes of plaintext in it.
pub type Received = (ClientRecord, u32);

impl Content {
    /// Begins with a request, whose records the server of `peer` read, if a library is known to have read it, and to have
    /// begun a response in a record of `written` bytes. Nothing is reported before that, and the record itself follows.
    pub fn join(
        plaintexts: &Plaintexts,
        peer: Peer,
        request: &[Received],
        written: u32,
        out: &mut dyn Sink,
    ) -> Option<Self> {
        let lengths: Vec<u32> = request.iter().map(|(_, bytes)| *bytes).collect();
        let tid = request.last().and_then(|(record, _)| record.reader_tid);
        let id = plaintexts.join(peer.cookie, peer.tgid, tid, &lengths, written)?;
        let mut content = Self {
            id,
            cookie: peer.cookie,
            http1: Http1Connection::new(&Record::NONE, peer, COPIED_DEFAULT),
            tail: 0,
        };
        let mut taken = Vec::new();
        for (_, bytes) in request {
            match plaintexts.take_read(id, peer.cookie, *bytes) {
                Fit::Next(part) => taken.push(part),
                _ => {
                    plaintexts.leave(id, peer.cookie);
                    return None;
                }
            }
        }
        let begins = taken
            .first()
            .is_some_and(|first| http1::parse_cut_request(&first.visible).is_some());
        if !begins {
            // Another protocol, or a request that was not copied.
            plaintexts.leave(id, peer.cookie);
            return None;
        }
        for ((record, _), part) in request.iter().zip(&taken) {
            content.feed_read(record, part, out);
        }
        Some(content)
    }

    /// Processes a record of data that the server read, with so many bytes of plaintext.
    ///
    /// # Errors
    /// If the library read something else.
    pub fn read(
        &mut self,
        plaintexts: &Plaintexts,
        (record, bytes): &Received,
        out: &mut dyn Sink,
    ) -> Result<(), Unjoined> {
        match plaintexts.take_read(self.id, self.cookie, *bytes) {
            // Without its first bytes, a request is only timed.
            Fit::Next(taken) if taken.visible.is_empty() && self.http1.is_idle() => {
                return Err(Unjoined);
            }
            Fit::Next(taken) => self.feed_read(record, &taken, out),
            Fit::Control => {}
            Fit::Other => return Err(Unjoined),
        }
        Ok(())
    }

    fn feed_read(&mut self, record: &ClientRecord, taken: &Taken, out: &mut dyn Sink) {
        let reads = Reads {
            arrivals: Arrivals::of_ends(record.arrival_ns, record.last_arrival_ns, taken.bytes),
            first_ns: record.first_read_ns,
            last_ns: record.last_read_ns,
            reader_tid: record.reader_tid,
            bytes: taken.bytes,
            visible: &taken.visible,
            body_dropped: (taken.visible.len() as u64) < taken.bytes,
        };
        self.http1.records.latest_ns = record.last_read_ns;
        self.http1.read(&reads, &mut ReadSink(out));
    }

    /// Processes a record of data that the server wrote, with so many bytes of plaintext. `writes` has its moments.
    ///
    /// # Errors
    /// If the library wrote something else.
    pub fn write(
        &mut self,
        plaintexts: &Plaintexts,
        writes: &Writes<'_>,
        bytes: u32,
        out: &mut dyn Sink,
    ) -> Result<(), Unjoined> {
        let taken = match plaintexts.take_write(self.id, self.cookie, bytes) {
            // The same goes for a response.
            Fit::Next(taken) if taken.visible.is_empty() && !self.http1.is_responding() => {
                return Err(Unjoined);
            }
            Fit::Next(taken) => taken,
            Fit::Control => return Ok(()),
            Fit::Other => return Err(Unjoined),
        };
        self.tail = match taken.visible.len() as u64 == taken.bytes {
            true => shifted(self.tail, &taken.visible),
            false => 0,
        };
        let writes = Writes {
            bytes: taken.bytes,
            visible: &taken.visible,
            tail: self.tail,
            ..*writes
        };
        self.http1.records.latest_ns = writes.end_ns;
        self.http1.write(&writes, &mut ReadSink(out));
        Ok(())
    }

    /// Ends the join.
    pub fn leave(&self, plaintexts: &Plaintexts) {
        plaintexts.leave(self.id, self.cookie);
    }
}

/// Shifts the last bytes of `visible` into `tail`.
fn shifted(tail: u64, visible: &[u8]) -> u64 {
    let last = &visible[visible.len().saturating_sub(8)..];
    last.iter()
        .fold(tail, |tail, &byte| tail << 8 | u64::from(byte))
}

/// Says of each finished request that it was read.
pub struct ReadSink<'a>(pub &'a mut dyn Sink);

impl Sink for ReadSink<'_> {
    fn event(&mut self, event: Event) {
        if let Event::Finished(exchange) = &event {
            self.0.event(Event::Tls(exchange.peer, TlsEvent::Read));
        }
        self.0.event(event);
    }
}
