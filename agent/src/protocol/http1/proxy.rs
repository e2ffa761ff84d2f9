//! Finds the end of the PROXY header that a balancer writes before the first request of a connection.
//!
//! Versions 1 and 2 (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//! Does not depend on: what the header says.

/// First bytes of version 1, and the longest header of it, with its line end.
const TEXT: &[u8] = b"PROXY ";
const TEXT_CAP: usize = 107;
/// First bytes of version 2, and the length of its fixed part, which ends with the length of the rest.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_LEN: usize = 16;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A header of this length, bytes, of which not all may be known.
    Header(usize),
    /// The beginning of a header, or of something else.
    Unknown,
    /// Something else.
    Other,
}

/// Returns what a connection begins with.
pub fn start_of(bytes: &[u8]) -> Start {
    let begins = |with: &[u8]| {
        let compared = bytes.len().min(with.len());
        bytes[..compared] == with[..compared]
    };
    if begins(SIGNATURE) {
        return match bytes.get(..FIXED_LEN) {
            Some([.., high, low]) => {
                Start::Header(FIXED_LEN + usize::from(u16::from_be_bytes([*high, *low])))
            }
            _ => Start::Unknown,
        };
    }
    if !begins(TEXT) {
        return Start::Other;
    }
    let line = &bytes[..bytes.len().min(TEXT_CAP)];
    match line.windows(2).position(|end| end == b"\r\n") {
        Some(end) => Start::Header(end + 2),
        None if line.len() == TEXT_CAP => Start::Other,
        None => Start::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_end_where_they_say() {
        let text = b"PROXY TCP4 203.0.113.9 10.0.0.5 51234 8000\r\n".to_vec();
        let unknown = b"PROXY UNKNOWN\r\n".to_vec();
        let binary = [SIGNATURE, &[0x21, 0x11, 0, 12], &[7; 12]].concat();
        let with_tlv = [SIGNATURE, &[0x21, 0x21, 1, 4], &[7; 260]].concat();
        let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
        for header in [text, unknown, binary, with_tlv, local] {
            let with_more = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(start_of(&with_more), Start::Header(header.len()));
            for len in 0..header.len() {
                let start = start_of(&header[..len]);
                let is_whole = start == Start::Header(header.len());
                assert!(
                    start == Start::Unknown || is_whole && len >= FIXED_LEN,
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn anything_else_is_no_header() {
        let endless = [TEXT, &[b'x'; TEXT_CAP]].concat();
        for bytes in [
            &b"POST / HTTP/1.1\r\n"[..],
            b"PROXYING / HTTP/1.1\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            &endless,
        ] {
            assert_eq!(start_of(bytes), Start::Other, "{bytes:?}");
        }
    }
}
