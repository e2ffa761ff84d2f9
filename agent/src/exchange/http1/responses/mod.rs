//! Finds the responses in the bytes that a server writes to one HTTP/1 connection.
//!
//! Counts the pieces of streamed ones.
//! Does not depend on: the requests, except for the one that a response belongs to.

use inferprobe_ebpf::{abi::RESPONSE_HEAD_CAP, segment::HEAD_CAP as HEAD_COPIED};

use crate::{
    exchange::{
        Request, Response,
        chunks::{Chunks, Framing},
        generation::Generation,
        writes::{Writes, added},
    },
    protocol::{
        content_type::BodyKind,
        http1::{
            self, Body, Parse, ResponseHead,
            chunked::{self, ChunkWalk, Place},
        },
    },
};

/// Longest head that is collected over several writes, bytes: what the kernel half copies of one, and a record of a write that
/// ends it.
const HEAD_CAP: usize = HEAD_COPIED as usize + RESPONSE_HEAD_CAP;

/// What a write resulted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A final response began: it belongs to the oldest request that has none.
    Began,
    /// The response that began last has ended.
    Ended(Response),
    /// The connection speaks another protocol from here on; the response to the upgrade has ended.
    Upgraded(Response),
    /// The connection is a WebSocket from here on: its session belongs to the request that asked for it.
    Session(Response),
    /// The connection speaks HTTP/2 from here on, and the response to the request that asked for it follows there.
    Switched,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Before a response.
    Between,
    /// In a head, of which these bytes were written.
    Head(Vec<u8>),
    /// In a body, with so many bytes to come.
    Body(u64),
    /// In a chunked body. Once the walk over its chunks has lost its place, what looks like the end counts as the end, even
    /// if a chunk was found again.
    Chunked { walk: ChunkWalk, followed: bool },
    /// In a body that ends with the connection.
    UntilClose,
    /// In a response whose head was not copied whole.
    Hidden,
    /// After a response that was dropped: in its rest, if there is one, up to the next head.
    Rest,
    /// After an upgrade.
    Tunnel,
}

/// The response that is being written, and the state of the byte stream.
#[derive(Debug)]
pub struct ResponseStream {
    state: State,
    open: Response,
    /// Last bytes of the latest write, as [`Writes::tail`].
    tail: u64,
    /// Time of the pieces in the present writes, ns: the start of the writes if it is known, otherwise their end.
    piece_ns: u64,
    /// Return of the latest write, ns.
    sent_ns: u64,
    /// As [`Writes::undrained_ns`], until it is added to the response that the writes belong to.
    undrained_ns: Option<u64>,
}

impl Default for ResponseStream {
    fn default() -> Self {
        Self {
            state: State::Between,
            open: Response::NOT_BEGUN,
            tail: 0,
            piece_ns: 0,
            sent_ns: 0,
            undrained_ns: None,
        }
    }
}

impl ResponseStream {
    /// Processes writes, and calls `on_step` with what they result in, in order.
    ///
    /// `next_request` returns the request that a new response belongs to: a response to HEAD has no body.
    pub fn feed(
        &mut self,
        writes: &Writes<'_>,
        mut next_request: impl FnMut() -> Option<Request>,
        mut on_step: impl FnMut(Step, Option<Request>),
    ) {
        let begins = http1::status_of(writes.visible).is_some();
        if self.state == State::Rest && begins {
            self.state = State::Between;
        }
        let endless = matches!(
            self.state,
            State::Chunked {
                followed: false,
                ..
            } | State::Hidden
                | State::UntilClose
        );
        if endless && begins {
            // This is the head of the next response: the one before ended with the write before.
            on_step(Step::Ended(self.end()), None);
        }
        self.tail = writes.tail;
        // A record of later writes may still have the start of the response's first.
        let own_start = !writes.start_bounded && writes.start_ns > self.sent_ns;
        if own_start {
            self.piece_ns = writes.start_ns;
        } else if writes.end_ns != self.sent_ns {
            self.piece_ns = writes.end_ns;
        }
        self.sent_ns = writes.end_ns;
        self.undrained_ns = writes.undrained_ns;
        let mut at = 0;
        while at < writes.bytes {
            let visible = usize::try_from(at)
                .ok()
                .and_then(|at| writes.visible.get(at..))
                .unwrap_or_default();
            at += self.step(
                writes,
                visible,
                writes.bytes - at,
                &mut next_request,
                &mut on_step,
            );
        }
    }

    /// Skips `bytes` that were written unobserved; returns `false` if they may be anything. If they end the open response,
    /// `on_end` gets it.
    pub fn skip(&mut self, bytes: u64, on_end: impl FnOnce(Response)) -> bool {
        let State::Body(to_come) = &mut self.state else {
            return self.state == State::Tunnel;
        };
        // When the pieces of a stream were written is measured, and so is what a language model generates.
        if bytes > *to_come || self.open.chunks.is_some() || self.open.generation.is_some() {
            return false;
        }
        *to_come -= bytes;
        let ended = *to_come == 0;
        self.open.bytes += bytes;
        if ended {
            on_end(Response {
                last_write_ns: None,
                ..self.end()
            });
        }
        true
    }

    /// Drops the open response; bytes up to the next head are its rest.
    pub fn restart(&mut self) {
        *self = Self {
            state: State::Rest,
            ..Self::default()
        };
    }

    /// Whether a response has begun and not ended.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Between | State::Rest | State::Tunnel)
    }

    /// Whether a response is open that ends with the connection.
    pub fn is_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Whether a response is open whose end no later byte will show, only the end of the connection.
    pub fn ends_unobserved(&self) -> bool {
        match self.state {
            State::Hidden => true,
            State::Chunked { followed, .. } => !followed && chunked::may_end_trailers(self.tail),
            _ => false,
        }
    }

    /// Ends the open response at an unknown time.
    pub fn end_at_unknown_time(&mut self) -> Response {
        self.state = State::Rest;
        Response {
            last_write_ns: None,
            ..self.take_open()
        }
    }

    /// Time of the latest write, ns.
    pub fn latest_ns(&self) -> u64 {
        self.open.last_write_ns.unwrap_or(0)
    }

    /// Ends the open response, because the connection ended; `None` if no final response is open.
    pub fn close(&mut self) -> Option<Response> {
        let state = std::mem::replace(&mut self.state, State::Between);
        let response = self.take_open();
        match state {
            State::UntilClose => Some(response),
            State::Body(_) | State::Chunked { .. } | State::Hidden => Some(Response {
                last_write_ns: None,
                ..response
            }),
            State::Between | State::Head(_) | State::Rest | State::Tunnel => None,
        }
    }

    fn step(
        &mut self,
        writes: &Writes<'_>,
        visible: &[u8],
        left: u64,
        next_request: &mut impl FnMut() -> Option<Request>,
        on_step: &mut impl FnMut(Step, Option<Request>),
    ) -> u64 {
        match &mut self.state {
            State::Between => {
                self.open = Response {
                    first_write_ns: writes.start_ns,
                    first_write_bounded: writes.start_bounded,
                    thread_wait: writes.thread_wait,
                    ..Response::NOT_BEGUN
                };
                self.state = State::Head(Vec::new());
                0
            }
            State::Head(gathered) => {
                let before = gathered.len();
                gathered.extend_from_slice(visible);
                let head_bytes = std::mem::take(gathered);
                match http1::parse_response(&head_bytes) {
                    Parse::Complete(head, len)
                        if (100..200).contains(&head.status) && head.status != 101 =>
                    {
                        self.state = State::Between;
                        (len - before) as u64
                    }
                    Parse::Complete(head, len) => {
                        let request = next_request();
                        let taken = (len - before) as u64;
                        self.begin(writes, head, taken, request, on_step);
                        taken
                    }
                    Parse::Partial
                        if visible.len() as u64 == left && head_bytes.len() <= HEAD_CAP =>
                    {
                        self.state = State::Head(head_bytes);
                        self.extend(writes, left);
                        left
                    }
                    _ => {
                        // The head was not copied whole, or is none: the status may be there, the end is unknown.
                        self.open.status = http1::status_of(&head_bytes).unwrap_or(0);
                        self.state = State::Hidden;
                        let request = next_request();
                        self.open.early = is_early(request.as_ref());
                        on_step(Step::Began, request);
                        0
                    }
                }
            }
            State::Body(to_come) => {
                let taken = left.min(*to_come);
                *to_come -= taken;
                let ended = *to_come == 0;
                self.extend(writes, taken);
                self.note_sends(writes.sends);
                self.generate(visible, taken, writes.sends);
                if ended {
                    on_step(Step::Ended(self.end()), None);
                }
                taken
            }
            State::Chunked { walk, followed } => {
                if walk.is_lost() && chunked::begins_chunk(visible) {
                    *walk = ChunkWalk::default();
                }
                let was_lost = walk.is_lost();
                let (generation, at_ns) = (&mut self.open.generation, self.piece_ns);
                let walked = walk.walk(visible, left, |data, bytes| {
                    if let Some(generation) = generation {
                        generation.push(data, bytes, at_ns);
                    }
                });
                let lost = walked.place == Place::Lost;
                let looks_ended = (lost || !*followed) && chunked::ends_chunked(writes.tail);
                // Only the end is missing: after a long chunk it is not copied.
                let is_only_end = looks_ended && walked.missed_bytes == chunked::END_BYTES;
                *followed &= !lost;
                self.extend(writes, walked.taken);
                self.note_pieces(walked.chunks);
                if was_lost && !looks_ended {
                    self.note_sends(writes.sends);
                }
                if let Some(chunks) = &mut self.open.chunks
                    && lost
                    && !is_only_end
                {
                    chunks.lose_count();
                }
                if looks_ended || walked.place == Place::Ended {
                    on_step(Step::Ended(self.end()), None);
                }
                walked.taken
            }
            State::UntilClose => {
                self.extend(writes, left);
                self.note_sends(writes.sends);
                self.generate(visible, left, writes.sends);
                left
            }
            State::Hidden => {
                self.extend(writes, left);
                left
            }
            State::Rest | State::Tunnel => left,
        }
    }

    fn begin(
        &mut self,
        writes: &Writes<'_>,
        head: ResponseHead,
        taken: u64,
        request: Option<Request>,
        on_step: &mut impl FnMut(Step, Option<Request>),
    ) {
        self.open.status = head.status;
        self.open.request_id = head.request_id;
        self.open.early = is_early(request.as_ref());
        self.extend(writes, taken);
        let to_head = request
            .as_ref()
            .is_some_and(|request| request.method == "HEAD");
        let bodiless = to_head || matches!(head.status, 204 | 304);
        let asks = request
            .as_ref()
            .is_some_and(|request| !matches!(&*request.method, "GET" | "HEAD"));
        if asks && !bodiless && head.status < 300 {
            self.open.generation = Generation::of(head.kind, head.is_compressed);
        }
        on_step(Step::Began, request);
        if head.status == 101 {
            let response = self.end();
            self.state = State::Tunnel;
            let step = match head.upgrades_to_http2 {
                true => Step::Switched,
                false if head.upgrades_to_websocket => Step::Session(response),
                false => Step::Upgraded(response),
            };
            on_step(step, None);
            return;
        }
        self.state = match head.body {
            _ if bodiless => State::Body(0),
            Body::Length(length) => State::Body(length),
            Body::Unsaid => State::UntilClose,
            Body::Chunked => State::Chunked {
                walk: ChunkWalk::default(),
                followed: true,
            },
        };
        let framing = match head.body {
            _ if head.kind == Some(BodyKind::Events) => Some(Framing::Events),
            Body::Length(_) => None,
            Body::Chunked => Some(Framing::Chunks),
            Body::Unsaid => Some(Framing::Unsaid),
        };
        let framing = framing.filter(|_| !bodiless);
        self.open.chunks = framing.map(|framing| Box::new(Chunks::new(framing)));
        if self.state == State::Body(0) {
            on_step(Step::Ended(self.end()), None);
        }
    }

    fn extend(&mut self, writes: &Writes<'_>, bytes: u64) {
        self.open.bytes += bytes;
        self.open.undrained_ns = added(self.open.undrained_ns, self.undrained_ns);
        // Of several responses in the same writes, the first one waited.
        self.undrained_ns = self.undrained_ns.map(|_| 0);
        self.open.last_write_ns = Some(writes.end_ns);
    }

    /// Adds the present writes themselves as pieces, if the response may be a streamed one.
    fn note_sends(&mut self, sends: u32) {
        if let Some(chunks) = &mut self.open.chunks {
            match sends {
                0 => {}
                1 => chunks.note(self.piece_ns),
                _ => chunks.note_spread(sends, self.sent_ns),
            }
        }
    }

    /// Adds `bytes` of the body, of which the first are `visible`, to what is generated.
    fn generate(&mut self, visible: &[u8], bytes: u64, sends: u32) {
        if let Some(generation) = &mut self.open.generation {
            if sends > 1 {
                generation.lose_count();
            }
            generation.push(visible, bytes, self.piece_ns);
        }
    }

    /// Adds pieces that one write carries, if the response may be a streamed one.
    fn note_pieces(&mut self, count: u32) {
        if let Some(chunks) = &mut self.open.chunks {
            chunks.note_together(count, self.piece_ns);
        }
    }

    fn end(&mut self) -> Response {
        self.state = State::Between;
        self.take_open()
    }

    fn take_open(&mut self) -> Response {
        if let Some(generation) = &mut self.open.generation {
            generation.finish(self.piece_ns);
        }
        std::mem::replace(&mut self.open, Response::NOT_BEGUN)
    }
}

/// Whether a response that begins now is early for the request that it belongs to.
fn is_early(request: Option<&Request>) -> bool {
    request.is_some_and(|request| !request.complete)
}

#[cfg(test)]
mod tests;
