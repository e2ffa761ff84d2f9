//! What the first bytes of a read or a write look like: enough to cut segments, never more.
//!
//! A hint for the kernel half. What the bytes mean is decided in userspace.

use crate::abi::mode;

/// Bytes that are looked at.
pub const PEEK: usize = 8;

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

/// How the connection is to be cut whose first read of `bytes` starts with these: one of [`mode`].
///
/// A TorchServe worker reads the command byte of a frame alone (ts/protocol/otf_message_handler.py of 0.12.0).
#[inline(always)]
pub fn mode_of(first: [u8; PEEK], len: usize, bytes: u32) -> u8 {
    if begins_frame(first, bytes) {
        mode::FRAMES
    } else if len >= 4 && u32::from_be_bytes([first[0], first[1], first[2], first[3]]) == HTTP2 {
        mode::STREAMS
    } else {
        mode::MESSAGES
    }
}

/// Whether a read of `bytes` that starts with these is the command byte of a TorchServe worker's frame.
#[inline(always)]
pub fn begins_frame(first: [u8; PEEK], bytes: u32) -> bool {
    bytes == 1 && (first[0] == b'I' || first[0] == b'L')
}

/// Whether a read that starts with these bytes may start a request: an HTTP/1 method token, or the HTTP/2 preface.
///
/// `len` is how many of the bytes hold; fewer than four never do.
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

/// Whether a write that starts with these bytes starts an HTTP/1 answer.
#[inline(always)]
pub fn looks_like_answer(first: [u8; PEEK], len: usize) -> bool {
    len >= 7 && u64::from_be_bytes(first) >> 8 == u64::from_be_bytes(*b"\0HTTP/1.")
}

/// Whether a write of `bytes` that starts with these may start a chunk: its size in hexadecimal digits, and a line end
/// or `;` behind them where the write is longer (RFC 9112, section 7.1).
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
    // All that is seen of it are digits: a size that is written by itself.
    bytes as usize == len
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
    fn bodies_and_answers_do_not() {
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
    fn the_first_read_tells_how_to_cut() {
        for (head, expected) in [
            (&b"I"[..], mode::FRAMES),
            (b"L", mode::FRAMES),
            (b"IN", mode::MESSAGES),
            (b"G", mode::MESSAGES),
            (b"PRI * HTTP/2.0", mode::STREAMS),
            (b"GET / HTTP/1.1", mode::MESSAGES),
            (b"", mode::MESSAGES),
        ] {
            let (first, len) = peek(head);
            let bytes = u32::try_from(head.len()).unwrap();
            assert_eq!(mode_of(first, len, bytes), expected, "{head:?}");
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
    fn status_lines_start_answers() {
        let (first, len) = peek(b"HTTP/1.1 200");
        assert!(looks_like_answer(first, len));
        let (first, len) = peek(b"HTTP/1.0 404");
        assert!(looks_like_answer(first, len));
        for head in [&b"HTTP/2 2"[..], b"data: x\n", b"HTTP/1", b""] {
            let (first, len) = peek(head);
            assert!(!looks_like_answer(first, len), "{head:?}");
        }
    }
}
