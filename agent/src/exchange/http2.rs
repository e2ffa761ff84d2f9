//! One HTTP/2 connection, seen from the server: requests and answers, paired by stream.
//!
//! Each record brings one read, one write, or both: its times are the times of all that lies in them. Where frames begin
//! is `protocol::http2`'s to know.

use std::collections::BTreeMap;

use inferprobe_ebpf::{
    abi::{Record, kind},
    walk::{ANSWER_DATA_KEPT, REQUEST_DATA_KEPT, Walk},
};

use crate::{
    exchange::{
        Answer, Loss, Outcome, Peer, Request, Unfinished, answers::Writes, connection::pair,
        requests::Reads,
    },
    kernel::rings::RecordView,
    protocol::{
        grpc::{self, MESSAGE_CAP},
        http2::{Fault, Fields, FrameReader, Part},
    },
};

#[cfg(test)]
mod tests;

/// Streams that may be open on one connection; more are given up, oldest first.
const OPEN_CAP: usize = 1024;

/// What is known of one connection.
#[derive(Debug)]
pub struct Http2Connection {
    peer: Peer,
    seq: u32,
    written_bytes: u64,
    /// Time of the latest record, ns.
    pub latest_ns: u64,
    /// `None` once a direction could not be followed.
    frames: Option<Frames>,
    streams: Streams,
}

/// Both directions.
#[derive(Debug)]
struct Frames {
    requests: Direction,
    answers: Direction,
}

impl Http2Connection {
    /// A connection of which `record` is the first sign. If its first read is not a client's preface, it is taken to be
    /// joined at the beginning of a frame.
    pub fn new(record: &Record, peer: Peer) -> Self {
        Self {
            peer,
            seq: record.seq.wrapping_sub(1),
            written_bytes: 0,
            latest_ns: 0,
            frames: Some(Frames {
                requests: Direction {
                    frames: FrameReader::client(),
                    walk: Walk::BEFORE_PREFACE,
                    data_kept: REQUEST_DATA_KEPT,
                },
                answers: Direction {
                    frames: FrameReader::server(),
                    walk: Walk::START,
                    data_kept: ANSWER_DATA_KEPT,
                },
            }),
            streams: Streams::default(),
        }
    }

    /// Takes in a record; returns whether the connection goes on.
    pub fn take(&mut self, view: &RecordView<'_>, out: &mut Vec<Outcome>) -> bool {
        let record = &view.record;
        if record.seq != self.seq.wrapping_add(1) {
            out.push(Outcome::Lost(Loss::Resynchronised));
            self.lose(out);
        }
        self.seq = record.seq;
        self.peer.tgid = record.tgid;
        self.latest_ns = record.last_write_ns.max(record.last_read_ns);
        match record.kind {
            kind::READ => self.reads(&Reads::of(view), out),
            kind::EXCHANGE => {
                self.reads(&Reads::of(view), out);
                self.writes(&Writes::of(view, 0), out);
            }
            kind::PROGRESS => self.writes(&Writes::of(view, self.written_bytes), out),
            _ => {
                self.close(Unfinished::Unanswered, out);
                return false;
            }
        }
        self.written_bytes = record.written_bytes;
        true
    }

    /// Takes in a read.
    fn reads(&mut self, reads: &Reads<'_>, out: &mut Vec<Outcome>) {
        if reads.bytes == 0 {
            return;
        }
        let Some(Frames { requests, answers }) = &mut self.frames else {
            out.push(Outcome::Lost(Loss::Http2Unfollowed));
            return;
        };
        let (peer, streams) = (self.peer, &mut self.streams);
        streams.crowded = false;
        let mut allowed = None;
        let followed = requests.follow(reads.visible, reads.bytes, |part| match part {
            Part::TableSize(bytes) => allowed = Some(bytes),
            part => streams.read(part, reads, peer, out),
        });
        if let Some(bytes) = allowed {
            answers.frames.allow_table(bytes);
        }
        if requests.frames.is_joined() {
            answers.frames.join();
        }
        self.check(followed, out);
    }

    /// Takes in a write.
    fn writes(&mut self, writes: &Writes<'_>, out: &mut Vec<Outcome>) {
        let Some(Frames { requests, answers }) = &mut self.frames else {
            return;
        };
        let (peer, streams) = (self.peer, &mut self.streams);
        let mut allowed = None;
        let followed = answers.follow(writes.visible, writes.bytes, |part| match part {
            Part::TableSize(bytes) => allowed = Some(bytes),
            part => streams.write(part, writes, peer, out),
        });
        if answers.frames.is_joined() {
            // Its SETTINGS were not seen.
            allowed = Some(u32::MAX);
        }
        if let Some(bytes) = allowed {
            requests.frames.allow_table(bytes);
        }
        self.check(followed, out);
    }

    /// Gives the connection up, since records of it are missing.
    fn lose(&mut self, out: &mut Vec<Outcome>) {
        if self.frames.take().is_some() {
            out.push(Outcome::Lost(Loss::Http2Unfollowed));
        }
        for _ in std::mem::take(&mut self.streams.open) {
            out.push(Outcome::Unfinished(Unfinished::LostRecords));
        }
    }

    /// Ends the connection, and the requests that are open: complete ones for `complete_reason`.
    pub fn close(&mut self, complete_reason: Unfinished, out: &mut Vec<Outcome>) {
        for stream in std::mem::take(&mut self.streams.open).into_values() {
            stream.give_up(complete_reason, self.peer, out);
        }
    }

    /// Whether no request is open.
    pub fn is_idle(&self) -> bool {
        self.streams.open.is_empty()
    }

    fn check(&mut self, followed: Result<(), Fault>, out: &mut Vec<Outcome>) {
        if followed.is_err() {
            self.lose(out);
        }
    }
}

/// One direction: its frames, and which of their bytes are here.
#[derive(Debug)]
struct Direction {
    frames: FrameReader,
    walk: Walk,
    data_kept: u32,
}

impl Direction {
    /// Takes in `bytes` bytes, of which the walk carried `visible` up, and left out the others.
    fn follow(
        &mut self,
        mut visible: &[u8],
        bytes: u64,
        mut on_part: impl FnMut(Part<'_>),
    ) -> Result<(), Fault> {
        let mut left = bytes;
        while left > 0 {
            let here = |most: u32| u64::from(most).min(left);
            let kept = here(self.walk.keeps());
            if kept == 0 {
                let skipped = here(self.walk.skips());
                self.frames.skip(skipped, &mut on_part)?;
                // Both are at most what the walk says, which is a `u32`.
                self.walk.on_payload(skipped as u32);
                left -= skipped;
                continue;
            }
            // What the walk could not carry any more is missing.
            let (carried, rest) = visible.split_at_checked(kept as usize).ok_or(Fault::Gap)?;
            self.frames.feed(carried, &mut on_part)?;
            if self.walk.is_in_head() {
                for &byte in carried {
                    self.walk.on_head(byte, self.data_kept);
                }
            } else {
                self.walk.on_payload(kept as u32);
            }
            visible = rest;
            left -= kept;
        }
        Ok(())
    }
}

/// A request that is not answered to the end.
#[derive(Debug)]
struct Stream {
    request: Request,
    answer: Option<Answer>,
    /// First bytes of the request's content.
    content: Vec<u8>,
    /// Whether `content` ends before a hole.
    cut: bool,
}

/// The open streams, and what it takes to begin the next.
#[derive(Debug, Default)]
struct Streams {
    /// By number: older streams have lower ones.
    open: BTreeMap<u32, Stream>,
    /// Lowest and highest stream whose request was seen; `None` before the first.
    seen: Option<(u32, u32)>,
    next_index: u32,
    /// Arrival and time of the read that brought the first byte of the latest frame read.
    read_began: (Option<u64>, u64),
    /// Start of the write that brought the first byte of the latest frame written, and whether that is an upper bound.
    write_began: (u64, bool),
    /// Whether bytes of a request were in the read at hand before.
    crowded: bool,
}

impl Streams {
    fn read(&mut self, part: Part<'_>, reads: &Reads<'_>, peer: Peer, out: &mut Vec<Outcome>) {
        match part {
            Part::Began => {
                // Of a request behind another in one read, the read's arrival is not its own.
                let arrival_ns = reads.arrival_ns.filter(|_| !self.crowded);
                self.read_began = (arrival_ns, reads.first_ns);
            }
            Part::Headers {
                stream,
                bytes,
                ends,
                fields,
            } => {
                self.crowded = true;
                if !self.open.contains_key(&stream) {
                    self.begin(stream, fields, out);
                }
                self.extend(stream, reads, bytes, ends);
            }
            Part::Data { stream, content } => {
                self.crowded = true;
                if let Some(open) = self.open.get_mut(&stream) {
                    open.request.last_read_ns = reads.last_ns;
                    open.keep(content);
                }
            }
            Part::DataEnd {
                stream,
                bytes,
                ends,
            } => {
                self.crowded = true;
                self.extend(stream, reads, bytes, ends);
            }
            Part::Reset { stream } => self.give_up(stream, peer, out),
            // What a client refuses is pushes.
            Part::GoAway { .. } | Part::TableSize(_) => {}
        }
    }

    /// Begins a request, if that is what the fields are: not trailers, nor what follows a request that was given up.
    fn begin(&mut self, stream: u32, fields: Fields, out: &mut Vec<Outcome>) {
        let follows = self.seen.is_none_or(|(_, newest)| stream > newest);
        let asks = fields.method.is_some() || fields.unknown;
        if !follows || !asks || stream.is_multiple_of(2) {
            return;
        }
        if fields.path.is_none() && fields.unknown {
            out.push(Outcome::Lost(Loss::HeadUnseen));
        }
        let (arrival_ns, first_read_ns) = self.read_began;
        let request = Request {
            index: self.next_index,
            method: fields.method.unwrap_or_default(),
            target: fields.path.unwrap_or_default(),
            arrival_ns,
            first_read_ns,
            last_read_ns: first_read_ns,
            bytes: 0,
            complete: false,
            named: None,
        };
        self.next_index = self.next_index.wrapping_add(1);
        self.seen = Some((self.seen.map_or(stream, |(oldest, _)| oldest), stream));
        let opened = Stream {
            request,
            answer: None,
            content: Vec::new(),
            cut: false,
        };
        self.open.insert(stream, opened);
        if self.open.len() > OPEN_CAP && self.open.pop_first().is_some() {
            out.push(Outcome::Unfinished(Unfinished::Evicted));
        }
    }

    fn extend(&mut self, stream: u32, reads: &Reads<'_>, bytes: u64, ends: bool) {
        if let Some(Stream { request, .. }) = self.open.get_mut(&stream) {
            request.bytes += bytes;
            request.last_read_ns = reads.last_ns;
            request.complete |= ends;
        }
    }

    fn write(&mut self, part: Part<'_>, writes: &Writes<'_>, peer: Peer, out: &mut Vec<Outcome>) {
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
                self.answer(stream, &fields);
                (stream, bytes, ends)
            }
            Part::DataEnd {
                stream,
                bytes,
                ends,
            } => (stream, bytes, ends),
            Part::Reset { stream } => return self.give_up(stream, peer, out),
            Part::GoAway { last } => {
                let refused = self
                    .open
                    .split_off(&last.unwrap_or(u32::MAX).saturating_add(1));
                let reset = Outcome::Unfinished(Unfinished::Reset);
                out.extend(refused.iter().map(|_| reset.clone()));
                return;
            }
            Part::Data { .. } | Part::TableSize(_) => return,
        };
        let Some(open) = self.open.get_mut(&stream) else {
            // Streams that were seen and are not open any more are told already.
            let unseen = self.seen.is_none_or(|(oldest, _)| stream < oldest);
            let pushed = stream.is_multiple_of(2);
            if ends && unseen && !pushed {
                out.push(Outcome::Lost(Loss::AnswerWithoutRequest));
            }
            return;
        };
        if let Some(answer) = &mut open.answer {
            answer.bytes += bytes;
            answer.last_write_ns = ends.then_some(writes.end_ns);
            if ends {
                out.extend(self.finish(stream, peer));
            }
        }
    }

    /// Takes in the head or the trailers of an answer.
    fn answer(&mut self, stream: u32, fields: &Fields) {
        let (first_write_ns, first_write_bounded) = self.write_began;
        if let Some(open) = self.open.get_mut(&stream) {
            let answer = open.answer.get_or_insert(Answer {
                status: fields.status.unwrap_or(0),
                first_write_ns,
                first_write_bounded,
                last_write_ns: None,
                bytes: 0,
                request_id: None,
                grpc_status: None,
                chunks: None,
            });
            answer.grpc_status = fields.grpc_status.or(answer.grpc_status);
        }
    }

    fn finish(&mut self, stream: u32, peer: Peer) -> Option<Outcome> {
        let (request, answer) = self.open.remove(&stream)?.named();
        Some(pair(peer, Some(request), answer?))
    }

    /// Ends a stream that one of the two sides reset.
    fn give_up(&mut self, stream: u32, peer: Peer, out: &mut Vec<Outcome>) {
        if let Some(stream) = self.open.remove(&stream) {
            stream.give_up(Unfinished::Reset, peer, out);
        }
    }
}

impl Stream {
    /// The request, with the model that its content names, and the answer so far.
    fn named(self) -> (Request, Option<Answer>) {
        let named = grpc::model_of(&self.request.target, &self.content);
        let request = Request {
            named: named.map(Box::new),
            ..self.request
        };
        (request, self.answer)
    }

    /// Tells that nobody will see the answer's end: of a request that was read whole, for `complete_reason`.
    fn give_up(self, complete_reason: Unfinished, peer: Peer, out: &mut Vec<Outcome>) {
        if !self.request.complete {
            out.push(Outcome::Unfinished(Unfinished::Incomplete));
            return;
        }
        out.push(Outcome::Unfinished(complete_reason));
        if matches!(complete_reason, Unfinished::Reset | Unfinished::Unanswered) {
            let (request, _) = self.named();
            out.push(Outcome::Abandoned(peer, request));
        }
    }

    /// Keeps content as far as it is of use: none follows behind a hole.
    fn keep(&mut self, content: Option<&[u8]>) {
        let Some(content) = content else {
            self.cut = true;
            return;
        };
        if !self.cut {
            let room = MESSAGE_CAP - self.content.len();
            let kept = &content[..content.len().min(room)];
            self.content.extend_from_slice(kept);
        }
    }
}
