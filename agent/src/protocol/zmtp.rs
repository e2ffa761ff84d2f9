//! Recognises a ZeroMQ connection by its first bytes.
//!
//! Some servers talk to their own engines over ZeroMQ; clients do not.
//! Does not depend on: any other module.

/// Bytes of the signature (ZMTP 3.1, RFC 37 of ZeroMQ): its first, eight of padding, its last.
const SIGNATURE_LEN: usize = 10;

/// Whether the first bytes of either side are the signature.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.len() >= SIGNATURE_LEN && bytes[0] == 0xff && bytes[SIGNATURE_LEN - 1] == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

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
