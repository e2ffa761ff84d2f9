//! HTTP/2 frames (RFC 9113): the bytes of one direction of a connection, cut anywhere, as parts of streams.
//!
//! Keeps one header block at most, and of DATA nothing. Which stream is whose, and when, is for others to say.

#[cfg(test)]
pub(crate) mod encode;
mod head;
#[cfg(test)]
mod tests;

use crate::protocol::{
    hpack::{self, Decoder, Field, Name},
    http2::head::{HEAD_LEN, Head, flag, kind},
};

/// What a client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest header block that is followed, and longest SETTINGS, bytes.
const BLOCK_CAP: usize = 16 << 10;
/// Buffer that is kept between two blocks, bytes.
const BLOCK_KEPT: usize = 512;

/// `SETTINGS_HEADER_TABLE_SIZE`
const HEADER_TABLE_SIZE: u16 = 1;

/// Why the bytes cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes that are missing hold a frame's header or a part of a header block.
    Gap,
    /// No such frame may stand here: it is not HTTP/2, or not from a frame's beginning on.
    Malformed,
    /// A header block, or SETTINGS, beyond 16 KiB.
    TooLong,
    /// A header block that cannot be read.
    Block,
}

impl From<hpack::Invalid> for Fault {
    fn from(_: hpack::Invalid) -> Self {
        Self::Block
    }
}

/// The wanted fields of a header block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// `:method`
    pub method: Option<String>,
    /// `:path`, cut at 1024 bytes; non-UTF-8 bytes replaced.
    pub path: Option<String>,
    /// `:status`, 100 to 999.
    pub status: Option<u16>,
    /// `grpc-status`
    pub grpc_status: Option<u32>,
    /// `content-type`
    pub content: Option<Content>,
    /// Whether there is a `content-length`.
    pub has_length: bool,
    /// Whether there are fields that only somebody who was there from the beginning could know.
    pub unknown: bool,
}

impl Fields {
    fn take(&mut self, field: Field<'_>) {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        match field {
            Field::Unknown => self.unknown = true,
            Field::Wanted(Name::Method, value) => self.method = Some(text(value)),
            Field::Wanted(Name::Path, value) => self.path = Some(text(value)),
            Field::Wanted(Name::Status, value) => {
                let status = number(value).and_then(|status| u16::try_from(status).ok());
                self.status = status.filter(|status| (100..1000).contains(status));
            }
            Field::Wanted(Name::GrpcStatus, value) => self.grpc_status = number(value),
            Field::Wanted(Name::ContentType, value) => self.content = Some(Content::of(value)),
            Field::Wanted(Name::ContentLength, _) => self.has_length = true,
        }
    }
}

/// What a `content-type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `application/grpc`, with whatever suffix.
    Grpc,
    /// `text/event-stream`
    Events,
    /// Anything else.
    Other,
}

impl Content {
    fn of(value: &[u8]) -> Self {
        let begins = |kind: &[u8]| {
            value
                .get(..kind.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(kind))
        };
        if begins(b"application/grpc") {
            Self::Grpc
        } else if begins(b"text/event-stream") {
            Self::Events
        } else {
            Self::Other
        }
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Something that bytes brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// The first byte of a frame, unless the frame goes on with a header block.
    Began,
    /// A header block, whole; it ends with the bytes at hand.
    Headers {
        /// Stream.
        stream: u32,
        /// Bytes of its frames.
        bytes: u64,
        /// Whether the stream's direction ends with it.
        ends: bool,
        /// What it says.
        fields: Fields,
    },
    /// Content of a DATA frame, as it comes; `None` where it was not captured.
    Data {
        /// Stream.
        stream: u32,
        /// The content, without padding.
        content: Option<&'a [u8]>,
    },
    /// The end of a DATA frame.
    DataEnd {
        /// Stream.
        stream: u32,
        /// Bytes of the frame.
        bytes: u64,
        /// Bytes of its content, as far as the padding's length was captured.
        content_bytes: u64,
        /// Whether the stream's direction ends with it.
        ends: bool,
    },
    /// RST_STREAM.
    Reset {
        /// Stream.
        stream: u32,
    },
    /// GOAWAY.
    GoAway {
        /// Last stream of the other side that will be looked at; `None` where it was not captured.
        last: Option<u32>,
    },
    /// Size of the table of the other direction, bytes: what SETTINGS says, or might have said where it was not captured.
    TableSize(u32),
}

/// A header block under way.
#[derive(Debug, Clone, Copy)]
struct Block {
    stream: u32,
    bytes: u64,
    ends: bool,
    /// Whether it announces a push: nobody asked for it.
    pushed: bool,
}

/// A frame's payload under way.
#[derive(Debug, Clone, Copy)]
struct Payload {
    head: Head,
    /// Bytes of the payload to come.
    left: u32,
    /// DATA: bytes of content to come, before the padding. Anything else: bytes to be gathered.
    content: u32,
    /// DATA: whether the length of the padding is still to come.
    pad_due: bool,
    /// DATA: bytes of the padding and its length, as far as that came.
    padding: u32,
    /// Whether something to be gathered was not captured.
    hidden: bool,
}

#[derive(Debug)]
enum State {
    /// In the client's preface, so many bytes of which came.
    Preface(usize),
    /// In a frame's header, so many bytes of which came.
    Head([u8; HEAD_LEN], usize),
    Payload(Payload),
}

/// Follows the frames of one direction.
#[derive(Debug)]
pub struct FrameReader {
    state: State,
    /// Before the first frame.
    first: bool,
    joined: bool,
    fields: Decoder,
    /// What is gathered: the header block so far, or another frame's payload.
    gathered: Vec<u8>,
    block: Option<Block>,
}

impl FrameReader {
    /// What the client sends. Without the preface, the connection is taken to be joined at the beginning of a frame.
    pub fn client() -> Self {
        Self::new(State::Preface(0))
    }

    /// What the server sends. If it does not begin with SETTINGS, it is taken to be joined at the beginning of a frame.
    pub fn server() -> Self {
        Self::new(State::Head([0; HEAD_LEN], 0))
    }

    fn new(state: State) -> Self {
        Self {
            state,
            first: true,
            joined: false,
            fields: Decoder::default(),
            gathered: Vec::new(),
            block: None,
        }
    }

    /// Whether it is a client's and no byte of it came.
    pub fn awaits_preface(&self) -> bool {
        matches!(self.state, State::Preface(0))
    }

    /// Says that frames went by before the first byte.
    pub fn join(&mut self) {
        self.joined = true;
        self.fields.join();
    }

    /// Whether frames went by before the first byte.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// Takes in the other direction's [`Part::TableSize`].
    pub fn allow_table(&mut self, bytes: u32) {
        self.fields.allow(bytes);
    }

    /// Takes in bytes. After a fault, nothing can be made of what follows.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_part: impl FnMut(Part<'_>),
    ) -> Result<(), Fault> {
        while let Some(&first) = bytes.first() {
            let taken = match &mut self.state {
                State::Preface(0) if first != PREFACE[0] => {
                    self.join();
                    self.state = State::Head([0; HEAD_LEN], 0);
                    0
                }
                State::Preface(matched) if first != PREFACE[*matched] => {
                    return Err(Fault::Malformed);
                }
                State::Preface(matched) => {
                    *matched += 1;
                    if *matched == PREFACE.len() {
                        self.state = State::Head([0; HEAD_LEN], 0);
                    }
                    1
                }
                State::Head(head, len) => {
                    if *len == 0 && self.block.is_none() {
                        on_part(Part::Began);
                    }
                    let taken = bytes.len().min(HEAD_LEN - *len);
                    head[*len..*len + taken].copy_from_slice(&bytes[..taken]);
                    *len += taken;
                    if *len == HEAD_LEN {
                        let head = Head::parse(*head);
                        self.begin(head, &mut on_part)?;
                    }
                    taken
                }
                State::Payload(payload) => {
                    let taken = bytes.len().min(payload.left as usize);
                    self.take(&bytes[..taken], &mut on_part)?;
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Passes over bytes that were not captured.
    pub fn skip(&mut self, bytes: u64, mut on_part: impl FnMut(Part<'_>)) -> Result<(), Fault> {
        let mut left = bytes;
        while left > 0 {
            let State::Payload(payload) = &mut self.state else {
                return Err(Fault::Gap);
            };
            if payload.head.has_block() {
                return Err(Fault::Gap);
            }
            // No more than `payload.left`, which is a `u32`.
            let taken = left.min(payload.left.into()) as u32;
            if payload.head.kind == kind::DATA {
                let stream = payload.head.stream;
                on_part(Part::Data {
                    stream,
                    content: None,
                });
                // Where the padding begins is not known without its length.
                let known = if payload.pad_due { 0 } else { payload.content };
                payload.pad_due = false;
                payload.content = known.saturating_sub(taken);
            } else {
                payload.hidden |= payload.content > 0;
                payload.content = 0;
            }
            payload.left -= taken;
            if payload.left == 0 {
                self.end(&mut on_part)?;
            }
            left -= u64::from(taken);
        }
        Ok(())
    }

    /// Begins the payload of a frame.
    fn begin(&mut self, head: Head, on_part: &mut impl FnMut(Part<'_>)) -> Result<(), Fault> {
        if self.first {
            self.first = false;
            self.meet(head)?;
        }
        let continues = head.kind == kind::CONTINUATION;
        let in_place = match &self.block {
            Some(block) => continues && head.stream == block.stream,
            None => !continues,
        };
        if !in_place || !head.is_sound() {
            return Err(Fault::Malformed);
        }
        if !continues {
            self.gathered.clear();
        }
        let (content, pad_due) = match head.kind {
            kind::DATA => (head.len, head.has(flag::PADDED)),
            kind::GOAWAY => (8, false),
            kind::SETTINGS => (head.len, false),
            _ if head.has_block() => (head.len, false),
            _ => (0, false),
        };
        let gathers = head.kind != kind::DATA;
        if gathers && self.gathered.len() + content as usize > BLOCK_CAP {
            return Err(Fault::TooLong);
        }
        self.state = State::Payload(Payload {
            head,
            left: head.len,
            content,
            pad_due,
            padding: 0,
            hidden: false,
        });
        if head.len == 0 {
            self.end(on_part)?;
        }
        Ok(())
    }

    /// Looks at the first frame of all.
    fn meet(&mut self, head: Head) -> Result<(), Fault> {
        let opens = head.kind == kind::SETTINGS && !head.has(flag::ACK);
        if !opens {
            self.join();
        }
        // Frames of unknown types are to be passed over, but where there was no beginning, bytes that are no frame look
        // like one sooner than not.
        if self.joined && head.kind > kind::CONTINUATION {
            return Err(Fault::Malformed);
        }
        Ok(())
    }

    /// Takes in bytes of the payload under way, and no more.
    fn take(&mut self, mut bytes: &[u8], on_part: &mut impl FnMut(Part<'_>)) -> Result<(), Fault> {
        let State::Payload(payload) = &mut self.state else {
            return Ok(());
        };
        // No longer than `payload.left`, which is a `u32`.
        payload.left -= bytes.len() as u32;
        if let Some((&padding, rest)) = bytes.split_first()
            && payload.pad_due
        {
            payload.pad_due = false;
            payload.padding = u32::from(padding) + 1;
            payload.content = (payload.head.len - 1)
                .checked_sub(padding.into())
                .ok_or(Fault::Malformed)?;
            bytes = rest;
        }
        let wanted = &bytes[..bytes.len().min(payload.content as usize)];
        payload.content -= wanted.len() as u32;
        if payload.head.kind == kind::DATA {
            if !wanted.is_empty() {
                on_part(Part::Data {
                    stream: payload.head.stream,
                    content: Some(wanted),
                });
            }
        } else {
            self.gathered.extend_from_slice(wanted);
        }
        if payload.left == 0 {
            self.end(on_part)?;
        }
        Ok(())
    }

    /// Ends the frame under way.
    fn end(&mut self, on_part: &mut impl FnMut(Part<'_>)) -> Result<(), Fault> {
        let before = std::mem::replace(&mut self.state, State::Head([0; HEAD_LEN], 0));
        let State::Payload(Payload {
            head,
            hidden,
            padding,
            ..
        }) = before
        else {
            return Ok(());
        };
        let stream = head.stream;
        match head.kind {
            kind::DATA if head.has(flag::PADDED) && head.len == 0 => return Err(Fault::Malformed),
            kind::DATA => on_part(Part::DataEnd {
                stream,
                bytes: head.bytes(),
                content_bytes: u64::from(head.len.saturating_sub(padding)),
                ends: head.has(flag::END_STREAM),
            }),
            kind::HEADERS | kind::PUSH_PROMISE => {
                self.strip(head)?;
                self.block = Some(Block {
                    stream,
                    bytes: head.bytes(),
                    ends: head.kind == kind::HEADERS && head.has(flag::END_STREAM),
                    pushed: head.kind == kind::PUSH_PROMISE,
                });
            }
            kind::CONTINUATION => {
                if let Some(block) = &mut self.block {
                    block.bytes += head.bytes();
                }
            }
            kind::RST_STREAM => on_part(Part::Reset { stream }),
            kind::SETTINGS if hidden => on_part(Part::TableSize(u32::MAX)),
            kind::SETTINGS => {
                for setting in self.gathered.chunks_exact(6) {
                    if let &[i0, i1, v0, v1, v2, v3] = setting
                        && u16::from_be_bytes([i0, i1]) == HEADER_TABLE_SIZE
                    {
                        on_part(Part::TableSize(u32::from_be_bytes([v0, v1, v2, v3])));
                    }
                }
            }
            kind::GOAWAY => {
                let last = self.gathered.first_chunk().filter(|_| !hidden);
                on_part(Part::GoAway {
                    last: last.map(|&last| u32::from_be_bytes(last) & 0x7fff_ffff),
                });
            }
            _ => {}
        }
        if head.has_block() && head.has(flag::END_HEADERS) {
            self.end_block(on_part)?;
        }
        Ok(())
    }

    /// Leaves of a gathered frame its part of the header block.
    fn strip(&mut self, head: Head) -> Result<(), Fault> {
        let mut start = 0;
        let mut padding = 0;
        if head.has(flag::PADDED) {
            padding = usize::from(*self.gathered.first().ok_or(Fault::Malformed)?);
            start += 1;
        }
        if head.kind == kind::PUSH_PROMISE {
            start += 4;
        } else if head.has(flag::PRIORITY) {
            start += 5;
        }
        let end = self.gathered.len().checked_sub(padding);
        let end = end.filter(|&end| start <= end).ok_or(Fault::Malformed)?;
        self.gathered.truncate(end);
        self.gathered.drain(..start);
        Ok(())
    }

    fn end_block(&mut self, on_part: &mut impl FnMut(Part<'_>)) -> Result<(), Fault> {
        let mut fields = Fields::default();
        self.fields
            .read(&self.gathered, |field| fields.take(field))?;
        self.gathered.clear();
        self.gathered.shrink_to(BLOCK_KEPT);
        let Some(block) = self.block.take().filter(|block| !block.pushed) else {
            return Ok(());
        };
        on_part(Part::Headers {
            stream: block.stream,
            bytes: block.bytes,
            ends: block.ends,
            fields,
        });
        Ok(())
    }
}
