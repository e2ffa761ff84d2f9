//! Follows the records of a TLS connection with the cursor of `http2_frames`: their headers are copied, and the two hellos.
//!
//! All else in them is ciphertext. The agent moves the same cursor over what was copied.
//! Does not depend on: anything of a record but its type, version and length (RFC 8446, section 5.1).

use crate::http2_frames::{FrameCursor, RECORD_HEAD_LEN};

/// `change_cipher_spec`, the lowest type.
const LOWEST_TYPE: u8 = 20;
/// `handshake`
const HANDSHAKE: u8 = 22;
/// `application_data`
const DATA: u8 = 23;
/// `heartbeat`, the highest type.
const HIGHEST_TYPE: u8 = 24;
/// SSL 3.0, the lowest version of a record.
const VERSIONS_FROM: u32 = 0x0300;
/// Versions above it, to TLS 1.3.
const VERSIONS: u32 = 4;
/// Longest fragment (RFC 5246, section 6.2.3).
const FRAGMENT_CAP: u32 = 16_384 + 2_048;
/// Shortest fragment of application data: an authentication tag.
const DATA_LEAST: u32 = 16;
/// Bytes of handshake records that are copied of each direction: a hello is shorter.
const HANDSHAKE_KEPT: u32 = 2_047;
/// Bytes that are copied of a transfer that begins with no record, after as many as a header has: with them, the version
/// and the status of an HTTP/1 response.
const OTHER_KEPT: u32 = 11;

/// Whether `kind` and the rest of a header, big-endian, may be those of a record.
///
/// Without branches: the verifier follows each, for each record of a transfer.
#[inline(always)]
pub const fn is_record_head(kind: u8, rest: u32) -> bool {
    let of_type = kind.wrapping_sub(LOWEST_TYPE) <= HIGHEST_TYPE - LOWEST_TYPE;
    let of_version = (rest >> 16).wrapping_sub(VERSIONS_FROM) <= VERSIONS;
    let of_len = (rest & 0xffff).wrapping_sub(1) < FRAGMENT_CAP;
    of_type & of_version & of_len
}

/// Whether the first bytes of a connection, `len` of them, begin a handshake. Some servers read the first by itself.
#[inline(always)]
pub const fn begins_handshake(first: [u8; 8], len: usize) -> bool {
    len > 0 && first[0] == HANDSHAKE && (len < 2 || first[1] == 3) && (len < 3 || first[2] <= 4)
}

/// Whether a read that begins with these bytes, `len` of them, begins with a record of application data: of a connection that
/// was open before its watch.
#[inline(always)]
pub const fn begins_data(first: [u8; 8], len: usize) -> bool {
    let fragment = (first[3] as u32) << 8 | first[4] as u32;
    len >= RECORD_HEAD_LEN as usize
        && first[0] == DATA
        && first[1] == 3
        && first[2] == 3
        && fragment >= DATA_LEAST
        && fragment <= FRAGMENT_CAP
}

impl FrameCursor {
    /// Before the first record of either direction.
    pub const BEFORE_RECORDS: Self = Self {
        tls: 1,
        body: HANDSHAKE_KEPT,
        ..Self::START
    };

    /// Whether it follows the records of TLS.
    #[inline(always)]
    pub const fn is_tls(&self) -> bool {
        self.tls != 0
    }

    /// Whether it is unknown where the next record begins.
    #[inline(always)]
    pub const fn is_lost(&self) -> bool {
        self.lost != 0
    }

    /// Type of the latest record whose header began.
    pub const fn record_type(&self) -> u8 {
        self.data
    }

    /// Bytes left of the record's payload; 0: in a header.
    pub const fn payload_left(&self) -> u32 {
        self.left
    }

    /// Whether the next `bytes` are within the payload of one record.
    #[inline(always)]
    pub const fn holds(&self, bytes: u32) -> bool {
        self.lost == 0 && bytes <= self.left
    }

    /// Begins a transfer: a lost cursor expects a record there.
    #[inline(always)]
    pub const fn on_transfer(&mut self) {
        if self.lost != 0 {
            self.left = 0;
            self.keep = 0;
            self.head = 0;
            self.start = 0;
        }
    }

    /// Loses the position, because bytes of the transfer were not followed; the next transfer may begin with a record.
    #[inline(always)]
    pub const fn lose(&mut self) {
        if self.tls != 0 {
            self.lost = 1;
            self.left = u32::MAX;
            self.keep = 0;
        }
    }

    /// Advances by one byte of a header.
    #[inline(always)]
    pub(crate) const fn on_record_byte(&mut self, byte: u8) {
        if self.head == 0 {
            self.data = byte;
        } else {
            self.start = self.start << 8 | byte as u32;
        }
        self.head += 1;
        if self.head >= RECORD_HEAD_LEN {
            self.on_record_head(self.data, self.start);
        }
    }

    /// Advances by a header of type `kind`, whose other bytes are `rest`, big-endian.
    #[inline(always)]
    pub const fn on_record_head(&mut self, kind: u8, rest: u32) {
        self.data = kind;
        self.head = 0;
        self.start = 0;
        self.keep = 0;
        if !is_record_head(kind, rest) {
            self.lose();
            self.keep = OTHER_KEPT;
            return;
        }
        self.lost = 0;
        self.left = rest & 0xffff;
        if kind == HANDSHAKE {
            self.keep = if self.left < self.body {
                self.left
            } else {
                self.body
            };
            self.body -= self.keep;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;
    use crate::http2_frames::DataKept;

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 3, 3, len[0], len[1]][..], payload].concat()
    }

    /// Returns what is copied of `transfers`.
    fn copied<'a>(
        cursor: &mut FrameCursor,
        transfers: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<u8> {
        let mut copied = vec![];
        for transfer in transfers {
            cursor.on_transfer();
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
                        cursor.on_head(byte, DataKept::RESPONSES);
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
    fn heads_and_hellos_are_copied_at_any_cut() {
        let hello = vec![7; 1_400];
        let certificates = vec![8; 3_000];
        let stream = [
            &record(22, &hello)[..],
            &record(20, &[1]),
            &record(22, &certificates),
            &record(22, &certificates),
            &record(23, &vec![9; 16_401]),
            &record(21, &[0; 26]),
        ]
        .concat();
        let expected = [
            &record(22, &hello)[..],
            &record(20, &[1])[..5],
            &record(22, &certificates)[..5 + 647],
            &record(22, &certificates)[..5],
            &record(23, &vec![9; 16_401])[..5],
            &record(21, &[0; 26])[..5],
        ]
        .concat();
        for step in [1, 2, 4, 5, 6, 100, 4_096, stream.len()] {
            let mut cursor = FrameCursor::BEFORE_RECORDS;
            let found = copied(&mut cursor, stream.chunks(step));
            assert!(found == expected, "in transfers of {step}");
            assert!(!cursor.is_lost() && cursor.is_before_head());
        }
    }

    #[test]
    fn plaintext_is_no_record_until_a_transfer_begins_with_one() {
        let mut cursor = FrameCursor::BEFORE_RECORDS;
        let data = record(23, &[1; 40]);
        let found = copied(
            &mut cursor,
            [
                &data[..],
                b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n",
                b"abc",
                b"{\"a\": [1, 2, 3, 4, 5]}",
            ],
        );
        let expected = [
            &data[..5],
            b"HTTP/1.1 200 OK\r",
            b"abc",
            b"{\"a\": [1, 2, 3, ",
        ]
        .concat();
        assert_eq!(found, expected);
        assert!(cursor.is_lost() && !cursor.holds(1));
        let found = copied(&mut cursor, [&data[..], &data[..20], &data[20..]]);
        assert_eq!(found, [&data[..5], &data[..5]].concat());
        assert!(!cursor.is_lost());
    }

    #[test]
    fn a_lost_position_is_found_where_a_transfer_begins_with_a_record() {
        let mut cursor = FrameCursor::BEFORE_RECORDS;
        let data = record(23, &[1; 400]);
        copied(&mut cursor, [&data[..7]]);
        cursor.lose();
        assert_eq!(copied(&mut cursor, [&data[..]]), data[..5]);
        assert!(cursor.is_before_head());
        let mut http2 = FrameCursor::START;
        http2.lose();
        assert!(!http2.is_lost());
    }

    #[test]
    fn a_read_within_one_record_begins_nothing() {
        let mut cursor = FrameCursor::BEFORE_RECORDS;
        assert!(!cursor.holds(1));
        copied(&mut cursor, [&record(23, &[1; 400])[..5]]);
        assert!(cursor.holds(400) && !cursor.holds(401));
    }

    #[test]
    fn first_bytes_of_tls_are_recognised() {
        let peek = |bytes: &[u8]| {
            let mut first = [0; 8];
            first[..bytes.len()].copy_from_slice(bytes);
            (first, bytes.len())
        };
        for (bytes, handshake, data) in [
            (&b"\x16\x03\x01\x02\0\x01\0\x01"[..], true, false),
            (b"\x16", true, false),
            (b"\x16\x03", true, false),
            (b"\x16\x04\x01", false, false),
            (b"\x16\x03\x05", false, false),
            (b"", false, false),
            (b"\x17\x03\x03\0\x45\x99", false, true),
            (b"\x17\x03\x03\0\x0f\x99", false, false),
            (b"\x17\x03\x03\x48\x01\x99", false, false),
            (b"\x17\x03\x03\0", false, false),
            (b"POST /a ", false, false),
        ] {
            let (first, len) = peek(bytes);
            assert_eq!(begins_handshake(first, len), handshake, "{bytes:?}");
            assert_eq!(begins_data(first, len), data, "{bytes:?}");
        }
    }
}
