//! Follows a chunked body (RFC 9112, 7.1) from size line to size line, over bytes of which some were not copied.
//!
//! Both directions of HTTP/1 use it.
//! Does not depend on: heads, times.

/// Longest size line, and longest line of the trailers, bytes.
const LINE_CAP: u32 = 8192;
/// Most digits of a size.
const DIGITS_CAP: u8 = 16;

/// The position of a walk over a chunked body. The bytes may be cut anywhere, and data may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkWalk {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a size line: the size so far, of so many digits.
    Size { size: u64, digits: u8 },
    /// After the digits of a size line.
    Extension { size: u64, line_bytes: u32 },
    /// After the CR of a size line.
    SizeEnd { size: u64 },
    /// In data, with so many bytes to come.
    Data { left: u64, begun: bool },
    /// After data, before its line end.
    DataEnd { cr: bool },
    /// In the lines after the last chunk; so many bytes of the present one were read, without CRs.
    Trailers { line_bytes: u32 },
    /// After the end.
    Ended,
    /// The position is unknown.
    Lost,
}

/// What some bytes of a chunked body contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Bytes that belong to the body: all of them, unless it ended.
    pub taken: u64,
    /// Bytes of data among them.
    pub data_bytes: u64,
    /// Chunks whose first byte of data was among them.
    pub chunks: u32,
    /// Bytes after the position was lost.
    pub missed_bytes: u64,
    /// The state of the body after them.
    pub place: Place,
}

/// The state of a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It continues.
    Open,
    /// It has ended, with its trailers.
    Ended,
    /// A size line was not copied, or is none: what follows is unknown.
    Lost,
}

impl Default for ChunkWalk {
    fn default() -> Self {
        Self { state: START }
    }
}

const START: State = State::Size { size: 0, digits: 0 };

impl ChunkWalk {
    /// Processes `total` bytes, of which the first are `visible`, up to the body's end.
    pub fn feed(&mut self, visible: &[u8], total: u64) -> Walked {
        self.walk(visible, total, |_, _| {})
    }

    /// As [`ChunkWalk::feed`]; calls `on_data` with each piece of data, as far as it was copied, and its length. Bytes
    /// after the position was lost count as data.
    pub fn walk(
        &mut self,
        visible: &[u8],
        total: u64,
        mut on_data: impl FnMut(&[u8], u64),
    ) -> Walked {
        let mut walked = Walked {
            taken: 0,
            data_bytes: 0,
            chunks: 0,
            missed_bytes: 0,
            place: Place::Open,
        };
        while walked.taken < total {
            match self.state {
                State::Ended => break,
                State::Lost => {
                    walked.missed_bytes = total - walked.taken;
                    on_data(&[], walked.missed_bytes);
                    walked.taken = total;
                }
                State::Data { left, begun } => {
                    let data = left.min(total - walked.taken);
                    walked.chunks += u32::from(!begun);
                    walked.data_bytes += data;
                    let at = usize::try_from(walked.taken).ok();
                    let copied = at.and_then(|at| visible.get(at..)).unwrap_or_default();
                    let len = usize::try_from(data).unwrap_or(usize::MAX);
                    on_data(&copied[..copied.len().min(len)], data);
                    walked.taken += data;
                    self.state = match left - data {
                        0 => State::DataEnd { cr: false },
                        left => State::Data { left, begun: true },
                    };
                }
                _ => {
                    let at = usize::try_from(walked.taken).ok();
                    let byte = at.and_then(|at| visible.get(at));
                    self.state = match byte {
                        Some(byte) => self.state.after(*byte),
                        None => self.state.after_uncopied(),
                    };
                    // The byte that loses the position is the first that is missed.
                    walked.taken += u64::from(self.state != State::Lost);
                }
            }
        }
        walked.place = match self.state {
            State::Ended => Place::Ended,
            State::Lost => Place::Lost,
            _ => Place::Open,
        };
        walked
    }

    /// Whether the position is unknown.
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }
}

impl State {
    /// Returns the state after a byte outside of data.
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).expect("a hexadecimal digit");
                let fits = size >> 60 == 0 && digits < DIGITS_CAP;
                match fits {
                    true => Self::Size {
                        size: size << 4 | u64::from(digit),
                        digits: digits + 1,
                    },
                    false => Self::Lost,
                }
            }
            (Self::Size { digits: 0, .. }, _) => Self::Lost,
            (Self::Size { size, .. } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeEnd { size }
            }
            (
                Self::Size { size, .. } | Self::Extension { size, .. } | Self::SizeEnd { size },
                b'\n',
            ) => match size {
                0 => Self::Trailers { line_bytes: 0 },
                left => Self::Data { left, begun: false },
            },
            (Self::Size { size, .. }, b';' | b' ' | b'\t') => Self::Extension {
                size,
                line_bytes: 0,
            },
            (Self::Extension { size, line_bytes }, _) if line_bytes < LINE_CAP => Self::Extension {
                size,
                line_bytes: line_bytes + 1,
            },
            (Self::DataEnd { cr: false }, b'\r') => Self::DataEnd { cr: true },
            (Self::DataEnd { .. }, b'\n') => START,
            (Self::Trailers { line_bytes: 0 }, b'\n') => Self::Ended,
            (Self::Trailers { .. }, b'\n') => Self::Trailers { line_bytes: 0 },
            (Self::Trailers { line_bytes }, b'\r') => Self::Trailers { line_bytes },
            (Self::Trailers { line_bytes }, _) if line_bytes < LINE_CAP => Self::Trailers {
                line_bytes: line_bytes + 1,
            },
            _ => Self::Lost,
        }
    }

    /// Returns the state after a byte outside of data that was not copied: after data, it must be of the line end.
    fn after_uncopied(self) -> Self {
        match self {
            Self::DataEnd { cr: false } => Self::DataEnd { cr: true },
            Self::DataEnd { cr: true } => START,
            _ => Self::Lost,
        }
    }
}

/// Whether bytes begin like a chunk that has data: a size other than 0, of at most 8 digits, then the line's end or an
/// extension.
pub fn begins_chunk(visible: &[u8]) -> bool {
    let digits = visible
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    (1..=8).contains(&digits)
        && visible[..digits].iter().any(|digit| *digit != b'0')
        && matches!(visible[digits..], [b';', ..] | [b'\r', b'\n', ..] | [b'\r'])
}

/// Length of the last chunk with its end, if there are no trailers: `0` and two line ends, bytes.
pub const END_BYTES: u64 = 5;

/// Whether the last bytes of a write end a chunked body. `tail` holds them, the newest in the low byte.
pub fn ends_chunked(tail: u64) -> bool {
    // "\n0\r\n\r\n": the line end of the chunk before, the last chunk, the empty line.
    tail & 0xffff_ffff_ffff == 0x0a30_0d0a_0d0a
}

/// Whether the last bytes of a write may be the end of a chunked body's trailers: an empty line after a field.
///
/// A chunk whose data ends with a line end looks the same; one that ends with an empty line, as event streams do, does not.
pub fn may_end_trailers(tail: u64) -> bool {
    const LINE_END: u64 = 0x0d0a;
    tail & 0xffff_ffff == 0x0d0a_0d0a && tail >> 32 & 0xffff != LINE_END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_a_body_that_is_cut_off_is_what_can_be_seen() {
        let data_of = |visible: &[u8], total| {
            let (mut data, mut bytes) = (Vec::new(), 0);
            ChunkWalk::default().walk(visible, total, |copied, len| {
                data.extend_from_slice(copied);
                bytes += len;
            });
            (data, bytes)
        };
        assert_eq!(data_of(BODY, BODY.len() as u64), (b"helloabc".into(), 8));
        assert_eq!(data_of(&BODY[..6], 6), (b"hel".into(), 3));
        assert_eq!(data_of(&BODY[..6], 8), (b"hel".into(), 5));
        assert_eq!(data_of(b"zz\r\nx", 5), (vec![], 5));
    }

    const BODY: &[u8] = b"5\r\nhello\r\n3;x=y\r\nabc\r\n00\r\nSum: 1\r\nX: \r\n\r\n";

    fn all(walk: &mut ChunkWalk, bytes: &[u8]) -> Walked {
        walk.feed(bytes, bytes.len() as u64)
    }

    #[test]
    fn a_body_is_walked_to_its_end_at_any_two_cuts() {
        for first in 0..=BODY.len() {
            for second in first..=BODY.len() {
                let mut walk = ChunkWalk::default();
                let parts = [&BODY[..first], &BODY[first..second], &BODY[second..]];
                let walked = parts.map(|part| all(&mut walk, part));
                let chunks: u32 = walked.iter().map(|part| part.chunks).sum();
                let data: u64 = walked.iter().map(|part| part.data_bytes).sum();
                let taken: u64 = walked.iter().map(|part| part.taken).sum();
                assert_eq!((chunks, data, taken), (2, 8, BODY.len() as u64));
                assert_eq!(walked[2].place, Place::Ended, "{first} {second}");
            }
        }
    }

    #[test]
    fn a_body_cut_short_is_open_at_each_byte() {
        for len in 0..BODY.len() {
            let walked = all(&mut ChunkWalk::default(), &BODY[..len]);
            assert_eq!(
                (walked.taken, walked.place),
                (len as u64, Place::Open),
                "{len}"
            );
        }
    }

    #[test]
    fn what_follows_the_end_is_left() {
        let both = [BODY, b"HTTP/1.1 200 OK"].concat();
        let walked = all(&mut ChunkWalk::default(), &both);
        assert_eq!(
            (walked.taken, walked.place),
            (BODY.len() as u64, Place::Ended)
        );
    }

    #[test]
    fn a_chunk_in_four_writes_is_one() {
        let mut walk = ChunkWalk::default();
        let writes: [&[u8]; 4] = [b"5", b"\r\n", b"hello", b"\r\n"];
        let chunks = writes.map(|write| all(&mut walk, write).chunks);
        assert_eq!(chunks, [0, 0, 1, 0]);
    }

    #[test]
    fn the_last_chunk_may_be_split_or_glued() {
        let mut walk = ChunkWalk::default();
        assert_eq!(all(&mut walk, b"1\r\na\r\n0\r\n").place, Place::Open);
        assert_eq!(all(&mut walk, b"\r\n").place, Place::Ended);
        let glued = all(&mut ChunkWalk::default(), b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n");
        assert_eq!((glued.chunks, glued.place), (2, Place::Ended));
    }

    #[test]
    fn data_that_was_not_carried_is_passed_over() {
        let mut walk = ChunkWalk::default();
        let walked = walk.feed(b"1000\r\n", 6 + 0x800);
        assert_eq!((walked.chunks, walked.data_bytes), (1, 0x800));
        // With the line end after the data.
        let walked = walk.feed(b"", 0x800 + 2);
        assert_eq!((walked.chunks, walked.place), (0, Place::Open));
        assert_eq!(all(&mut walk, b"0\r\n\r\n").place, Place::Ended);
    }

    #[test]
    fn a_size_line_that_was_not_carried_loses_the_place() {
        let mut walk = ChunkWalk::default();
        let walked = walk.feed(b"4\r\n", 3 + 4 + 2 + 1);
        assert_eq!((walked.taken, walked.place), (10, Place::Lost));
        assert_eq!(walked.missed_bytes, 1);
        assert!(walk.is_lost());
        assert_eq!(all(&mut walk, b"0\r\n\r\n").place, Place::Lost);
        for cut in 1..3 {
            let mut walk = ChunkWalk::default();
            assert_eq!(
                walk.feed(&b"4\r\n"[..cut], 3).place,
                Place::Lost,
                "size {cut}"
            );
        }
        let trailers = ChunkWalk::default().feed(b"0\r\nX", 9);
        assert_eq!(trailers.place, Place::Lost);
    }

    #[test]
    fn what_is_no_chunk_loses_the_place() {
        for body in [
            &b"\r\n"[..],
            b"zz\r\n",
            b"-1\r\n",
            b"5\rx",
            b"5x\r\n",
            b"2\r\nabc\r\n",
            b"10000000000000000\r\n",
            b"2\r\nab\rx",
            b"\xff\xfe\r\n",
        ] {
            let walked = all(&mut ChunkWalk::default(), body);
            assert_eq!(
                (walked.taken, walked.place),
                (body.len() as u64, Place::Lost),
                "{body:?}"
            );
        }
        let huge = all(&mut ChunkWalk::default(), b"ffffffffffffffff\r\nx");
        assert_eq!((huge.chunks, huge.place), (1, Place::Open));
    }

    #[test]
    fn lines_without_an_end_are_given_up() {
        let mut long = b"5;".to_vec();
        long.resize(LINE_CAP as usize + 10, b'x');
        assert_eq!(all(&mut ChunkWalk::default(), &long).place, Place::Lost);
        long.splice(..2, *b"0\r\n");
        assert_eq!(all(&mut ChunkWalk::default(), &long).place, Place::Lost);
    }

    #[test]
    fn bare_line_feeds_are_taken() {
        let walked = all(&mut ChunkWalk::default(), b"2\nab\n0\n\n");
        assert_eq!((walked.chunks, walked.place), (1, Place::Ended));
    }

    #[test]
    fn a_write_begins_a_chunk_or_not() {
        for (bytes, expected) in [
            (&b"5\r\nhello"[..], true),
            (b"00ff;a=b\r\n", true),
            (b"ABCDEF12\r\n", true),
            (b"5\r", true),
            (b"5", false),
            (b"0\r\n\r\n", false),
            (b"123456789\r\n", false),
            (b"data: 1\n\n", false),
            (b"\r\n", false),
            (b"", false),
        ] {
            assert_eq!(begins_chunk(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn trailers_may_end_where_an_event_stream_does_not() {
        assert!(may_end_trailers(u64::from_be_bytes(*b"45ab\r\n\r\n")));
        assert!(!may_end_trailers(u64::from_be_bytes(*b"ab\r\n\r\n\r\n")));
        assert!(!may_end_trailers(u64::from_be_bytes(*b"abcd\n\n\r\n")));
        assert!(!may_end_trailers(0));
    }

    #[test]
    fn a_tail_ends_a_chunked_body_only_whole() {
        assert!(ends_chunked(u64::from_be_bytes(*b"x\r\n0\r\n\r\n")));
        assert!(!ends_chunked(u64::from_be_bytes(*b"\r\n10\r\n\r\n")));
        assert!(!ends_chunked(u64::from_be_bytes(*b"\0\0\0\x000\r\n\r")));
    }
}
