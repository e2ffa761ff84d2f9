//! Names what the records of a connection result in: finished exchanges, unfinished requests, losses.
//!
//! Every kind of connection pushes these to a [`Sink`].
//! Does not depend on: the connections, any server.

use inferprobe_ebpf::abi::{Record, kind};

use crate::{
    exchange::{Exchange, Peer, Request, Response},
    protocol::tls::{Alpn, Version},
};

/// What a record, a tick or the end of a connection resulted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request got its response.
    Finished(Exchange),
    /// A request was read, and its response will not be observed.
    Unfinished(Unfinished),
    /// The request of the [`Event::Unfinished`] before: it was read whole, and the server may still process it.
    Abandoned(Peer, Request),
    /// A server accepted a connection, which had waited for this long, ns.
    Accepted(Peer, u64),
    /// What a TLS connection showed, beside its requests.
    Tls(Peer, TlsEvent),
    /// Something was dropped, because it could not be interpreted.
    Lost(Loss),
}

/// What a TLS connection showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsEvent {
    /// Its handshake is over, and it is known what it speaks, or that this will not be known.
    Secured(Secured),
    /// The request of the [`Event::Finished`] that follows was timed, and not read.
    Timed,
    /// The request of the [`Event::Finished`] that follows was read.
    Read,
    /// It speaks HTTP/2, and was busy for this long, ns.
    Busy(u64),
}

/// A TLS connection after its handshake. `None`: not observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secured {
    /// The version.
    pub version: Option<Version>,
    /// The protocol that the server chose.
    pub alpn: Option<Alpn>,
    /// Whether a session was resumed.
    pub resumed: Option<bool>,
    /// Whether the client sent a certificate.
    pub client_certificate: Option<bool>,
    /// From first byte of the ClientHello readable to the client's Finished read, ns.
    pub handshake_ns: Option<u64>,
}

/// What was being processed when something was lost: it says where to look, and has no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The connection.
    pub peer: Peer,
    /// Time of the read, the write or the end, ns.
    pub at_ns: u64,
    /// `read`, `write`, `read, write`, `unobserved`, `end`; `silence` if nothing happened for too long. The last two name what
    /// came before them.
    pub direction: &'static str,
    /// Bytes of the reads and the writes.
    pub bytes: u64,
}

/// The latest reads and writes of a connection, which what is lost at its end concerns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latest {
    direction: &'static str,
    bytes: u64,
}

impl Place {
    /// Returns the place of a record of the connection `peer`.
    pub fn of(record: &Record, peer: Peer) -> Self {
        let (direction, bytes) = match record.kind {
            kind::READ => ("read", record.read_bytes),
            kind::EXCHANGE => ("read, write", record.read_bytes + record.written_bytes),
            kind::PROGRESS => ("write", record.written_bytes),
            kind::REPLY_READ => ("read of a reply", record.read_bytes),
            kind::UNOBSERVED => ("unobserved", record.read_bytes + record.written_bytes),
            _ => ("end", 0),
        };
        Self {
            peer,
            at_ns: record.last_write_ns.max(record.last_read_ns),
            direction,
            bytes,
        }
    }

    /// Returns the place of a silent connection at `at_ns`, after its `latest` reads and writes.
    pub fn of_silence(peer: Peer, at_ns: u64, latest: Latest) -> Self {
        Self {
            peer,
            at_ns,
            direction: match latest.direction {
                "read" => "read, silence",
                "write" => "write, silence",
                "read, write" => "read, write, silence",
                _ => "silence",
            },
            bytes: latest.bytes,
        }
    }

    /// Returns this place; if it is a connection's end, that after its `latest` reads and writes, which it replaces otherwise.
    pub fn after(self, latest: &mut Latest) -> Self {
        if self.direction != "end" {
            *latest = Latest {
                direction: self.direction,
                bytes: self.bytes,
            };
            return self;
        }
        Self {
            direction: match latest.direction {
                "read" => "read, end",
                "write" => "write, end",
                "read, write" => "read, write, end",
                _ => "end",
            },
            bytes: latest.bytes,
            ..self
        }
    }
}

/// Receives events, in the order in which they happened.
pub trait Sink {
    /// Says where the losses of the events to come are.
    fn enter(&mut self, _place: Place) {}

    /// Processes an event.
    fn event(&mut self, event: Event);

    /// Processes a loss.
    fn lost(&mut self, loss: Loss) {
        self.event(Event::Lost(loss));
    }
}

/// Keeps the events.
impl Sink for Vec<Event> {
    fn event(&mut self, event: Event) {
        self.push(event);
    }
}

/// Why a request has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// The connection ended before the request did.
    Incomplete,
    /// The connection ended after the request and before its response; on HTTP/2, before the response's end.
    Unanswered,
    /// A record in between was lost, or the bytes in between could not be followed.
    LostRecords,
    /// Its connection was silent for too long, or had too many open requests.
    Evicted,
    /// Its stream was reset or refused, by either side, before the response's end.
    Reset,
    /// Bytes of it, or of its response, moved and no hook handled the call.
    Unobserved,
}

impl Unfinished {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Incomplete,
        Self::Unanswered,
        Self::LostRecords,
        Self::Evicted,
        Self::Reset,
        Self::Unobserved,
    ];

    /// The reason's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Unanswered => "unanswered",
            Self::LostRecords => "lost_records",
            Self::Evicted => "evicted",
            Self::Reset => "reset",
            Self::Unobserved => "unobserved",
        }
    }

    /// What happened to the request, in one sentence for the documentation.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Incomplete => "The connection ended inside the request.",
            Self::Unanswered => {
                "The connection ended before the response, on HTTP/2 before its end; in most cases the client left."
            }
            Self::LostRecords => {
                "A record in between was lost, or the bytes in between could not be followed; see `inferprobe_records_lost_total`."
            }
            Self::Evicted => {
                "The agent dropped the request, because its connection was silent for too long or had too many open requests."
            }
            Self::Reset => {
                "Either side reset or refused the HTTP/2 stream before the response was complete."
            }
            Self::Unobserved => {
                "Bytes moved that no hook reported, so status, model or times are not known; see `inferprobe_records_lost_total`."
            }
        }
    }
}

/// What the agent dropped, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Records of a connection are missing; the agent resumed after them.
    Resynchronised,
    /// Bytes on a watched socket that are no HTTP/1 request.
    NotHttp,
    /// A response to a request that was not observed.
    ResponseWithoutRequest,
    /// A request whose head was not copied, because it follows other bytes of one read, or whose HPACK references are
    /// older than the agent: it counts without its path.
    HeadUnseen,
    /// A body that may name the model and was not searched to its end: its request counts under a guess.
    BodyCut,
    /// A gRPC call whose status is an HPACK reference that is older than the agent: it counts by its HTTP status.
    StatusUnseen,
    /// A ZeroMQ connection between processes of one server: it counts once, and its content is ignored.
    InnerProtocol,
    /// An HTTP/2 connection whose frames could not be followed: it is dropped, and each later read counts again.
    Http2Unfollowed,
    /// A connection of HTTP/2 over TLS: it counts once, and its requests cannot be told apart.
    TlsMultiplexed,
    /// A TLS connection of which nothing shows whether it speaks HTTP/1: it counts once, and its requests do not.
    TlsUndecided,
    /// A client's data, encrypted, that came before the response was over: several requests may count as one.
    TlsOverlapped,
    /// Data that came before a TLS handshake was over: its requests do not count.
    TlsEarlyData,
    /// A TLS connection that ended before its handshake did.
    TlsNoHandshake,
    /// Bytes on a TLS connection whose records could not be followed.
    TlsUnfollowed,
    /// A TLS connection whose plaintext was read, and then did not fit its records: it is only timed, until it fits again.
    TlsUnjoined,
    /// Bytes that moved on a TCP connection and no hook handled the call: it has none, as splice, or the kernel skipped the
    /// program.
    Unobserved,
    /// A process that matches a watch and could not be watched: its requests are not observed.
    NotWatched,
    /// A ring entry that is shorter than its own header says.
    Malformed,
    /// Bytes on a worker's connection that are no frame.
    NotFramed,
    /// A frame that a worker read and did not reply to.
    WorkerUnanswered,
    /// A worker's reply to a request whose response was not observed: in most cases its client left first.
    ReplyUnpaired,
}

impl Loss {
    /// Every reason.
    pub const ALL: [Self; 21] = [
        Self::Resynchronised,
        Self::NotHttp,
        Self::InnerProtocol,
        Self::ResponseWithoutRequest,
        Self::HeadUnseen,
        Self::BodyCut,
        Self::StatusUnseen,
        Self::Http2Unfollowed,
        Self::TlsMultiplexed,
        Self::TlsUndecided,
        Self::TlsOverlapped,
        Self::TlsEarlyData,
        Self::TlsNoHandshake,
        Self::TlsUnfollowed,
        Self::TlsUnjoined,
        Self::Unobserved,
        Self::NotWatched,
        Self::Malformed,
        Self::NotFramed,
        Self::WorkerUnanswered,
        Self::ReplyUnpaired,
    ];

    /// The reason's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resynchronised => "resynchronised",
            Self::NotHttp => "not_http",
            Self::InnerProtocol => "inner_protocol",
            Self::ResponseWithoutRequest => "answer_without_request",
            Self::HeadUnseen => "head_unseen",
            Self::BodyCut => "body_cut",
            Self::StatusUnseen => "status_unseen",
            Self::Http2Unfollowed => "http2_unfollowed",
            Self::TlsMultiplexed => "tls_multiplexed",
            Self::TlsUndecided => "tls_undecided",
            Self::TlsOverlapped => "tls_overlapped",
            Self::TlsEarlyData => "tls_early_data",
            Self::TlsNoHandshake => "tls_no_handshake",
            Self::TlsUnfollowed => "tls_unfollowed",
            Self::TlsUnjoined => "tls_unjoined",
            Self::Unobserved => "unobserved",
            Self::NotWatched => "process_not_watched",
            Self::Malformed => "malformed",
            Self::NotFramed => "not_framed",
            Self::WorkerUnanswered => "worker_unanswered",
            Self::ReplyUnpaired => "reply_unpaired",
        }
    }

    /// What was lost and what the reader can do, in one sentence for the documentation.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Resynchronised => {
                "Records of a connection are missing; the agent resumed with the next request. If `ring_full` grows too, give the agent more CPU time."
            }
            Self::NotHttp => "Bytes on a watched connection that are no HTTP/1 request.",
            Self::InnerProtocol => {
                "A ZeroMQ connection between processes of one server; it counts once and carries no requests, so no action is needed."
            }
            Self::ResponseWithoutRequest => {
                "A response to a request that the agent did not observe; expected for requests already open when the agent starts."
            }
            Self::HeadUnseen => {
                "A request counted without its path, or a response without a readable status; start the agent before the clients connect."
            }
            Self::BodyCut => {
                "A request counted under a guessed model, because its body was not read to the end; raise --body-limit, or see `body_dropped`."
            }
            Self::StatusUnseen => {
                "A gRPC call counted by its HTTP status, because the agent joined its connection late; start the agent before the clients."
            }
            Self::Http2Unfollowed => {
                "An HTTP/2 connection that could not be followed and is not measured any more; it is measured again when the client reconnects."
            }
            Self::TlsMultiplexed => {
                "A connection of HTTP/2 over TLS: it is timed as a whole; watch the port that a TLS proxy forwards to for its requests."
            }
            Self::TlsUndecided => {
                "A TLS connection that may speak HTTP/1 or not, in most cases open before the agent; start the agent before the clients connect."
            }
            Self::TlsOverlapped => {
                "A client's data over TLS that came before the response was over: pipelined requests, which count as one, or an early response."
            }
            Self::TlsEarlyData => {
                "Data before the end of a TLS handshake (0-RTT), whose requests do not count."
            }
            Self::TlsNoHandshake => {
                "A TLS connection that ended before its handshake: a probe of the port, or a refused certificate; see the server's log."
            }
            Self::TlsUnfollowed => {
                "Bytes of TLS whose records could not be followed; the agent resumed where a read or write began with a record."
            }
            Self::TlsUnjoined => {
                "A TLS connection whose plaintext no longer fitted its records: with --tls, its requests are only timed until it fits again."
            }
            Self::Unobserved => {
                "TCP bytes moved that no hook reported, as by splice, or because the kernel skipped a program: see `inferprobe doctor`."
            }
            Self::NotWatched => {
                "A process that matches a watch and could not be watched, because 8,192 are watched already; narrow the watches."
            }
            Self::Malformed => {
                "A record shorter than it says, or one that counts more bytes than a connection can carry; please report it as a defect."
            }
            Self::NotFramed => {
                "Bytes between TorchServe's frontend and a worker that are no frame; check that this TorchServe version is supported."
            }
            Self::WorkerUnanswered => {
                "A frame that a TorchServe worker read and did not reply to, because the worker died; see TorchServe's log."
            }
            Self::ReplyUnpaired => {
                "A TorchServe worker's reply without an observed response, or one of another worker; in most cases the client left first."
            }
        }
    }
}

/// Pairs a request with its response.
pub(crate) fn pair(peer: Peer, request: Option<Request>, response: Response) -> Event {
    match request {
        Some(request) if response.status != 0 => Event::Finished(Exchange {
            peer,
            request,
            response,
        }),
        Some(_) => Event::Lost(Loss::HeadUnseen),
        None => Event::Lost(Loss::ResponseWithoutRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::fixtures;

    #[test]
    fn what_is_lost_at_the_end_has_the_bytes_before_it() {
        let place = |direction, bytes| Place {
            peer: fixtures::exchange().peer,
            at_ns: 5,
            direction,
            bytes,
        };
        let mut latest = Latest::default();
        assert_eq!(place("end", 0).after(&mut latest), place("end", 0));
        for (direction, at_end) in [
            ("read", "read, end"),
            ("write", "write, end"),
            ("read, write", "read, write, end"),
            ("unobserved", "end"),
        ] {
            let moved = place(direction, 7);
            assert_eq!(moved.after(&mut latest), moved);
            assert_eq!(place("end", 0).after(&mut latest), place(at_end, 7));
            let silent = Place::of_silence(fixtures::exchange().peer, 9, latest);
            assert_eq!((silent.at_ns, silent.bytes), (9, 7));
        }
    }

    #[test]
    fn help_of_every_reason_is_one_short_line() {
        let losses = Loss::ALL.map(Loss::help);
        let unfinished = Unfinished::ALL.map(Unfinished::help);
        for help in losses.iter().chain(&unfinished) {
            assert!(help.len() <= 160 && help.ends_with('.'), "{help}");
            assert!(!help.contains(['\n', '|']), "{help}");
        }
    }
}
