//! Recognises a ZeroMQ connection: by its first bytes, or, if these were not observed, by its frames.
//!
//! Some servers talk to their own engines over ZeroMQ; clients do not.
//! Does not depend on: any other module.

use std::borrow::Cow;

/// Bytes of the signature (ZMTP 3.1, RFC 37 of ZeroMQ): its first, eight of padding, its last.
const SIGNATURE_LEN: usize = 10;

/// Whether the first bytes of either side are the signature.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.len() >= SIGNATURE_LEN && bytes[0] == 0xff && bytes[SIGNATURE_LEN - 1] == 0x7f
}

/// Bits of a frame's first byte: more frames of the message follow, the length has eight bytes, it is a command.
const MORE: u8 = 1;
const LONG: u8 = 1 << 1;
const COMMAND: u8 = 1 << 2;
/// Longest body of a frame whose length has one byte.
const SHORT_CAP: u64 = 255;
/// Longest body that is accepted.
const LONG_CAP: u64 = 1 << 40;

/// A walk over the frames of one direction, which begins anywhere.
#[derive(Debug, Default)]
pub struct FrameWalk {
    /// Bytes up to the next frame; `None` if that is unknown.
    left: Option<u64>,
    /// The beginning of a frame's head that was cut off.
    cut: Vec<u8>,
    /// Transfers in a row that had whole frames, or long ones.
    framed: u32,
}

impl FrameWalk {
    /// Walks over the next `bytes` of the direction, of which `visible` were copied.
    pub fn feed(&mut self, visible: &[u8], bytes: u64) {
        let cut = std::mem::take(&mut self.cut);
        let bytes = bytes + cut.len() as u64;
        let visible = match cut.is_empty() {
            true => Cow::Borrowed(visible),
            false => Cow::Owned([&cut, visible].concat()),
        };
        let mut next = self.left.take().unwrap_or(0);
        let mut has_body = false;
        let mut is_long = false;
        while next < bytes {
            let head = usize::try_from(next).ok().and_then(|at| visible.get(at..));
            let Some(head) = head.filter(|head| !head.is_empty()) else {
                // The rest was not copied.
                return;
            };
            match frame(head) {
                Some(Some((head_len, body_len))) => {
                    has_body |= body_len > 0;
                    is_long = body_len > SHORT_CAP;
                    next = next.saturating_add(head_len + body_len);
                }
                Some(None) => {
                    self.cut = head.to_vec();
                    return;
                }
                None => {
                    self.framed = 0;
                    return;
                }
            }
        }
        self.left = Some(next - bytes);
        self.framed += u32::from(has_body && (next == bytes || is_long));
    }

    /// Whether the bytes can hardly be anything but frames: those of two transfers in a row were.
    pub fn is_certain(&self) -> bool {
        self.framed >= 2
    }
}

/// Returns the lengths of a frame's head and body; `Some(None)` if the head is cut off, `None` if it is none.
fn frame(bytes: &[u8]) -> Option<Option<(u64, u64)>> {
    let (&flags, rest) = bytes.split_first()?;
    let is_known = flags & !(MORE | LONG | COMMAND) == 0;
    if !is_known || flags & (MORE | COMMAND) == MORE | COMMAND {
        return None;
    }
    if flags & LONG == 0 {
        return Some(rest.first().map(|&len| (2, len.into())));
    }
    let Some(len) = rest.first_chunk() else {
        return Some(None);
    };
    let len = u64::from_be_bytes(*len);
    (SHORT_CAP + 1..=LONG_CAP)
        .contains(&len)
        .then_some(Some((9, len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(body: &[u8]) -> Vec<u8> {
        let len = u8::try_from(body.len()).unwrap();
        [&[MORE, len][..], body].concat()
    }

    fn long(len: u64) -> Vec<u8> {
        let body = vec![0xa5; usize::try_from(len).unwrap()];
        [&[LONG][..], &len.to_be_bytes(), &body].concat()
    }

    /// Whether transfers are certainly frames, of each of which `most` bytes are copied.
    fn is_certain(transfers: &[&[u8]], most: usize) -> bool {
        let mut walk = FrameWalk::default();
        for transfer in transfers {
            walk.feed(&transfer[..transfer.len().min(most)], transfer.len() as u64);
        }
        walk.is_certain()
    }

    #[test]
    fn frames_of_two_transfers_are_certain() {
        let message = [short(b"identity"), short(b""), long(700)].concat();
        assert!(!is_certain(&[&message], 1024));
        assert!(is_certain(&[&message, &message], 1024));
        // A message over many reads, of which each has the beginning copied.
        let big = long(100_000);
        let mut reads: Vec<&[u8]> = big.chunks(8192).collect();
        assert!(!is_certain(&reads, 1024));
        reads.extend(big.chunks(8192));
        assert!(is_certain(&reads, 1024));
    }

    #[test]
    fn frames_are_found_after_the_rest_of_one_that_began_unobserved() {
        let message = [short(b"identity"), long(700)].concat();
        let rest = &message[20..];
        assert!(is_certain(&[rest, &message, &message], 1024));
        assert!(is_certain(
            &[rest, rest, &message, rest, &message, &message],
            1024
        ));
    }

    #[test]
    fn other_protocols_are_no_frames() {
        let startup = b"\0\0\0\x08\x04\xd2\x16\x2f";
        let tls = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
        let http2 = b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff";
        let kafka = b"\0\0\0\x2b\0\x12\0\x03\0\0\0\x01\0\x0dconsole-produc";
        for bytes in [
            &startup[..],
            tls,
            http2,
            kafka,
            b"GET / HTTP/1.1\r\n\r\n",
            b"{\"a\":1}",
            &[0; 64],
            b"",
        ] {
            assert!(!is_certain(&[bytes; 5], 1024), "{bytes:?}");
        }
    }

    #[test]
    fn frames_cut_anywhere_do_not_break() {
        let message = [short(b"identity"), long(300), short(b"x")].concat();
        for cut in 0..message.len() {
            let (first, second) = message.split_at(cut);
            assert!(
                is_certain(&[first, second, &message, &message], 1024),
                "{cut}"
            );
        }
    }

    #[test]
    fn greeting_is_recognised_by_its_signature() {
        let greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL";
        for len in 0..greeting.len() {
            assert_eq!(begins(&greeting[..len]), len >= SIGNATURE_LEN, "{len}");
        }
        assert!(!begins(b"\xff\0\0\0\0\0\0\0\x01\x00"));
        assert!(!begins(b"POST / HTTP/1.1\r\n"));
    }
}
