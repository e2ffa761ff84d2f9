//! Pairs the messages of a gRPC call in which both sides send several: each response message answers the oldest request message
//! that has no answer yet.
//!
//! A call is such a dialogue if a response message comes while its request goes on, or if both sides sent several. Any other
//! call is one request with one response.
//! Does not depend on: streams, the connection.

use std::collections::VecDeque;

use crate::protocol::grpc::{self, PREFIX_LEN};

/// Request messages without an answer that are kept of one call; beyond it, the oldest are dropped.
const WAITING_CAP: usize = 64;
/// Bytes of the beginning of a frame that are searched for messages.
const START_CAP: usize = 1024;
/// Bytes of a message that are kept: they name its model.
const CONTENT_CAP: usize = 256;

/// A request message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// When its first byte became readable, ns; `None` if that was not observed.
    pub(super) arrival_ns: Option<u64>,
    /// First byte read, ns.
    pub(super) first_read_ns: u64,
    /// Last byte read, ns.
    pub(super) last_read_ns: u64,
    /// Bytes, prefix included.
    pub(super) bytes: u64,
    /// The first of them.
    pub(super) content: Vec<u8>,
}

/// A response message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Start of the write with its first byte, ns.
    pub(super) first_write_ns: u64,
    /// Whether that is an upper bound.
    pub(super) first_write_bounded: bool,
    /// Return of the write with its last byte, ns.
    pub(super) last_write_ns: u64,
    /// Bytes, prefix included.
    pub(super) bytes: u64,
}

/// The messages of one call that were not paired.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    /// First bytes of the present frame of the request.
    start: Vec<u8>,
    /// Whether `start` ends before a gap.
    cut: bool,
    /// The message that is being read, and its bytes to come.
    reading: Option<(Asked, u64)>,
    /// Messages that were read, and have no answer.
    waiting: VecDeque<Asked>,
    /// Request messages that began.
    begun: u64,
    /// Whether some request messages could not be separated.
    lost: bool,
    /// Start of the response message that is being written, and whether it is an upper bound.
    writing: Option<(u64, bool)>,
    /// Response messages that were written, and answer none yet.
    answers: VecDeque<Answer>,
    /// Request messages that were answered.
    answered: u64,
}

impl Dialogue {
    /// Adds content of the present frame of the request; `None`: a gap.
    pub(super) fn keep(&mut self, content: Option<&[u8]>) {
        match content {
            Some(content) if !self.cut && !self.lost => {
                let room = START_CAP - self.start.len();
                self.start
                    .extend_from_slice(&content[..content.len().min(room)]);
            }
            Some(_) => {}
            None => self.cut = true,
        }
    }

    /// Ends the present frame of the request, which has `bytes` bytes of content and was read at `read_ns`. `began`: its
    /// arrival and the read of its first byte. `has_room`: the connection may keep one message more.
    pub(super) fn end_frame(
        &mut self,
        bytes: u64,
        began: (Option<u64>, u64),
        read_ns: u64,
        has_room: bool,
    ) {
        self.cut = false;
        let start = std::mem::take(&mut self.start);
        if self.lost {
            return;
        }
        let mut at = 0;
        if let Some((mut asked, left)) = self.reading.take() {
            at = left.min(bytes);
            asked.last_read_ns = read_ns;
            self.read(asked, left - at, has_room);
        }
        while at < bytes {
            let rest = usize::try_from(at).ok().and_then(|at| start.get(at..));
            let rest = rest.unwrap_or_default();
            let Some(len) = grpc::message_len(rest) else {
                self.lost = true;
                return;
            };
            let size = PREFIX_LEN as u64 + u64::from(len);
            let taken = size.min(bytes - at);
            let kept = usize::try_from(taken).unwrap_or(CONTENT_CAP);
            let kept = kept.min(CONTENT_CAP).min(rest.len());
            self.begun += 1;
            let asked = Asked {
                arrival_ns: began.0,
                first_read_ns: began.1,
                last_read_ns: read_ns,
                bytes: size,
                content: rest[..kept].to_vec(),
            };
            self.read(asked, size - taken, has_room);
            at += taken;
        }
    }

    /// Adds a message of which `left` bytes are to come.
    fn read(&mut self, asked: Asked, left: u64, has_room: bool) {
        if left > 0 {
            self.reading = Some((asked, left));
            return;
        }
        if self.waiting.len() >= WAITING_CAP || !has_room {
            self.waiting.pop_front();
        }
        self.waiting.push_back(asked);
    }

    /// Adds the end of a frame of the response, written at `end_ns`: the sizes of the messages that `ended` in it, and whether
    /// one `stays_open`. `began`: start of the frame's write, and whether that is an upper bound. `complete`: the request was
    /// read to its end.
    pub(super) fn on_response(
        &mut self,
        ended: &[u64],
        stays_open: bool,
        began: (u64, bool),
        end_ns: u64,
        complete: bool,
    ) {
        let may_be_dialogue = !complete || self.begun > 1;
        for &bytes in ended {
            let (first_write_ns, first_write_bounded) = self.writing.take().unwrap_or(began);
            // Beyond the cap there is no request message that these may answer.
            if may_be_dialogue && self.answers.len() < WAITING_CAP {
                self.answers.push_back(Answer {
                    first_write_ns,
                    first_write_bounded,
                    last_write_ns: end_ns,
                    bytes,
                });
            }
        }
        if stays_open {
            self.writing.get_or_insert(began);
        }
    }

    /// Returns the request messages that were answered since the last call, each with its answer: none unless the call is a
    /// dialogue. `complete`: the request was read to its end.
    pub(super) fn settle(&mut self, complete: bool) -> Vec<(Asked, Answer)> {
        let both_send_several = self.begun > 1 && self.answers.len() > 1;
        let is_dialogue = self.answered > 0 || !complete || both_send_several;
        if !is_dialogue || self.lost {
            return Vec::new();
        }
        let mut pairs = Vec::new();
        for answer in self.answers.drain(..) {
            // A further message of an answer that came in several is no answer of its own.
            if let Some(asked) = self.waiting.pop_front() {
                pairs.push((asked, answer));
                self.answered += 1;
            }
        }
        pairs
    }

    /// Whether messages of the call were counted one by one.
    pub(super) fn is_split(&self) -> bool {
        self.answered > 0
    }

    /// Whether some messages could not be separated.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The messages that were read and have no answer, oldest first.
    pub(super) fn waiting(&self) -> &VecDeque<Asked> {
        &self.waiting
    }

    /// The message that is being read.
    pub(super) fn reading(&self) -> Option<&Asked> {
        self.reading.as_ref().map(|(asked, _)| asked)
    }
}

#[cfg(test)]
mod tests {
    use crate::exchange::http2::messages::message;

    use super::*;

    fn ask(dialogue: &mut Dialogue, frame: &[u8], at_ns: u64) {
        let (kept, hidden) = frame.split_at(frame.len().min(START_CAP));
        dialogue.keep(Some(kept));
        if !hidden.is_empty() {
            dialogue.keep(None);
        }
        dialogue.end_frame(frame.len() as u64, (Some(at_ns), at_ns), at_ns + 1, true);
    }

    #[test]
    fn messages_over_frames_and_in_one_frame_are_separate() {
        let mut dialogue = Dialogue::default();
        let long = message(40_000);
        for (at, frame) in long.chunks(16_384).enumerate() {
            ask(&mut dialogue, frame, 100 * at as u64);
        }
        ask(&mut dialogue, &[message(3), message(0)].concat(), 900);
        let waiting: Vec<_> = dialogue
            .waiting()
            .iter()
            .map(|asked| (asked.first_read_ns, asked.last_read_ns, asked.bytes))
            .collect();
        assert_eq!(waiting, [(0, 201, 40_005), (900, 901, 8), (900, 901, 5)]);
        assert!(!dialogue.is_lost());
        // A prefix that was not copied.
        ask(&mut dialogue, &[message(3_000), message(1)].concat(), 1_000);
        assert!(dialogue.is_lost());
    }

    #[test]
    fn unanswered_messages_are_bounded() {
        let mut dialogue = Dialogue::default();
        for at_ns in 0..1_000 {
            ask(&mut dialogue, &message(1), at_ns);
        }
        assert_eq!(dialogue.waiting().len(), WAITING_CAP);
        assert_eq!(
            dialogue.waiting()[0].first_read_ns,
            1_000 - WAITING_CAP as u64
        );
    }

    #[test]
    fn call_with_one_request_message_is_no_dialogue() {
        let mut dialogue = Dialogue::default();
        ask(&mut dialogue, &message(1), 0);
        for end_ns in 0..1_000 {
            dialogue.on_response(&[6], false, (end_ns, false), end_ns, true);
            assert_eq!(dialogue.settle(true), []);
        }
        assert!(dialogue.answers.is_empty() && !dialogue.is_split());
    }
}
