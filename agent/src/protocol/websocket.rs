//! Counts the messages of one direction of a WebSocket (RFC 6455, section 5).
//!
//! Keeps no payload. Frames whose headers were not copied lose the count.
//! Does not depend on: the connection, times.

/// First bit of the byte: of a frame, the last one of its message; of its length, a mask follows.
const TOP_BIT: u8 = 0x80;
/// Lengths with this value have two bytes of their own, with the next higher eight.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Where a direction is in its frames.
#[derive(Debug, Clone, Default)]
pub struct MessageCount {
    /// Bytes of the header that is being read.
    head: Vec<u8>,
    /// Bytes to come of the present frame.
    left: u64,
    count: u64,
    lost: bool,
}

impl MessageCount {
    /// Adds the next `bytes` bytes, of which the first, `visible`, were copied.
    pub fn feed(&mut self, visible: &[u8], bytes: u64) {
        let mut at = 0;
        while at < bytes && !self.lost {
            if self.left > 0 {
                let taken = self.left.min(bytes - at);
                self.left -= taken;
                at += taken;
                continue;
            }
            let next = usize::try_from(at).ok().and_then(|at| visible.get(at));
            let Some(next) = next else {
                self.lost = true;
                return;
            };
            self.head.push(*next);
            at += 1;
            self.read_head();
        }
    }

    /// Messages that were sent so far; `None` if some could not be counted.
    pub fn count(&self) -> Option<u64> {
        (!self.lost).then_some(self.count)
    }

    /// Begins a frame, if its header is whole.
    fn read_head(&mut self) {
        let [first, second, rest @ ..] = &self.head[..] else {
            return;
        };
        let (opcode, len) = (first & 0x0f, second & !TOP_BIT);
        if matches!(opcode, 3..=7 | 11..) {
            self.lost = true;
            return;
        }
        let len_bytes = match len {
            LENGTH_16 => 2,
            LENGTH_64 => 8,
            _ => 0,
        };
        let mask_bytes = if second & TOP_BIT != 0 { 4 } else { 0 };
        if rest.len() < len_bytes + mask_bytes {
            return;
        }
        self.left = match len_bytes {
            0 => len.into(),
            _ => rest[..len_bytes]
                .iter()
                .fold(0, |len, &byte| len << 8 | u64::from(byte)),
        };
        // Pings, pongs and the close are no messages.
        self.count += u64::from(first & TOP_BIT != 0 && opcode < 8);
        self.head.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, len: usize) -> Vec<u8> {
        let mut frame = vec![first];
        let top = if masked { TOP_BIT } else { 0 };
        match len {
            0..126 => frame.push(top | len as u8),
            126..65_536 => {
                frame.push(top | LENGTH_16);
                frame.extend((len as u16).to_be_bytes());
            }
            _ => {
                frame.push(top | LENGTH_64);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(vec![7; len]);
        frame
    }

    #[test]
    fn messages_are_counted_for_any_split() {
        let bytes = [
            frame(0x81, true, 5),
            frame(0x89, true, 0),
            frame(0x02, true, 300),
            frame(0x00, true, 1),
            frame(0x80, true, 70_000),
            frame(0x82, false, 125),
            frame(0x88, false, 2),
        ]
        .concat();
        for cut in (0..400).chain(70_300..bytes.len()) {
            let mut messages = MessageCount::default();
            for part in [&bytes[..cut], &bytes[cut..]] {
                messages.feed(part, part.len() as u64);
            }
            assert_eq!(messages.count(), Some(3), "{cut}");
        }
    }

    #[test]
    fn payload_need_not_be_copied_and_headers_must() {
        let mut messages = MessageCount::default();
        let long = frame(0x81, true, 70_000);
        messages.feed(&long[..64], long.len() as u64);
        messages.feed(&long[..64], 64);
        messages.feed(&[], long.len() as u64 - 64);
        assert_eq!(messages.count(), Some(2));
        messages.feed(&[], 10);
        assert_eq!(messages.count(), None);
        let mut other = MessageCount::default();
        other.feed(b"GET / HTTP/1.1", 14);
        assert_eq!(other.count(), None);
    }
}
