//! Keeps the open streams of an HTTP/2 connection: gives each its frames, and reports when its response is complete.
//!
//! Receives frames as the parts that `protocol::http2` makes of them.
//! Does not depend on: where frames begin.

use std::collections::BTreeMap;

use crate::{
    exchange::{
        Peer, Request, Response,
        body_search::BodySearch,
        chunks::{Chunks, Framing},
        event::{Event, Loss, Sink, Unfinished, pair},
        generation::Generation,
        http2::{
            dialogue::{Answer, Asked, Dialogue},
            messages::Messages,
        },
        reads::Reads,
        writes::Writes,
    },
    protocol::{
        body_format::BodyFormat,
        content_type::BodyKind,
        grpc::{self, MESSAGE_CAP, ModelName, NamedBy},
        http2::{
            Fault, Part,
            fields::{Content, Fields},
        },
        json_model::BodyModel,
    },
};

/// Streams that may be open on one connection; beyond it, the oldest are dropped.
pub(super) const OPEN_CAP: usize = 1024;
/// Bodies of one connection that are decompressed at once; of the others, the model is not looked for.
const DECOMPRESSED_CAP: usize = 4;
/// Request messages without an answer that one connection keeps; beyond it, each call keeps only its latest.
const ASKED_CAP: usize = 1024;
/// The status of a gRPC call without an error.
const GRPC_OK: u32 = 0;
/// The stream of the response to a request that asked for an upgrade (RFC 7540, section 3.2).
const UPGRADED: u32 = 1;

/// A request whose response has not ended.
#[derive(Debug)]
pub(super) struct Stream {
    request: Request,
    response: Option<Response>,
    /// First bytes of the request's content, if it may be gRPC messages.
    pub(super) content: Vec<u8>,
    /// Whether `content` ends before a gap.
    cut: bool,
    /// The search of the request's content, if it is no gRPC call.
    body: BodySearch,
    /// Messages of the response.
    messages: Messages,
    /// Messages that were not paired; `None` if it is no gRPC call.
    dialogue: Option<Box<Dialogue>>,
}

/// The open streams, and what the next one needs.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By number: older streams have lower ones.
    pub(super) open: BTreeMap<u32, Stream>,
    /// Lowest and highest stream whose request was observed; `None` before the first.
    observed: Option<(u32, u32)>,
    next_index: u32,
    /// Arrival and time of the read that brought the first byte of the latest frame read.
    read_began: (Option<u64>, u64),
    /// Start of the write that brought the first byte of the latest frame written, and whether that is an upper bound.
    write_began: (u64, bool),
    /// Request messages of all calls that have no answer.
    pub(super) asked: usize,
    /// Calls of which messages of the response ended in the present write.
    touched: Vec<u32>,
    /// Whether what was read are responses.
    reversed: bool,
    /// Bytes of streams whose requests were not observed.
    missed_bytes: u64,
}

impl Streams {
    /// Opens the first stream with a request that came over HTTP/1, before the first frame.
    pub(super) fn upgrade(&mut self, request: Request) {
        self.next_index = request.index.wrapping_add(1);
        self.open(UPGRADED, request, BodySearch::without_body());
    }

    /// Fails if what was read are responses: then the agent has joined the client's side of an open connection.
    pub(super) fn check_side(&self) -> Result<(), Fault> {
        match self.reversed {
            true => Err(Fault::Malformed),
            false => Ok(()),
        }
    }

    /// Whether no request is open.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the open requests.
    pub(super) fn open_requests(&self) -> Vec<Request> {
        self.open.values().flat_map(Stream::open_requests).collect()
    }

    /// Ends all requests; `complete_reason` is the reason of those that were read whole.
    pub(super) fn close(&mut self, complete_reason: Unfinished, peer: Peer, out: &mut dyn Sink) {
        self.asked = 0;
        for stream in std::mem::take(&mut self.open).into_values() {
            stream.discard(complete_reason, peer, out);
        }
    }

    /// Ends all requests, because their responses cannot be found any more.
    pub(super) fn lose(&mut self, reason: Unfinished, out: &mut dyn Sink) {
        self.asked = 0;
        for _ in std::mem::take(&mut self.open) {
            out.event(Event::Unfinished(reason));
        }
    }

    /// Bytes since the last call of streams whose requests were not observed.
    pub(super) fn take_missed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.missed_bytes)
    }

    /// Processes a part of a read, which begins `at` bytes after the read's first.
    pub(super) fn read(
        &mut self,
        part: Part<'_>,
        at: u64,
        reads: &Reads<'_>,
        peer: Peer,
        out: &mut dyn Sink,
    ) {
        match part {
            Part::Began => {
                self.read_began = (reads.arrivals.at(at), reads.first_ns);
            }
            Part::Headers {
                stream,
                bytes,
                ends,
                fields,
            } => {
                self.reversed |= fields.status.is_some();
                if !self.open.contains_key(&stream) {
                    self.begin(stream, fields, out);
                }
                self.extend(stream, reads, bytes, ends);
            }
            Part::Data { stream, content } => {
                if let Some(open) = self.open.get_mut(&stream) {
                    open.request.last_read_ns = reads.last_ns;
                    open.keep(content);
                    if let Some(dialogue) = &mut open.dialogue {
                        dialogue.keep(content);
                    }
                }
            }
            Part::DataEnd {
                stream,
                bytes,
                content_bytes,
                ends,
            } => {
                self.end_asked(stream, content_bytes, reads.last_ns);
                self.extend(stream, reads, bytes, ends);
            }
            Part::Reset { stream } => self.discard(stream, peer, out),
            // A client's GOAWAY refuses pushes, not requests.
            Part::GoAway { .. } | Part::TableSize(_) => {}
        }
    }

    /// Begins a request, unless the fields are trailers, or follow a request that was dropped.
    fn begin(&mut self, stream: u32, fields: Fields, out: &mut dyn Sink) {
        let follows = self.observed.is_none_or(|(_, newest)| stream > newest);
        let asks = fields.method.is_some() || fields.unknown;
        if !follows || !asks || stream.is_multiple_of(2) {
            return;
        }
        if fields.path.is_none() && fields.unknown {
            out.lost(Loss::HeadUnseen);
        }
        let (arrival_ns, first_read_ns) = self.read_began;
        let request = Request {
            index: self.next_index,
            method: fields.method.unwrap_or_default(),
            target: fields.path.unwrap_or_default(),
            arrival_ns,
            first_read_ns,
            last_read_ns: first_read_ns,
            last_arrival_ns: None,
            reader_tid: None,
            bytes: 0,
            complete: false,
            named: None,
            user_agent: fields.user_agent,
            content_cut: false,
        };
        self.next_index = self.next_index.wrapping_add(1);
        let body = match fields.content {
            Some(Content::Grpc) => BodySearch::without_body(),
            _ => self.search(&fields.format),
        };
        self.open(stream, request, body);
        if self.open.len() > OPEN_CAP
            && let Some((_, oldest)) = self.open.pop_first()
        {
            self.asked -= oldest.waiting();
            out.event(Event::Unfinished(Unfinished::Evicted));
        }
    }

    /// Starts the search of a body.
    fn search(&self, format: &BodyFormat) -> BodySearch {
        let search = BodySearch::new(format);
        let decompressed = self.open.values().filter(|open| open.body.decompresses());
        match search.decompresses() && decompressed.count() >= DECOMPRESSED_CAP {
            true => BodySearch::hidden(),
            false => search,
        }
    }

    fn open(&mut self, stream: u32, request: Request, body: BodySearch) {
        self.observed = Some((self.observed.map_or(stream, |(oldest, _)| oldest), stream));
        let is_call = grpc::is_call(&request.target);
        let opened = Stream {
            request,
            response: None,
            content: Vec::new(),
            cut: false,
            body,
            messages: Messages::default(),
            dialogue: is_call.then(Box::default),
        };
        self.open.insert(stream, opened);
    }

    /// Whether the stream is none of those whose requests were observed, open or ended.
    fn is_unobserved(&self, stream: u32) -> bool {
        self.observed
            .is_none_or(|(oldest, newest)| stream < oldest || stream > newest)
            || stream.is_multiple_of(2)
    }

    fn extend(&mut self, stream: u32, reads: &Reads<'_>, bytes: u64, ends: bool) {
        if let Some(Stream { request, .. }) = self.open.get_mut(&stream) {
            request.bytes += bytes;
            request.last_read_ns = reads.last_ns;
            request.complete |= ends;
        } else if self.is_unobserved(stream) {
            self.missed_bytes += bytes;
        }
    }

    /// Processes a part of a write.
    pub(super) fn write(
        &mut self,
        part: Part<'_>,
        writes: &Writes<'_>,
        peer: Peer,
        out: &mut dyn Sink,
    ) {
        let (stream, bytes, ends) = match part {
            Part::Began => {
                self.write_began = (writes.start_ns, writes.start_bounded);
                return;
            }
            Part::Headers {
                stream,
                bytes,
                ends,
                fields,
            } => {
                if !ends && fields.status.is_some_and(|status| status < 200) {
                    return;
                }
                self.response(stream, &fields, ends, out);
                (stream, bytes, ends)
            }
            Part::Data { stream, content } => {
                if let Some(open) = self.open.get_mut(&stream) {
                    open.messages.keep(content);
                    open.generate(content, self.write_began, writes);
                }
                return;
            }
            Part::DataEnd {
                stream,
                bytes,
                content_bytes,
                ends,
            } => {
                self.add_pieces(stream, content_bytes, writes);
                (stream, bytes, ends)
            }
            Part::Reset { stream } => return self.discard(stream, peer, out),
            Part::GoAway { last } => {
                let refused = self
                    .open
                    .split_off(&last.unwrap_or(u32::MAX).saturating_add(1));
                for stream in refused.values() {
                    self.asked -= stream.waiting();
                    out.event(Event::Unfinished(Unfinished::Reset));
                }
                return;
            }
            Part::TableSize(_) => return,
        };
        let Some(open) = self.open.get_mut(&stream) else {
            if self.is_unobserved(stream) {
                self.missed_bytes += bytes;
            }
            // Streams that were observed and are not open any more are reported already.
            let unobserved = self.observed.is_none_or(|(oldest, _)| stream < oldest);
            let pushed = stream.is_multiple_of(2);
            if ends && unobserved && !pushed {
                out.lost(Loss::ResponseWithoutRequest);
            }
            return;
        };
        if let Some(response) = &mut open.response {
            response.bytes += bytes;
            response.last_write_ns = ends.then_some(writes.end_ns);
            if ends {
                self.finish(stream, peer, out);
            }
        }
    }

    /// Processes the head or the trailers of a response, which `ends` with them or not.
    fn response(&mut self, stream: u32, fields: &Fields, ends: bool, out: &mut dyn Sink) {
        let (first_write_ns, first_write_bounded) = self.write_began;
        let Some(open) = self.open.get_mut(&stream) else {
            return;
        };
        let is_call = open.is_call() || fields.content == Some(Content::Grpc);
        open.messages.framed |= is_call;
        let response = open.response.get_or_insert_with(|| Response {
            status: fields.status.unwrap_or(0),
            first_write_ns,
            // Other streams share the thread's wait, and the send buffer.
            thread_wait: None,
            undrained_ns: None,
            first_write_bounded,
            early: !open.request.complete,
            last_write_ns: None,
            bytes: 0,
            request_id: None,
            grpc_status: None,
            chunks: framing_of(fields, is_call).map(|framing| Box::new(Chunks::new(framing))),
            generation: None,
            session: None,
        });
        let generates = !is_call && fields.status.is_some_and(|status| status < 300);
        let asks = !matches!(&*open.request.method, "GET" | "HEAD");
        if generates && asks {
            let kind = fields.content.map(Content::body);
            response.generation = Generation::of(kind, fields.is_compressed);
        }
        response.grpc_status = fields.grpc_status.or(response.grpc_status);
        if ends && is_call && fields.unknown && response.grpc_status.is_none() {
            out.lost(Loss::StatusUnseen);
        }
    }

    /// Adds the pieces that begin in the DATA frame that ends.
    fn add_pieces(&mut self, stream: u32, content_bytes: u64, writes: &Writes<'_>) {
        let (began_ns, bounded) = self.write_began;
        if let Some(open) = self.open.get_mut(&stream) {
            let begun = open.messages.end_frame(content_bytes);
            if let Some(dialogue) = &mut open.dialogue {
                let (ended, stays_open) = open.messages.ended();
                let complete = open.request.complete;
                dialogue.on_response(ended, stays_open, self.write_began, writes.end_ns, complete);
                if !ended.is_empty() {
                    self.touched.push(stream);
                }
            }
            if let Some(chunks) = open
                .response
                .as_mut()
                .and_then(|response| response.chunks.as_mut())
            {
                let at_ns = if bounded { writes.end_ns } else { began_ns };
                chunks.note_together(begun, at_ns);
                if open.messages.is_lost() {
                    chunks.lose_count();
                }
            }
        }
    }

    /// Ends a frame of a request, which has `content_bytes` bytes of content and was read at `read_ns`.
    fn end_asked(&mut self, stream: u32, content_bytes: u64, read_ns: u64) {
        let has_room = self.asked < ASKED_CAP;
        let Some(open) = self.open.get_mut(&stream) else {
            return;
        };
        self.asked -= open.waiting();
        if let Some(dialogue) = &mut open.dialogue {
            dialogue.end_frame(content_bytes, self.read_began, read_ns, has_room);
        }
        self.asked += open.waiting();
    }

    /// Reports the messages that were answered by the end of a write, of calls that go on.
    pub(super) fn settle(&mut self, peer: Peer, out: &mut dyn Sink) {
        for stream in std::mem::take(&mut self.touched) {
            if let Some(open) = self.open.get_mut(&stream) {
                self.asked -= open.waiting();
                open.settle(&mut self.next_index, peer, out);
                self.asked += open.waiting();
            }
        }
    }

    /// Reports a response that has ended: of a call whose messages were counted one by one, those that are left.
    fn finish(&mut self, stream: u32, peer: Peer, out: &mut dyn Sink) {
        let Some(mut open) = self.remove(stream) else {
            return;
        };
        if open.is_split() {
            open.settle(&mut self.next_index, peer, out);
            open.end_dialogue(&mut self.next_index, peer, out);
        } else if let (request, Some(mut response)) = open.named() {
            if let Some(generation) = &mut response.generation {
                generation.finish(response.last_write_ns.unwrap_or(0));
            }
            out.event(pair(peer, Some(request), response));
        }
    }

    fn remove(&mut self, stream: u32) -> Option<Stream> {
        let removed = self.open.remove(&stream)?;
        self.asked -= removed.waiting();
        Some(removed)
    }

    /// Ends a stream that one of the two sides reset.
    fn discard(&mut self, stream: u32, peer: Peer, out: &mut dyn Sink) {
        if let Some(stream) = self.remove(stream) {
            stream.discard(Unfinished::Reset, peer, out);
        }
    }
}

impl Stream {
    /// Whether it is a gRPC call, as far as its request shows.
    fn is_call(&self) -> bool {
        grpc::begins_call(&self.request.target, &self.content)
    }

    /// Returns the request, with the model that its content names so far.
    fn request(&self) -> Request {
        let (named, content_cut) = match self.is_call() {
            true => (self.named_model(), false),
            false if self.request.named.is_some() => return self.request.clone(),
            false => named_in(self.body.so_far()),
        };
        Request {
            named: named.map(Box::new),
            content_cut,
            ..self.request.clone()
        }
    }

    /// Returns the model that the first message of a gRPC call names.
    fn named_model(&self) -> Option<ModelName> {
        grpc::model_of(&self.request.target, &self.content)
    }

    /// Returns the request, with the model that its content names, and the response so far.
    fn named(mut self) -> (Request, Option<Response>) {
        let (named, content_cut) = match self.is_call() {
            true => (self.named_model(), false),
            // The body of a request that was upgraded came over HTTP/1.
            false if self.request.named.is_some() => return (self.request, self.response),
            false => named_in(self.body.verdict()),
        };
        let request = Request {
            named: named.map(Box::new),
            content_cut,
            ..self.request
        };
        (request, self.response)
    }

    /// Whether its messages are counted one by one.
    fn is_split(&self) -> bool {
        let dialogue = self.dialogue.as_ref();
        dialogue.is_some_and(|dialogue| dialogue.is_split())
    }

    /// Request messages that have no answer.
    fn waiting(&self) -> usize {
        let dialogue = self.dialogue.as_ref();
        dialogue.map_or(0, |dialogue| dialogue.waiting().len())
    }

    /// Returns the requests that are open: of a call before its first message, and of one whose messages are counted one by one
    /// and are all answered, none.
    fn open_requests(&self) -> Vec<Request> {
        let Some(dialogue) = self.dialogue.as_ref().filter(|one| !one.is_lost()) else {
            return vec![self.request()];
        };
        let waiting = dialogue.waiting().iter().chain(dialogue.reading());
        match dialogue.is_split() {
            true => waiting.map(|asked| self.request_of(asked, 0)).collect(),
            false => waiting.take(1).map(|_| self.request()).collect(),
        }
    }

    /// Returns the request that one of its messages is.
    fn request_of(&self, asked: &Asked, index: u32) -> Request {
        let named = grpc::model_of(&self.request.target, &asked.content);
        Request {
            index,
            arrival_ns: asked.arrival_ns,
            first_read_ns: asked.first_read_ns,
            last_read_ns: asked.last_read_ns,
            bytes: asked.bytes,
            complete: true,
            named: named.or_else(|| self.named_model()).map(Box::new),
            ..self.request.clone()
        }
    }

    /// Reports the messages that were answered since the last call, if it is a dialogue.
    fn settle(&mut self, next_index: &mut u32, peer: Peer, out: &mut dyn Sink) {
        let complete = self.request.complete;
        let was_split = self.is_split();
        let pairs = match &mut self.dialogue {
            Some(dialogue) => dialogue.settle(complete),
            None => return,
        };
        let status = self.response.as_ref().map_or(0, |response| response.status);
        for (at, (asked, answer)) in pairs.into_iter().enumerate() {
            let index = match at == 0 && !was_split {
                true => self.request.index,
                false => take_index(next_index),
            };
            let Answer {
                first_write_ns,
                first_write_bounded,
                last_write_ns,
                bytes,
            } = answer;
            let response = Response {
                status,
                first_write_ns,
                first_write_bounded,
                last_write_ns: Some(last_write_ns),
                bytes,
                undrained_ns: None,
                // The status of the call comes at its end. A call that fails has no message for it.
                grpc_status: Some(GRPC_OK),
                ..Response::NOT_BEGUN
            };
            out.event(pair(peer, Some(self.request_of(&asked, index)), response));
        }
    }

    /// Reports the end of a dialogue. If the call failed, its oldest message without an answer failed with it; other messages
    /// were sent for no answer of their own.
    fn end_dialogue(&mut self, next_index: &mut u32, peer: Peer, out: &mut dyn Sink) {
        let Some(dialogue) = &self.dialogue else {
            return;
        };
        if dialogue.is_lost() {
            out.event(Event::Unfinished(Unfinished::LostRecords));
            return;
        }
        let failed = |response: &Response| response.grpc_status.is_some_and(|code| code != GRPC_OK);
        if let Some(response) = self.response.as_ref().filter(|response| failed(response))
            && let Some(asked) = dialogue.waiting().front()
            && let Some(last_write_ns) = response.last_write_ns
        {
            let request = self.request_of(asked, take_index(next_index));
            let response = Response {
                status: response.status,
                first_write_ns: last_write_ns,
                first_write_bounded: true,
                last_write_ns: Some(last_write_ns),
                grpc_status: response.grpc_status,
                undrained_ns: None,
                ..Response::NOT_BEGUN
            };
            out.event(pair(peer, Some(request), response));
        }
    }

    /// Reports that the response's end will not be observed; `complete_reason` is the reason if the request was read whole.
    fn discard(self, complete_reason: Unfinished, peer: Peer, out: &mut dyn Sink) {
        if self.is_split() {
            for _ in 0..self.waiting() {
                out.event(Event::Unfinished(complete_reason));
            }
            return;
        }
        if !self.request.complete {
            out.event(Event::Unfinished(Unfinished::Incomplete));
            return;
        }
        out.event(Event::Unfinished(complete_reason));
        if matches!(complete_reason, Unfinished::Reset | Unfinished::Unanswered) {
            let (request, _) = self.named();
            out.event(Event::Abandoned(peer, request));
        }
    }

    /// Adds content of the response, which began to be written at `began`, to what it generates; `None`: a gap.
    fn generate(&mut self, content: Option<&[u8]>, began: (u64, bool), writes: &Writes<'_>) {
        let response = self.response.as_mut();
        let Some(generation) = response.and_then(|response| response.generation.as_mut()) else {
            return;
        };
        let at_ns = match began {
            (began_ns, false) => began_ns,
            _ => writes.end_ns,
        };
        match content {
            Some(content) => generation.push(content, content.len() as u64, at_ns),
            None => generation.skip(),
        }
    }

    /// Keeps content up to the first gap.
    fn keep(&mut self, content: Option<&[u8]>) {
        let Some(content) = content else {
            self.cut = true;
            self.body.end();
            return;
        };
        self.body.push(content);
        if !self.cut {
            let room = MESSAGE_CAP - self.content.len();
            let kept = &content[..content.len().min(room)];
            self.content.extend_from_slice(kept);
        }
    }
}

/// Returns the model that a body names, and whether it may name one in bytes that were not searched.
fn named_in(found: BodyModel) -> (Option<ModelName>, bool) {
    let cut = found == BodyModel::Unknown;
    let named = match found {
        BodyModel::Named(model) => Some(ModelName {
            by: NamedBy::Body,
            model,
            version: None,
        }),
        BodyModel::Absent | BodyModel::Unknown => None,
    };
    (named, cut)
}

/// Returns the number of the next request of a connection.
fn take_index(next_index: &mut u32) -> u32 {
    let index = *next_index;
    *next_index = next_index.wrapping_add(1);
    index
}

/// What the head of a response says about the pieces of its body; `None` if the body is not streamed.
fn framing_of(fields: &Fields, is_call: bool) -> Option<Framing> {
    match fields.content {
        Some(Content::Body(BodyKind::Events)) => Some(Framing::Events),
        _ if fields.has_length && !is_call => None,
        _ => Some(Framing::Unsaid),
    }
}
