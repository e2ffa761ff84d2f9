//! Tells what the first bytes of a read or a write look like.
//!
//! A hint for the program, enough to cut segments. The agent decides what the bytes mean.
//! Does not depend on: sockets, earlier bytes of the connection.

use crate::{abi::mode, tls_records};

/// Bytes that are examined.
pub const PEEK: usize = 8;
/// Bytes of the header of an HTTP/2 frame.
pub const FRAME_HEAD_LEN: usize = 9;

const GET: u32 = u32::from_be_bytes(*b"GET ");
const POST: u32 = u32::from_be_bytes(*b"POST");
const PUT: u32 = u32::from_be_bytes(*b"PUT ");
const HEAD: u32 = u32::from_be_bytes(*b"HEAD");
const DELETE: u32 = u32::from_be_bytes(*b"DELE");
const OPTIONS: u32 = u32::from_be_bytes(*b"OPTI");
const PATCH: u32 = u32::from_be_bytes(*b"PATC");
const TRACE: u32 = u32::from_be_bytes(*b"TRAC");
const CONNECT: u32 = u32::from_be_bytes(*b"CONN");
const HTTP2: u32 = u32::from_be_bytes(*b"PRI ");

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// Bits of their flags.
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Longest payload that needs no agreement, bytes (RFC 9113, 6.5.2).
const FRAME_CAP: u32 = 16_384;
/// Longest SETTINGS accepted as a server's first, bytes: about ten settings exist, of six bytes each.
const SETTINGS_CAP: u32 = 192;

/// Returns the [`mode`] of a connection whose first read of `bytes` starts with these.
///
/// A TorchServe worker reads the command byte of a frame by itself (ts/protocol/otf_message_handler.py of 0.12.0).
#[inline(always)]
pub fn mode_of(first: [u8; PEEK], len: usize, bytes: u32) -> u8 {
    if begins_frame(first, bytes) {
        mode::FRAMES
    } else if len >= 4 && u32::from_be_bytes([first[0], first[1], first[2], first[3]]) == HTTP2 {
        mode::STREAMS
    } else if begins_tls(first, len) {
        mode::RECORDS
    } else {
        mode::MESSAGES
    }
}

/// Whether a read that starts with these bytes starts TLS, or one of its records if the connection was open before its watch.
#[inline(always)]
pub fn begins_tls(first: [u8; PEEK], len: usize) -> bool {
    tls_records::begins_handshake(first, len) || tls_records::begins_data(first, len)
}

/// Whether a read of `bytes` that starts with these is the command byte of a TorchServe worker's frame.
#[inline(always)]
pub fn begins_frame(first: [u8; PEEK], bytes: u32) -> bool {
    bytes == 1 && (first[0] == b'I' || first[0] == b'L')
}

/// Whether a read that starts with these bytes may start a request: an HTTP/1 method token, or the HTTP/2 preface.
///
/// `len` is how many of the bytes are valid; fewer than four never suffice.
#[inline(always)]
pub fn looks_like_request(first: [u8; PEEK], len: usize) -> bool {
    if len < 4 {
        return false;
    }
    matches!(
        u32::from_be_bytes([first[0], first[1], first[2], first[3]]),
        GET | POST | PUT | HEAD | DELETE | OPTIONS | PATCH | HTTP2 | TRACE | CONNECT
    )
}

/// The header of an HTTP/2 frame, as one number (RFC 9113, section 4.1): the payload's length is highest, then type,
/// flags and stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Length of the payload, type, flags and all of the stream but its last byte.
    first: u64,
    /// The last byte of the stream.
    last: u8,
}

impl FrameHead {
    /// Returns the header with these nine bytes.
    #[inline(always)]
    pub const fn new(first: [u8; PEEK], last: u8) -> Self {
        Self {
            first: u64::from_be_bytes(first),
            last,
        }
    }

    #[inline(always)]
    const fn len(self) -> u32 {
        (self.first >> 40) as u32
    }

    #[inline(always)]
    const fn kind(self) -> u8 {
        (self.first >> 32) as u8
    }

    #[inline(always)]
    const fn flags(self) -> u8 {
        (self.first >> 24) as u8
    }

    #[inline(always)]
    const fn stream(self) -> u32 {
        (self.first as u32) << 8 | self.last as u32
    }

    /// Whether a read with these first bytes may begin with a client's frame. The program joins a connection that was
    /// open before its watch at such a read, so frames that arbitrary bytes may look like do not count.
    #[inline(always)]
    pub const fn may_be_client_frame(self) -> bool {
        match self.kind() {
            HEADERS => self.is_whole_block(),
            PING => self.is_ping(),
            WINDOW_UPDATE => self.len() == 4 && self.flags() == 0 && self.stream() >> 31 == 0,
            _ => false,
        }
    }

    /// Whether a write with these first bytes may begin with a server's frame.
    #[inline(always)]
    pub const fn may_be_server_frame(self) -> bool {
        match self.kind() {
            DATA => {
                let len = self.len();
                self.is_of_client_stream()
                    && self.flags() & !(END_STREAM | PADDED) == 0
                    && len <= FRAME_CAP
                    && (len > 0 || self.flags() & END_STREAM != 0)
            }
            RST_STREAM => self.is_of_client_stream() && self.len() == 4 && self.flags() == 0,
            SETTINGS => self.stream() == 0 && self.len() == 0 && self.flags() == ACK,
            _ => self.may_be_client_frame(),
        }
    }

    /// Whether it is the SETTINGS with which either side begins.
    #[inline(always)]
    pub const fn is_first_settings(self) -> bool {
        self.kind() == SETTINGS
            && self.flags() == 0
            && self.stream() == 0
            && self.len().is_multiple_of(6)
            && self.len() <= SETTINGS_CAP
    }

    #[inline(always)]
    const fn is_whole_block(self) -> bool {
        let flags = self.flags();
        self.is_of_client_stream()
            && self.len() > 0
            && self.len() <= FRAME_CAP
            && flags & END_HEADERS != 0
            && flags & !(END_STREAM | END_HEADERS | PADDED | PRIORITY) == 0
    }

    #[inline(always)]
    const fn is_ping(self) -> bool {
        self.len() == 8 && self.flags() & !ACK == 0 && self.stream() == 0
    }

    #[inline(always)]
    const fn is_of_client_stream(self) -> bool {
        self.stream() & 1 == 1 && self.stream() >> 31 == 0
    }
}

/// Whether a write that starts with these bytes starts an HTTP/1 response.
#[inline(always)]
pub fn looks_like_response(first: [u8; PEEK], len: usize) -> bool {
    len >= 7 && u64::from_be_bytes(first) >> 8 == u64::from_be_bytes(*b"\0HTTP/1.")
}

/// Whether a write of `bytes` that starts with these may start a chunk: its size in hexadecimal digits, followed by a
/// line end or `;` if the write is longer (RFC 9112, section 7.1).
#[inline(always)]
pub fn looks_like_chunk(first: [u8; PEEK], len: usize, bytes: u32) -> bool {
    let mut digits = 0;
    while digits < PEEK && digits < len && first[digits].is_ascii_hexdigit() {
        digits += 1;
    }
    if digits == 0 {
        return false;
    }
    if digits < len {
        return first[digits] == b'\r' || first[digits] == b';';
    }
    // All known bytes are digits: it is a size only if the write contains nothing else.
    bytes as usize == len
}

/// Whether a write that starts with these bytes may start an event of an event stream, or one of its comments.
#[inline(always)]
pub fn looks_like_event(first: [u8; PEEK], len: usize) -> bool {
    let word = u64::from_be_bytes(first);
    (len >= 5 && word >> 24 == u64::from_be_bytes(*b"\0\0\0data:"))
        || (len >= 6 && word >> 16 == u64::from_be_bytes(*b"\0\0event:"))
        || (len >= 3 && word >> 40 == u64::from_be_bytes(*b"\0\0\0\0\0id:"))
        || (len >= 2 && word >> 48 == u64::from_be_bytes(*b"\0\0\0\0\0\0: "))
}

/// Whether a write that starts with these bytes, and after which the last bytes are `tail`, may be a line of JSON Lines.
#[inline(always)]
pub fn looks_like_line(first: [u8; PEEK], len: usize, tail: u64) -> bool {
    len > 0 && first[0] == b'{' && tail as u8 == b'\n'
}

/// Whether the last bytes of a write, the newest in the low byte, may end JSON, or an event with JSON: a bracket, after
/// which are only line ends, and the end of a chunk or of the last one. After an event, these may be all that is
/// known.
#[inline(always)]
pub fn ends_json(tail: u64) -> bool {
    if tail == 0 {
        // It is not known.
        return false;
    }
    let mut tail = tail;
    let mut skipped = 0;
    while skipped < PEEK && matches!(tail as u8, b'\r' | b'\n' | b'0') {
        tail >>= 8;
        skipped += 1;
    }
    // Without any other byte, zeros are left.
    matches!(tail as u8, b'}' | b']' | 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek(bytes: &[u8]) -> ([u8; PEEK], usize) {
        let mut first = [0; PEEK];
        let len = bytes.len().min(PEEK);
        first[..len].copy_from_slice(&bytes[..len]);
        (first, len)
    }

    #[test]
    fn method_tokens_start_requests() {
        for head in [
            "GET / HT", "POST /x ", "PUT /x H", "HEAD / H", "DELETE /", "OPTIONS ", "PATCH /x",
            "PRI * HT",
        ] {
            let (first, len) = peek(head.as_bytes());
            assert!(looks_like_request(first, len), "{head}");
        }
    }

    #[test]
    fn bodies_and_responses_do_not_start_requests() {
        for head in [
            &b"{\"a\": 1}"[..],
            b"HTTP/1.1",
            b"\x16\x03\x01\0",
            b"get / ht",
            b"GET",
            b"",
            b"POS",
        ] {
            let (first, len) = peek(head);
            assert!(!looks_like_request(first, len), "{head:?}");
        }
    }

    #[test]
    fn the_first_read_decides_the_mode() {
        for (head, expected) in [
            (&b"I"[..], mode::FRAMES),
            (b"L", mode::FRAMES),
            (b"IN", mode::MESSAGES),
            (b"G", mode::MESSAGES),
            (b"PRI * HTTP/2.0", mode::STREAMS),
            (b"GET / HTTP/1.1", mode::MESSAGES),
            (b"\x16\x03\x01\x02\0\x01", mode::RECORDS),
            (b"\x16", mode::RECORDS),
            (b"\x17\x03\x03\0\x35", mode::RECORDS),
            (b"\x17\x03\x03", mode::MESSAGES),
            (b"", mode::MESSAGES),
        ] {
            let (first, len) = peek(head);
            let bytes = u32::try_from(head.len()).unwrap();
            assert_eq!(mode_of(first, len, bytes), expected, "{head:?}");
        }
    }

    fn head(bytes: [u8; FRAME_HEAD_LEN]) -> FrameHead {
        let (first, last) = bytes.split_first_chunk().unwrap();
        FrameHead::new(*first, last[0])
    }

    #[test]
    fn a_connection_is_joined_at_frames_of_a_client() {
        for bytes in [
            *b"\0\x01\x20\x01\x04\0\0\0\x01",
            *b"\0\0\x08\x01\x05\0\0\x01\x03",
            *b"\0\0\x30\x01\x24\x7f\xff\xff\xff",
            *b"\0\0\x08\x06\x01\0\0\0\0",
            *b"\0\0\x04\x08\0\0\0\0\0",
            *b"\0\0\x04\x08\0\0\0\0\x05",
        ] {
            assert!(head(bytes).may_be_client_frame(), "{bytes:x?}");
            assert!(head(bytes).may_be_server_frame(), "{bytes:x?}");
        }
    }

    #[test]
    fn responses_are_followed_from_frames_of_a_server() {
        for bytes in [
            *b"\0\0\x09\0\0\0\0\0\x01",
            *b"\0\0\0\0\x01\0\0\0\x03",
            *b"\0\x40\0\0\x09\0\0\0\x03",
            *b"\0\0\x04\x03\0\0\0\0\x05",
            *b"\0\0\0\x04\x01\0\0\0\0",
        ] {
            assert!(head(bytes).may_be_server_frame(), "{bytes:x?}");
            assert!(!head(bytes).may_be_client_frame(), "{bytes:x?}");
        }
    }

    #[test]
    fn other_bytes_are_not_frames() {
        for bytes in [
            [0; FRAME_HEAD_LEN],
            [0xff; FRAME_HEAD_LEN],
            *b"HTTP/1.1 ",
            *b"PRI * HTT",
            *b"{\"inputs\"",
            // A server's stream, no stream, and one that is too high.
            *b"\0\0\x08\x01\x04\0\0\0\x02",
            *b"\0\0\x08\x01\x04\0\0\0\0",
            *b"\0\0\x08\x01\x04\x80\0\0\x01",
            // No block, one too long, one that continues, and unknown flags.
            *b"\0\0\0\x01\x04\0\0\0\x01",
            *b"\0\x40\x01\x01\x04\0\0\0\x01",
            *b"\0\0\x08\x01\x01\0\0\0\x01",
            *b"\0\0\x08\x01\x44\0\0\0\x01",
            // Wrong lengths.
            *b"\0\0\x09\x06\0\0\0\0\0",
            *b"\0\0\x08\x08\0\0\0\0\0",
            // Content without end or bytes, and small numbers in a tensor.
            *b"\0\0\0\0\0\0\0\0\x01",
            *b"\x01\0\0\0\0\0\0\0\x03",
        ] {
            assert!(!head(bytes).may_be_client_frame(), "{bytes:x?}");
            assert!(!head(bytes).may_be_server_frame(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_server_begins_with_settings() {
        for bytes in [*b"\0\0\x18\x04\0\0\0\0\0", *b"\0\0\0\x04\0\0\0\0\0"] {
            assert!(head(bytes).is_first_settings(), "{bytes:x?}");
        }
        for bytes in [
            *b"\0\0\0\x04\x01\0\0\0\0",
            *b"\0\0\x07\x04\0\0\0\0\0",
            *b"\0\0\x18\x04\0\0\0\0\x01",
            *b"\0\x06\0\x04\0\0\0\0\0",
            *b"\x81\x05hello\x81\x05",
        ] {
            assert!(!head(bytes).is_first_settings(), "{bytes:x?}");
        }
    }

    #[test]
    fn sizes_start_chunks() {
        for (head, expected) in [
            (&b"5\r\nhello"[..], true),
            (b"1fA0;x=y\r\n", true),
            (b"0\r\n\r\n", true),
            (b"64", true),
            (b"abcdef\r\n", true),
            (b"1234567\r", true),
            (b"data: 5\r\n", false),
            (b"\r\n", false),
            (b"{}", false),
            (b"5 apples", false),
            (b"12345678abc", false),
            (b"", false),
        ] {
            let (first, len) = peek(head);
            let bytes = u32::try_from(head.len()).unwrap();
            assert_eq!(looks_like_chunk(first, len, bytes), expected, "{head:?}");
        }
    }

    #[test]
    fn events_and_lines_are_recognised() {
        for (head, expected) in [
            (&b"data: {}"[..], true),
            (b"data:x", true),
            (b"event: a", true),
            (b"id:1", true),
            (b": ping\n\n", true),
            (b"date: x", false),
            (b"data", false),
            (b"{\"a\":1}", false),
            (b"", false),
        ] {
            let (first, len) = peek(head);
            assert_eq!(looks_like_event(first, len), expected, "{head:?}");
        }
        let (first, len) = peek(b"{\"a\":1}\n");
        assert!(looks_like_line(
            first,
            len,
            u64::from_be_bytes(*b"\"a\":1}\n\n")
        ));
        assert!(!looks_like_line(
            first,
            len,
            u64::from_be_bytes(*b"{\"a\":1}}")
        ));
        assert!(!looks_like_line([0; PEEK], 0, 0x0a));
    }

    #[test]
    fn ends_of_json_are_recognised() {
        for (end, expected) in [
            (b"\"a\":1}}}", true),
            (b"\"a\":1}}\n", true),
            (b"a: {}}\n\n", true),
            (b"[DONE]\n\n", true),
            (b"{}\r\n\r\n\r\n", true),
            (b"}\r\n0\r\n\r\n", true),
            (b"\n\r\n0\r\n\r\n", true),
            (b"a: tok\n\n", false),
            (b"\0\0\0\0\0\0\0\0", false),
            (b"00000000", true),
        ] {
            let tail = u64::from_be_bytes(*end);
            assert_eq!(ends_json(tail), expected, "{end:?}");
        }
    }

    #[test]
    fn status_lines_start_responses() {
        let (first, len) = peek(b"HTTP/1.1 200");
        assert!(looks_like_response(first, len));
        let (first, len) = peek(b"HTTP/1.0 404");
        assert!(looks_like_response(first, len));
        for head in [&b"HTTP/2 2"[..], b"data: x\n", b"HTTP/1", b""] {
            let (first, len) = peek(head);
            assert!(!looks_like_response(first, len), "{head:?}");
        }
    }
}
