//! Parses HTTP/2 frames (RFC 9113): turns the bytes of one direction, cut anywhere, into parts of streams.
//!
//! Keeps at most one header block, and nothing of DATA.
//! Does not depend on: what streams are for, times.

#[cfg(test)]
pub(crate) mod encode;
pub mod fields;
mod head;
#[cfg(test)]
mod tests;

use crate::protocol::{
    hpack::{self, Decoder},
    http2::{
        fields::Fields,
        head::{HEAD_LEN, Head, flag, kind},
    },
};

/// What a client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest header block that is followed, and longest SETTINGS, bytes.
const BLOCK_CAP: usize = 256 << 10;
/// Buffer that is kept between two blocks, bytes.
const BLOCK_KEPT: usize = 512;

/// `SETTINGS_HEADER_TABLE_SIZE`
const HEADER_TABLE_SIZE: u16 = 1;

/// Why the bytes cannot be parsed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes that are missing hold a frame's header or a part of a header block.
    Gap,
    /// No such frame is allowed here: the bytes are not HTTP/2, or do not begin with a frame.
    Malformed,
    /// A header block, or SETTINGS, beyond 256 KiB.
    TooLong,
    /// A header block that cannot be decoded.
    Block,
}

impl From<hpack::Invalid> for Fault {
    fn from(_: hpack::Invalid) -> Self {
        Self::Block
    }
}

/// What bytes contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// The first byte of a frame, unless the frame continues a header block.
    Began,
    /// A whole header block; it ends with the present bytes.
    Headers {
        /// Stream.
        stream: u32,
        /// Bytes of its frames.
        bytes: u64,
        /// Whether the stream's direction ends with it.
        ends: bool,
        /// Its wanted fields.
        fields: Fields,
    },
    /// Content of a DATA frame; `None` if it was not copied.
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
        /// Bytes of its content, as far as the padding's length was copied.
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
        /// Last stream of the other side that will be processed; `None` if it was not copied.
        last: Option<u32>,
    },
    /// Size of the other direction's table that SETTINGS allows, bytes; the largest possible if it was not copied.
    TableSize(u32),
}

/// The header block that is being read.
#[derive(Debug, Clone, Copy)]
struct Block {
    stream: u32,
    bytes: u64,
    ends: bool,
    /// Whether it announces a push, which no request asked for.
    pushed: bool,
}

/// The frame payload that is being read.
#[derive(Debug, Clone, Copy)]
struct Payload {
    head: Head,
    /// Bytes of the payload to come.
    left: u32,
    /// DATA: bytes of content to come, before the padding. Anything else: bytes to be collected.
    content: u32,
    /// DATA: whether the length of the padding is still to come.
    pad_due: bool,
    /// DATA: bytes of the padding and its length, as far as that was read.
    padding: u32,
    /// Whether something to be collected was not copied.
    hidden: bool,
}

#[derive(Debug)]
enum State {
    /// In the client's preface, of which so many bytes were read.
    Preface(usize),
    /// In a frame's header, of which so many bytes were read.
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
    /// What is collected: the header block so far, or another frame's payload.
    collected: Vec<u8>,
    block: Option<Block>,
}

impl FrameReader {
    /// Makes a reader of what the client sends. Without the preface, it assumes that a frame begins, midway.
    pub fn client() -> Self {
        Self::new(State::Preface(0))
    }

    /// Makes a reader of what the server sends. Without SETTINGS first, it assumes that another frame begins, midway.
    pub fn server() -> Self {
        Self::new(State::Head([0; HEAD_LEN], 0))
    }

    fn new(state: State) -> Self {
        Self {
            state,
            first: true,
            joined: false,
            fields: Decoder::default(),
            collected: Vec::new(),
            block: None,
        }
    }

    /// Whether it reads a client, and has read no byte.
    pub fn awaits_preface(&self) -> bool {
        matches!(self.state, State::Preface(0))
    }

    /// Records that frames were sent before the first byte.
    pub fn join(&mut self) {
        self.joined = true;
        self.fields.join();
    }

    /// Whether frames were sent before the first byte.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// Processes the other direction's [`Part::TableSize`].
    pub fn allow_table(&mut self, bytes: u32) {
        self.fields.allow(bytes);
    }

    /// Parses bytes. After a fault, later bytes cannot be parsed.
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
                    self.feed_payload(&bytes[..taken], &mut on_part)?;
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Skips bytes that were not copied.
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
                // Without its length, the start of the padding is unknown.
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
            self.check_first(head)?;
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
            self.collected.clear();
        }
        let (content, pad_due) = match head.kind {
            kind::DATA => (head.len, head.has(flag::PADDED)),
            kind::GOAWAY => (8, false),
            kind::SETTINGS => (head.len, false),
            _ if head.has_block() => (head.len, false),
            _ => (0, false),
        };
        let collects = head.kind != kind::DATA;
        if collects && self.collected.len() + content as usize > BLOCK_CAP {
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

    /// Checks the first frame of the connection.
    fn check_first(&mut self, head: Head) -> Result<(), Fault> {
        let opens = head.kind == kind::SETTINGS && !head.has(flag::ACK);
        if !opens {
            self.join();
        }
        // Frames of unknown types must be skipped. But midway, bytes that are no frame mostly look like one of these.
        if self.joined && head.kind > kind::CONTINUATION {
            return Err(Fault::Malformed);
        }
        Ok(())
    }

    /// Parses bytes of the present payload, and no more.
    fn feed_payload(
        &mut self,
        mut bytes: &[u8],
        on_part: &mut impl FnMut(Part<'_>),
    ) -> Result<(), Fault> {
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
            self.collected.extend_from_slice(wanted);
        }
        if payload.left == 0 {
            self.end(on_part)?;
        }
        Ok(())
    }

    /// Ends the present frame.
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
                for setting in self.collected.chunks_exact(6) {
                    if let &[i0, i1, v0, v1, v2, v3] = setting
                        && u16::from_be_bytes([i0, i1]) == HEADER_TABLE_SIZE
                    {
                        on_part(Part::TableSize(u32::from_be_bytes([v0, v1, v2, v3])));
                    }
                }
            }
            kind::GOAWAY => {
                let last = self.collected.first_chunk().filter(|_| !hidden);
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

    /// Removes from a collected frame all but its part of the header block.
    fn strip(&mut self, head: Head) -> Result<(), Fault> {
        let mut start = 0;
        let mut padding = 0;
        if head.has(flag::PADDED) {
            padding = usize::from(*self.collected.first().ok_or(Fault::Malformed)?);
            start += 1;
        }
        if head.kind == kind::PUSH_PROMISE {
            start += 4;
        } else if head.has(flag::PRIORITY) {
            start += 5;
        }
        let end = self.collected.len().checked_sub(padding);
        let end = end.filter(|&end| start <= end).ok_or(Fault::Malformed)?;
        self.collected.truncate(end);
        self.collected.drain(..start);
        Ok(())
    }

    fn end_block(&mut self, on_part: &mut impl FnMut(Part<'_>)) -> Result<(), Fault> {
        let mut fields = Fields::default();
        self.fields
            .read(&self.collected, |field| fields.push(field))?;
        self.collected.clear();
        self.collected.shrink_to(BLOCK_KEPT);
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
