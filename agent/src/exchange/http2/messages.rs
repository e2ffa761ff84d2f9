//! Finds where the messages of one response begin in its DATA frames: gRPC ones by their prefixes, otherwise each frame is one.
//!
//! Uses only the first bytes of each frame.
//! Does not depend on: times.

use inferprobe_ebpf::http2_frames::DataKept;

use crate::protocol::grpc::{self, PREFIX_LEN};

/// The messages of one response, as far as its frames were written.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Whether messages have prefixes.
    pub(super) framed: bool,
    /// First bytes of the present frame.
    start: Vec<u8>,
    /// Whether `start` ends before a gap.
    cut: bool,
    /// Bytes of the message that began last, prefix included, and those of them to come.
    size: u64,
    left: u64,
    /// Sizes of the messages that ended in the latest frame.
    ended: Vec<u64>,
    lost: bool,
}

impl Messages {
    /// Adds content of the present frame; `None`: a gap.
    pub(super) fn keep(&mut self, content: Option<&[u8]>) {
        let Some(content) = content else {
            self.cut = true;
            return;
        };
        if self.framed && !self.cut {
            let room = DataKept::RESPONSES.start as usize - self.start.len();
            self.start
                .extend_from_slice(&content[..content.len().min(room)]);
        }
    }

    /// Ends the present frame, whose content has `bytes` bytes; returns how many messages began in it, as far as that is
    /// known: at least one did if bytes follow the end of another.
    pub(super) fn end_frame(&mut self, bytes: u64) -> u32 {
        self.cut = false;
        self.ended.clear();
        let mut start = std::mem::take(&mut self.start);
        let begun = match bytes {
            0 => 0,
            _ if !self.framed || self.lost => 1,
            _ => self.find(&start, bytes),
        };
        start.clear();
        self.start = start;
        begun
    }

    /// Sizes of the messages that ended in the latest frame, and whether one is open behind it, as far as that is known.
    pub(super) fn ended(&self) -> (&[u64], bool) {
        (&self.ended, self.left > 0)
    }

    /// Whether some messages could not be separated.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    fn find(&mut self, start: &[u8], bytes: u64) -> u32 {
        let mut begun = 0;
        // Where the next message begins.
        let mut at = self.left;
        if at > 0 && at <= bytes {
            self.ended.push(self.size);
        }
        while at < bytes {
            begun += 1;
            let prefix = usize::try_from(at).ok().and_then(|at| start.get(at..));
            let Some(len) = prefix.and_then(grpc::message_len) else {
                self.lost = true;
                return begun;
            };
            self.size = PREFIX_LEN as u64 + u64::from(len);
            at += self.size;
            if at <= bytes {
                self.ended.push(self.size);
            }
        }
        self.left = at - bytes;
        begun
    }
}

/// A gRPC message of `len` bytes, not compressed, with its prefix.
#[cfg(test)]
pub(super) fn message(len: u32) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(len.to_be_bytes());
    message.extend(vec![7; len as usize]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages that begin in each of the frames, and whether their number is known.
    fn begun(framed: bool, frames: &[&[u8]]) -> (Vec<u32>, bool) {
        let mut messages = Messages {
            framed,
            ..Messages::default()
        };
        let begun = frames
            .iter()
            .map(|frame| {
                let (kept, hidden) =
                    frame.split_at(frame.len().min(DataKept::RESPONSES.start as usize));
                for piece in kept.chunks(3) {
                    messages.keep(Some(piece));
                }
                if !hidden.is_empty() {
                    messages.keep(None);
                }
                messages.end_frame(frame.len() as u64)
            })
            .collect();
        (begun, !messages.is_lost())
    }

    #[test]
    fn frame_without_messages_is_a_piece() {
        assert_eq!(
            begun(false, &[b"data: 1", b"", b"data: 2"]),
            (vec![1, 0, 1], true)
        );
    }

    #[test]
    fn a_message_over_several_frames_is_one() {
        let long = message(40_000);
        let frames: Vec<&[u8]> = long.chunks(16_384).collect();
        assert_eq!(begun(true, &frames), (vec![1, 0, 0], true));
        let next = message(3);
        let again = [frames, vec![&next[..]]].concat();
        assert_eq!(begun(true, &again), (vec![1, 0, 0, 1], true));
    }

    #[test]
    fn messages_in_one_frame_are_separate() {
        let three = [message(10), message(0), message(300)].concat();
        assert_eq!(begun(true, &[&three]), (vec![3], true));
        let (first, rest) = three.split_at(30);
        assert_eq!(
            begun(true, &[first, rest, &message(1)]),
            (vec![3, 0, 1], true)
        );
    }

    #[test]
    fn messages_that_begin_in_a_gap_are_not_counted() {
        let two = [message(100), message(5)].concat();
        assert_eq!(begun(true, &[&two, &message(1)]), (vec![2, 1], false));
        let cut = message(9);
        assert_eq!(begun(true, &[&cut[..3], &cut[3..]]), (vec![1, 1], false));
        assert_eq!(begun(true, &[b"no message at all"]), (vec![1], false));
    }
}
