//! Follows the frames of an HTTP/2 connection, and decides which of their bytes are copied into records.
//!
//! The program skips the other bytes. The agent moves the same cursor over the records, and so knows what was skipped.
//! `tls_records` moves it over the records of TLS.
//! Does not depend on: anything of a frame but its length and type (RFC 9113, section 4.1).

/// Bytes of a frame's header.
const HEAD_LEN: u8 = 9;
/// Bytes of the header of a TLS record.
pub const RECORD_HEAD_LEN: u8 = 5;
/// Bytes of the preface, which a client sends first.
const PREFACE_LEN: u32 = 24;
/// `DATA`
const DATA: u8 = 0;
/// `HEADERS`
const HEADERS: u8 = 1;
/// `CONTINUATION`, the highest type of the standard.
const LAST_KIND: u8 = 9;
/// Highest first byte of a gRPC message: whether it is compressed.
const LAST_MESSAGE_FLAG: u8 = 1;
/// Bytes of the first DATA frame after a request's HEADERS that are copied: the message that names the model begins
/// there, and may be compressed.
const FIRST_DATA_KEPT: u32 = 1024;

/// Which bytes of one direction's DATA frames are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataKept {
    /// First bytes of each frame.
    pub start: u32,
    /// Bytes of a body after its HEADERS, unless it is of gRPC messages, whose first bytes suffice.
    pub body: u32,
    /// First and last bytes of each frame of a body that is not of gRPC messages; a frame of up to four times as many is
    /// copied whole. 0: as `start` says.
    pub plain: u16,
}

impl DataKept {
    /// Of responses: the headers of gRPC messages that are sent in one frame are in the first bytes, events and the end of
    /// JSON in those of other bodies.
    pub const RESPONSES: Self = Self {
        start: 64,
        body: 0,
        plain: 1024,
    };

    /// Of requests, whose bodies are copied up to `body` bytes.
    pub const fn requests(body: u32) -> Self {
        Self {
            start: 256,
            body,
            plain: 0,
        }
    }
}

/// Values of `FrameCursor::first`.
mod first {
    /// The next DATA frame is not the first after HEADERS.
    pub(super) const OVER: u8 = 0;
    /// HEADERS came last.
    pub(super) const DUE: u8 = 1;
    /// In the first DATA frame after HEADERS, before its first byte.
    pub(super) const HERE: u8 = 2;
}

/// Position in the frames of one direction.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCursor {
    /// Bytes left of the payload; 0: in a header.
    pub(crate) left: u32,
    /// How many of them, from here on, are copied.
    pub(crate) keep: u32,
    /// The header's first four bytes, length and type, as far as they are known; of TLS, those after the first.
    pub(crate) start: u32,
    /// Bytes that may still be copied of the body after the latest HEADERS; of TLS, those of handshake records.
    pub(crate) body: u32,
    /// Bytes of the header that are known.
    pub(crate) head: u8,
    /// One of [`first`].
    pub(crate) first: u8,
    /// Bytes at the payload's end that are copied, after some that are not; 0: none.
    pub(crate) end: u16,
    /// 1 if the latest body is not of gRPC messages.
    pub(crate) plain: u8,
    /// 1 from the header of a DATA frame on; of TLS, the type of the latest record.
    pub(crate) data: u8,
    /// 1 if it follows the records of TLS.
    pub(crate) tls: u8,
    /// 1 if the position in the records of TLS is unknown.
    pub(crate) lost: u8,
}

impl FrameCursor {
    /// Before the first frame: a server's direction begins here.
    pub const START: Self = Self {
        left: 0,
        keep: 0,
        start: 0,
        body: 0,
        head: 0,
        first: first::OVER,
        end: 0,
        plain: 0,
        data: 0,
        tls: 0,
        lost: 0,
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

    /// Bytes of a header.
    #[inline(always)]
    pub const fn head_len(&self) -> u32 {
        if self.tls != 0 {
            RECORD_HEAD_LEN as u32
        } else {
            HEAD_LEN as u32
        }
    }

    /// Returns how many bytes from here on are copied; if 0, [`FrameCursor::skips`] says how many are not.
    #[inline(always)]
    pub const fn keeps(&self) -> u32 {
        if self.left == 0 {
            self.head_len() - self.head as u32
        } else {
            self.keep
        }
    }

    /// Returns how many bytes from here on are not copied.
    #[inline(always)]
    pub const fn skips(&self) -> u32 {
        if self.keep == 0 {
            self.left.saturating_sub(self.end as u32)
        } else {
            0
        }
    }

    /// Whether the next byte is the first of a header.
    #[inline(always)]
    pub const fn is_before_head(&self) -> bool {
        self.left == 0 && self.head == 0
    }

    /// Whether the next byte is the first of a body, which [`FrameCursor::on_first`] must get.
    #[inline(always)]
    pub const fn is_before_body(&self) -> bool {
        self.first == first::HERE
    }

    /// Decides by the first byte of a body whether the body is copied. It is not if gRPC messages begin: of those, the
    /// first bytes are enough.
    #[inline(always)]
    pub const fn on_first(&mut self, byte: u8, data: DataKept) {
        self.first = first::OVER;
        if byte <= LAST_MESSAGE_FLAG {
            self.body = 0;
            self.plain = 0;
        } else {
            self.plain = 1;
            self.keep_body(data);
        }
    }

    /// Whether the latest frame is DATA: any other must be copied whole.
    #[inline(always)]
    pub const fn is_data(&self) -> bool {
        self.data != 0
    }

    /// Copies no more of the present body.
    #[inline(always)]
    pub const fn stop_copying(&mut self) {
        self.keep = 0;
        self.body = 0;
        self.end = 0;
    }

    /// Advances by one byte of a header; of DATA, the bytes that `data` says are to be copied.
    #[inline(always)]
    pub const fn on_head(&mut self, byte: u8, data: DataKept) {
        if self.tls != 0 {
            self.on_record_byte(byte);
            return;
        }
        // Length and type are the first four bytes, the oldest of them highest.
        if self.head < 4 {
            self.start = self.start << 8 | byte as u32;
        }
        self.head += 1;
        if self.head >= HEAD_LEN {
            self.on_whole_head(self.start, data);
        }
    }

    /// Advances by a header whose first four bytes are `start`, big-endian; of DATA, the bytes that `data` says are to be
    /// copied.
    #[inline(always)]
    pub const fn on_whole_head(&mut self, start: u32, data: DataKept) {
        let kind = start as u8;
        self.left = start >> 8;
        self.start = 0;
        self.head = 0;
        self.end = 0;
        self.data = (kind == DATA) as u8;
        if kind == DATA && self.first == first::DUE && self.left > 0 {
            self.first = first::HERE;
            let first = if data.plain > 0 {
                data.start
            } else {
                FIRST_DATA_KEPT
            };
            self.keep = smaller(self.left, first);
        } else if kind == DATA {
            self.keep_body(data);
        } else if kind <= LAST_KIND {
            if kind == HEADERS && (data.body > 0 || data.plain > 0) {
                self.first = first::DUE;
                self.body = data.body;
            }
            self.keep = self.left;
        } else {
            self.keep = 0;
        }
    }

    /// Keeps of the present DATA frame what is left for the body, and its first bytes in any case.
    #[inline(always)]
    const fn keep_body(&mut self, data: DataKept) {
        if self.plain != 0 && data.plain > 0 {
            let whole = self.left <= 4 * data.plain as u32;
            self.keep = if whole { self.left } else { data.plain as u32 };
            self.end = if whole { 0 } else { data.plain };
            return;
        }
        let most = if self.body > data.start {
            self.body
        } else {
            data.start
        };
        self.keep = smaller(self.left, most);
        self.body = self.body.saturating_sub(self.keep);
    }

    /// Advances by `bytes` of a payload: at most [`FrameCursor::keeps`], or [`FrameCursor::skips`].
    #[inline(always)]
    pub const fn on_payload(&mut self, bytes: u32) {
        self.left = self.left.saturating_sub(bytes);
        self.keep = self.keep.saturating_sub(bytes);
        if self.keep == 0 && self.end > 0 && self.left <= self.end as u32 {
            self.keep = self.left;
            self.end = 0;
        }
    }
}

#[inline(always)]
const fn smaller(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
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
    fn copied(mut cursor: FrameCursor, bytes: &[u8], step: usize, data: DataKept) -> Vec<u8> {
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
                        cursor.on_head(byte, data);
                    }
                } else {
                    if kept > 0 && cursor.is_before_body() {
                        cursor.on_first(rest[0], data);
                    }
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
        let message = [0; 20_000];
        let frames = [
            &preface[..],
            &frame(4, &[]),
            &frame(1, &block),
            &frame(DATA, &[]),
            &frame(DATA, &message),
            &frame(DATA, &message),
            &frame(77, &message),
            &frame(9, &block),
        ]
        .concat();
        let expected = [
            &preface[..],
            &frame(4, &[]),
            &frame(1, &block),
            &frame(DATA, &[]),
            &frame(DATA, &message)[..9 + 1024],
            &frame(DATA, &message)[..9 + 256],
            &frame(77, &message)[..9],
            &frame(9, &block),
        ]
        .concat();
        for step in [1, 2, 8, 9, 10, 100, 4_096, frames.len()] {
            let data = DataKept::requests(1 << 20);
            let found = copied(FrameCursor::BEFORE_PREFACE, &frames, step, data);
            assert!(found == expected, "in transfers of {step}");
        }
    }

    #[test]
    fn a_body_is_copied_up_to_its_limit_and_each_request_has_one() {
        let body = [b'x'; 5_000];
        let one = [
            &frame(HEADERS, b"h")[..],
            &frame(DATA, &body),
            &frame(DATA, &body),
            &frame(DATA, &body),
        ]
        .concat();
        let expected = [
            &frame(HEADERS, b"h")[..],
            &frame(DATA, &body),
            &frame(DATA, &body)[..9 + 3_000],
            &frame(DATA, &body)[..9 + 256],
        ]
        .concat();
        for step in [1, 7, 1_000, 4_096, 2 * one.len()] {
            let data = DataKept::requests(8_000);
            let found = copied(FrameCursor::START, &one.repeat(2), step, data);
            assert!(found == expected.repeat(2), "in transfers of {step}");
        }
    }

    #[test]
    fn a_body_that_is_dropped_is_copied_no_more() {
        let mut cursor = FrameCursor::START;
        let data = DataKept::requests(8_000);
        cursor.on_whole_head(3_000 << 8 | u32::from(HEADERS), data);
        assert!(!cursor.is_data());
        cursor.on_payload(3_000);
        cursor.on_whole_head(5_000 << 8, data);
        assert!(cursor.is_data());
        assert_eq!(cursor.keeps(), FIRST_DATA_KEPT);
        cursor.on_first(b'{', data);
        cursor.on_payload(1);
        assert_eq!(cursor.keeps(), 4_999);
        cursor.stop_copying();
        assert_eq!((cursor.keeps(), cursor.skips()), (0, 4_999));
        cursor.on_payload(4_999);
        cursor.on_whole_head(5_000 << 8, data);
        assert_eq!(cursor.keeps(), 256);
    }

    #[test]
    fn of_plain_responses_start_and_end_of_each_frame_are_copied() {
        let body: Vec<u8> = (0..10_000).map(|at| b'a' + (at % 26) as u8).collect();
        let message = [0; 9_000];
        let frames = [
            &frame(HEADERS, b"h")[..],
            &frame(DATA, &body),
            &frame(DATA, &body[..4_096]),
            &frame(DATA, &body[..4_097]),
            &frame(HEADERS, b"t"),
            &frame(DATA, &message),
            &frame(DATA, &message),
        ]
        .concat();
        let expected = [
            &frame(HEADERS, b"h")[..],
            &frame(DATA, &body)[..9 + 1024],
            &body[10_000 - 1024..],
            &frame(DATA, &body[..4_096]),
            &frame(DATA, &body[..4_097])[..9 + 1024],
            &body[4_097 - 1024..4_097],
            &frame(HEADERS, b"t"),
            &frame(DATA, &message)[..9 + 64],
            &frame(DATA, &message)[..9 + 64],
        ]
        .concat();
        for step in [1, 7, 1_000, 4_096, frames.len()] {
            let found = copied(FrameCursor::START, &frames, step, DataKept::RESPONSES);
            assert!(found == expected, "in transfers of {step}");
        }
    }

    #[test]
    fn a_server_begins_with_a_frame() {
        let frames = [frame(4, &[1; 6]), frame(1, &[2; 5])].concat();
        let found = copied(FrameCursor::START, &frames, 3, DataKept::RESPONSES);
        assert_eq!(found, frames);
    }
}
