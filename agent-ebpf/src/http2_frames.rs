//! Follows the frames of an HTTP/2 connection, and decides which of their bytes are copied into records.
//!
//! The program skips the other bytes. The agent moves the same cursor over the records, and so knows what was skipped.
//! Does not depend on: anything of a frame but its length and type (RFC 9113, section 4.1).

/// Bytes of a frame's header.
const HEAD_LEN: u8 = 9;
/// Bytes of the preface, which a client sends first.
const PREFACE_LEN: u32 = 24;
/// `DATA`
const DATA: u8 = 0;
/// `CONTINUATION`, the highest type of the standard.
const LAST_KIND: u8 = 9;
/// Bytes of a request's DATA frame that are copied: the message that names the model begins there.
pub const REQUEST_DATA_KEPT: u32 = 256;
/// As [`REQUEST_DATA_KEPT`], for responses: the headers of gRPC messages that are sent in one frame are there.
pub const RESPONSE_DATA_KEPT: u32 = 64;

/// Position in the frames of one direction.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCursor {
    /// Bytes left of the payload; 0: in a header.
    left: u32,
    /// How many of them, from here on, are copied.
    keep: u32,
    /// The header's first four bytes, length and type, as far as they are known.
    start: u32,
    /// Bytes of the header that are known.
    head: u8,
    reserved: [u8; 3],
}

impl FrameCursor {
    /// Before the first frame: a server's direction begins here.
    pub const START: Self = Self {
        left: 0,
        keep: 0,
        start: 0,
        head: 0,
        reserved: [0; 3],
    };

    /// Before the preface: a client's direction begins here.
    pub const BEFORE_PREFACE: Self = Self::with_frames_after(PREFACE_LEN);

    /// Returns a cursor before `bytes` bytes that are copied, with the first frame after them.
    #[inline(always)]
    pub const fn with_frames_after(bytes: u32) -> Self {
        Self {
            left: bytes,
            keep: bytes,
            ..Self::START
        }
    }

    /// Returns a cursor in bytes without frames, the next `kept` of which are to be copied.
    pub const fn copying(kept: u32) -> Self {
        Self {
            left: u32::MAX,
            keep: kept,
            ..Self::START
        }
    }

    /// Whether the next byte is part of a header.
    #[inline(always)]
    pub const fn is_in_head(&self) -> bool {
        self.left == 0
    }

    /// Returns how many bytes from here on are copied; if 0, [`FrameCursor::skips`] says how many are not.
    #[inline(always)]
    pub const fn keeps(&self) -> u32 {
        if self.left == 0 {
            (HEAD_LEN - self.head) as u32
        } else {
            self.keep
        }
    }

    /// Returns how many bytes from here on are not copied.
    #[inline(always)]
    pub const fn skips(&self) -> u32 {
        if self.keep == 0 { self.left } else { 0 }
    }

    /// Whether the next byte is the first of a header.
    #[inline(always)]
    pub const fn is_before_head(&self) -> bool {
        self.left == 0 && self.head == 0
    }

    /// Advances by one byte of a header; of DATA, `data_kept` bytes are to be copied.
    #[inline(always)]
    pub const fn on_head(&mut self, byte: u8, data_kept: u32) {
        // Length and type are the first four bytes, the oldest of them highest.
        if self.head < 4 {
            self.start = self.start << 8 | byte as u32;
        }
        self.head += 1;
        if self.head >= HEAD_LEN {
            self.on_whole_head(self.start, data_kept);
        }
    }

    /// Advances by a header whose first four bytes are `start`, big-endian; of DATA, `data_kept` bytes are to be
    /// copied.
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

    /// Advances by `bytes` of a payload: at most [`FrameCursor::keeps`], or [`FrameCursor::skips`].
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

    /// Returns what is copied of `bytes`, in transfers of `step` bytes.
    fn copied(mut cursor: FrameCursor, bytes: &[u8], step: usize) -> Vec<u8> {
        let mut copied = vec![];
        for transfer in bytes.chunks(step) {
            let mut rest = transfer;
            while !rest.is_empty() {
                let kept = usize::try_from(cursor.keeps()).unwrap().min(rest.len());
                let advance = match kept {
                    0 => usize::try_from(cursor.skips()).unwrap().min(rest.len()),
                    kept => kept,
                };
                copied.extend(&rest[..kept]);
                if cursor.is_in_head() {
                    for &byte in &rest[..kept] {
                        cursor.on_head(byte, REQUEST_DATA_KEPT);
                    }
                } else {
                    cursor.on_payload(u32::try_from(advance).unwrap());
                }
                rest = &rest[advance..];
            }
        }
        copied
    }

    #[test]
    fn headers_are_copied_whole_and_data_up_to_its_limit() {
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
            let found = copied(FrameCursor::BEFORE_PREFACE, &frames, step);
            assert!(found == expected, "in transfers of {step}");
        }
    }

    #[test]
    fn a_server_begins_with_a_frame() {
        let frames = [frame(4, &[1; 6]), frame(1, &[2; 5])].concat();
        assert_eq!(copied(FrameCursor::START, &frames, 3), frames);
    }
}
