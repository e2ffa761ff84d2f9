//! Names what the records of a connection bring about: finished exchanges, unfinished requests, losses.
//!
//! Every kind of connection emits these events. Does not depend on: the connections.

use crate::{
    exchange::{Exchange, Peer, Request, Response},
    torchserve::exchange::WorkerExchange,
};

/// Something that a record, a tick or a close brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request was answered.
    Finished(Exchange),
    /// A worker of a frontend did what it was asked.
    Worked(WorkerExchange),
    /// A request was read and will not be seen answered.
    Unfinished(Unfinished),
    /// Which one that was, where it was read whole and its connection ended first: the server may not know.
    Abandoned(Peer, Request),
    /// A connection, which its server has read from, had waited so many ns to be accepted.
    Accepted(Peer, u64),
    /// Something could not be told apart, and was left out.
    Lost(Loss),
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// The connection ended before the request did.
    Incomplete,
    /// The connection ended after the request and before its answer; on HTTP/2, before its answer's end.
    Unanswered,
    /// A record in between was lost, or the bytes in between could not be followed.
    LostRecords,
    /// It was forgotten: its connection was silent for too long, or had too many open.
    Evicted,
    /// Its stream was reset or refused, by either side, before its answer's end.
    Reset,
}

impl Unfinished {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::Incomplete,
        Self::Unanswered,
        Self::LostRecords,
        Self::Evicted,
        Self::Reset,
    ];

    /// The reason's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Unanswered => "unanswered",
            Self::LostRecords => "lost_records",
            Self::Evicted => "evicted",
            Self::Reset => "reset",
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
        }
    }
}

/// What userspace left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Records of a connection are missing; it was taken up again after them.
    Resynchronised,
    /// Bytes on a watched socket that are no HTTP/1 request.
    NotHttp,
    /// An answer to a request that was not seen.
    ResponseWithoutRequest,
    /// A request whose head lay behind other bytes of one read, where it is not copied, or spoke of what went by before
    /// the agent: it counts without its path.
    HeadUnseen,
    /// A call of gRPC whose status spoke of what went by before the agent: it counts by its HTTP status.
    StatusUnseen,
    /// A connection of ZeroMQ, between processes of one server: it counts once, and nothing of it is looked at.
    InnerProtocol,
    /// An HTTP/2 connection whose frames could not be followed: it is given up, and each later read of it counts again.
    Http2Unfollowed,
    /// A process that should be watched and could not be: its requests are not seen.
    NotWatched,
    /// An entry of the ring shorter than it says.
    Malformed,
    /// Bytes on a worker's connection that are no frame.
    NotFramed,
    /// A frame that a worker read and did not reply to.
    WorkerUnanswered,
    /// A worker's reply to a request whose own answer was not seen: its client left first, mostly.
    ReplyUnpaired,
}

impl Loss {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Resynchronised,
        Self::NotHttp,
        Self::InnerProtocol,
        Self::ResponseWithoutRequest,
        Self::HeadUnseen,
        Self::StatusUnseen,
        Self::Http2Unfollowed,
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
            Self::StatusUnseen => "status_unseen",
            Self::Http2Unfollowed => "http2_unfollowed",
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
            Self::NotHttp => {
                "Bytes on a watched connection that are no HTTP/1 request; if they are TLS, watch the port behind the proxy that ends it."
            }
            Self::InnerProtocol => {
                "A ZeroMQ connection between processes of one server; it counts once and carries no requests, so no action is needed."
            }
            Self::ResponseWithoutRequest => {
                "A response to a request that the agent did not observe; expected for requests already open when the agent starts."
            }
            Self::HeadUnseen => {
                "A request counted without its path, or a response without a readable status; start the agent before the clients connect."
            }
            Self::StatusUnseen => {
                "A gRPC call counted by its HTTP status, because the agent joined its connection late; start the agent before the clients."
            }
            Self::Http2Unfollowed => {
                "An HTTP/2 connection that could not be followed and is not measured any more; it is measured again when the client reconnects."
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

/// What a request and its answer come to.
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
