//! Where the frames of an HTTP/2 connection begin, and which of their bytes are carried up: the same walk in the kernel,
//! which skips the rest, and in the agent, which so knows what was skipped.
//!
//! Knows a frame's length and type, and nothing else of it (RFC 9113, section 4.1).

/// Bytes of a frame's header.
const HEAD_LEN: u8 = 9;
/// Bytes of the preface that a client sends first.
const PREFACE_LEN: u32 = 24;
/// `DATA`
const DATA: u8 = 0;
/// `CONTINUATION`, the last type that the standard has.
const LAST_KIND: u8 = 9;
/// Bytes of a DATA frame that are carried in the requests' direction: the message that names the model begins there.
pub const REQUEST_DATA_KEPT: u32 = 256;
/// As [`REQUEST_DATA_KEPT`], in the answers' direction: where messages of gRPC begin that are sent in one frame.
pub const ANSWER_DATA_KEPT: u32 = 64;

/// Where one direction of a connection stands.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCursor {
    /// Bytes of the payload to come; 0: in a header.
    left: u32,
    /// Of these, how many from here on are carried.
    keep: u32,
    /// The header's first four bytes, length and type, as far as they came.
    start: u32,
    /// Bytes of the header that came.
    head: u8,
    reserved: [u8; 3],
}

impl FrameCursor {
    /// Before the first frame: what a server sends begins so.
    pub const START: Self = Self {
        left: 0,
        keep: 0,
        start: 0,
        head: 0,
        reserved: [0; 3],
    };

    /// Before the preface of a client.
    pub const BEFORE_PREFACE: Self = Self::behind(PREFACE_LEN);

    /// Before `bytes` bytes that are carried, and the first frame behind them.
    #[inline(always)]
    pub const fn behind(bytes: u32) -> Self {
        Self {
            left: bytes,
            keep: bytes,
            ..Self::START
        }
    }

    /// In bytes that have no frames, of which the next `kept` are to be carried.
    pub const fn copying(kept: u32) -> Self {
        Self {
            left: u32::MAX,
            keep: kept,
            ..Self::START
        }
    }

    /// Whether the next byte is one of a header.
    #[inline(always)]
    pub const fn is_in_head(&self) -> bool {
        self.left == 0
    }

    /// Bytes from here on that are carried; 0: [`FrameCursor::skips`] tells how many are not.
    #[inline(always)]
    pub const fn keeps(&self) -> u32 {
        if self.left == 0 {
            (HEAD_LEN - self.head) as u32
        } else {
            self.keep
        }
    }

    /// Bytes from here on that are not carried.
    #[inline(always)]
    pub const fn skips(&self) -> u32 {
        if self.keep == 0 { self.left } else { 0 }
    }

    /// Whether a whole header comes next.
    #[inline(always)]
    pub const fn is_before_head(&self) -> bool {
        self.left == 0 && self.head == 0
    }

    /// Takes the next byte of a header; of DATA, `data_kept` bytes are to be carried.
    #[inline(always)]
    pub const fn on_head(&mut self, byte: u8, data_kept: u32) {
        // Length, type, and the rest: the oldest of the first four bytes stands highest.
        if self.head < 4 {
            self.start = self.start << 8 | byte as u32;
        }
        self.head += 1;
        if self.head >= HEAD_LEN {
            self.on_whole_head(self.start, data_kept);
        }
    }

    /// Takes a header whose first four bytes are `start`, big-endian; of DATA, `data_kept` bytes are to be carried.
    #[inline(always)]
    pub const fn on_whole_head(&mut self, start: u32, data_kept: u32) {
        let most = match start as u8 {
            DATA => data_kept,
            1..=LAST_KIND => u32::MAX,
            _ => 0,
        };
        let length = start >> 8;
        self.left = length;
        self.keep = if length < most { length } else { most };
        self.start = 0;
        self.head = 0;
    }

    /// Takes `bytes` of a payload, at most [`FrameCursor::keeps`] of them, or [`FrameCursor::skips`].
    #[inline(always)]
    pub const fn on_payload(&mut self, bytes: u32) {
        self.left = self.left.saturating_sub(bytes);
        self.keep = self.keep.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, 0, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    /// What is carried of `bytes`, in transfers of `step` bytes.
    fn carried(mut walk: FrameCursor, bytes: &[u8], step: usize) -> Vec<u8> {
        let mut carried = vec![];
        for transfer in bytes.chunks(step) {
            let mut rest = transfer;
            while !rest.is_empty() {
                let kept = usize::try_from(walk.keeps()).unwrap().min(rest.len());
                let taken = match kept {
                    0 => usize::try_from(walk.skips()).unwrap().min(rest.len()),
                    kept => kept,
                };
                carried.extend(&rest[..kept]);
                if walk.is_in_head() {
                    for &byte in &rest[..kept] {
                        walk.on_head(byte, REQUEST_DATA_KEPT);
                    }
                } else {
                    walk.on_payload(u32::try_from(taken).unwrap());
                }
                rest = &rest[taken..];
            }
        }
        carried
    }

    #[test]
    fn headers_are_carried_whole_and_of_data_the_beginning() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let block = [7; 3_000];
        let data = [8; 20_000];
        let frames = [
            &preface[..],
            &frame(4, &[]),
            &frame(1, &block),
            &frame(DATA, &data),
            &frame(DATA, &[]),
            &frame(77, &data),
            &frame(9, &block),
        ]
        .concat();
        let expected = [
            &preface[..],
            &frame(4, &[]),
            &frame(1, &block),
            &frame(DATA, &data)[..9 + 256],
            &frame(DATA, &[]),
            &frame(77, &data)[..9],
            &frame(9, &block),
        ]
        .concat();
        for step in [1, 2, 8, 9, 10, 100, 4_096, frames.len()] {
            let found = carried(FrameCursor::BEFORE_PREFACE, &frames, step);
            assert!(found == expected, "in transfers of {step}");
        }
    }

    #[test]
    fn a_server_begins_with_a_frame() {
        let frames = [frame(4, &[1; 6]), frame(1, &[2; 5])].concat();
        assert_eq!(carried(FrameCursor::START, &frames, 3), frames);
    }
}
