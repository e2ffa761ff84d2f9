//! The answers in the bytes that a server writes to one connection.

use inferprobe_ebpf::abi::flag;

use crate::{
    exchange::{Answer, Request},
    kernel::rings::RecordView,
    protocol::http1::{self, AnswerHead, Body, ChunkScan, Parse, chunked},
};

/// Longest head that is gathered over several writes, bytes.
const HEAD_CAP: usize = 8192;

/// One write, or several that were told together.
#[derive(Debug, Clone, Copy)]
pub struct Writes<'a> {
    /// Start of the first, ns.
    pub start_ns: u64,
    /// Whether `start_ns` is the return of the send, an upper bound.
    pub start_bounded: bool,
    /// Return of the last, ns.
    pub end_ns: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The first of them, as many as were copied.
    pub visible: &'a [u8],
    /// The stream's last bytes after them, the newest in the low byte; 0 when not known.
    pub tail: u64,
}

/// Sends up to this size do not wait for the peer (the default send buffer takes three times as much), so that their
/// return tells their start.
const PROMPT_SEND_BYTES: u64 = 64 << 10;

impl<'a> Writes<'a> {
    /// The writes that a record tells of, `before_bytes` of the same run having been told before.
    pub fn of(view: &RecordView<'a>, before_bytes: u64) -> Self {
        let record = &view.record;
        let bytes = record.written_bytes.saturating_sub(before_bytes);
        let at_return = record.flags & flag::WRITE_AT_RETURN != 0;
        Self {
            start_ns: record.first_write_ns,
            start_bounded: at_return && bytes > PROMPT_SEND_BYTES,
            end_ns: record.last_write_ns,
            bytes,
            visible: view.answer,
            tail: record.tail,
        }
    }
}

/// What a write brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A final answer began: it belongs to the oldest request that has none.
    Began,
    /// The answer that began last is over.
    Ended(Answer),
    /// The connection speaks something else from here on; the answer to the upgrade is over.
    Upgraded(Answer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Before an answer.
    Between,
    /// In a head, of which these bytes came.
    Head(Vec<u8>),
    /// In a body, with so many bytes to come.
    Body(u64),
    /// In a chunked body.
    Chunked,
    /// In a body that ends with the connection.
    UntilClose,
    /// In an answer whose head was not seen whole.
    Hidden,
    /// Behind an answer that was given up: its rest, if there is one, up to the next head.
    Rest,
    /// After an upgrade.
    Tunnel,
}

/// Where the stream of answers stands.
#[derive(Debug)]
pub struct AnswerStream {
    state: State,
    open: Answer,
    /// Last bytes of the latest write, as [`Writes::tail`].
    tail: u64,
}

impl Default for AnswerStream {
    fn default() -> Self {
        Self {
            state: State::Between,
            open: NOT_BEGUN,
            tail: 0,
        }
    }
}

const NOT_BEGUN: Answer = Answer {
    status: 0,
    first_write_ns: 0,
    first_write_bounded: false,
    last_write_ns: None,
    bytes: 0,
    request_id: None,
    grpc_status: None,
    chunks: None,
};

impl AnswerStream {
    /// Takes in writes, and tells `on_step` what they bring about, in order.
    ///
    /// `asked` gives the request that an answer which begins belongs to: an answer to HEAD has no body.
    pub fn feed(
        &mut self,
        writes: &Writes<'_>,
        mut asked: impl FnMut() -> Option<Request>,
        mut on_step: impl FnMut(Step, Option<Request>),
    ) {
        let begins = http1::status_of(writes.visible).is_some();
        if self.state == State::Rest && begins {
            self.state = State::Between;
        }
        let endless = matches!(
            self.state,
            State::Chunked | State::Hidden | State::UntilClose
        );
        if endless && begins {
            // The next answer's head: the one before ended with the write before.
            on_step(Step::Ended(self.end()), None);
        }
        self.tail = writes.tail;
        let mut at = 0;
        while at < writes.bytes {
            let visible = usize::try_from(at)
                .ok()
                .and_then(|at| writes.visible.get(at..))
                .unwrap_or_default();
            at += self.step(writes, visible, writes.bytes - at, &mut asked, &mut on_step);
        }
    }

    /// Whether an answer has begun and not ended.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Between | State::Rest | State::Tunnel)
    }

    /// Whether an answer is open and no byte to come will tell its end, other than the connection's.
    ///
    /// `close_is_seen`: the connection's end is.
    pub fn ends_unseen(&self, close_is_seen: bool) -> bool {
        match self.state {
            State::Hidden => true,
            State::UntilClose => !close_is_seen,
            State::Chunked => chunked::may_end_trailers(self.tail),
            _ => false,
        }
    }

    /// Gives up waiting for the end of the open answer: it is left unknown.
    pub fn give_up(&mut self) -> Answer {
        self.state = State::Rest;
        Answer {
            last_write_ns: None,
            ..std::mem::replace(&mut self.open, NOT_BEGUN)
        }
    }

    /// Time of the latest write, ns.
    pub fn latest_ns(&self) -> u64 {
        self.open.last_write_ns.unwrap_or(0)
    }

    /// Ends the open answer, since the connection ended; `None` if no final answer is open.
    pub fn close(&mut self) -> Option<Answer> {
        let state = std::mem::replace(&mut self.state, State::Between);
        let answer = std::mem::replace(&mut self.open, NOT_BEGUN);
        match state {
            State::UntilClose => Some(answer),
            State::Body(_) | State::Chunked | State::Hidden => Some(Answer {
                last_write_ns: None,
                ..answer
            }),
            State::Between | State::Head(_) | State::Rest | State::Tunnel => None,
        }
    }

    fn step(
        &mut self,
        writes: &Writes<'_>,
        visible: &[u8],
        left: u64,
        asked: &mut impl FnMut() -> Option<Request>,
        on_step: &mut impl FnMut(Step, Option<Request>),
    ) -> u64 {
        match &mut self.state {
            State::Between => {
                self.open = Answer {
                    first_write_ns: writes.start_ns,
                    first_write_bounded: writes.start_bounded,
                    ..NOT_BEGUN
                };
                self.state = State::Head(Vec::new());
                0
            }
            State::Head(gathered) => {
                let before = gathered.len();
                gathered.extend_from_slice(visible);
                let seen = std::mem::take(gathered);
                match http1::parse_answer(&seen) {
                    Parse::Complete(head, len)
                        if (100..200).contains(&head.status) && head.status != 101 =>
                    {
                        self.state = State::Between;
                        (len - before) as u64
                    }
                    Parse::Complete(head, len) => {
                        let request = asked();
                        let taken = (len - before) as u64;
                        self.begin(
                            writes,
                            head,
                            &seen[len..],
                            left - taken,
                            taken,
                            request,
                            on_step,
                        );
                        taken
                    }
                    Parse::Partial if visible.len() as u64 == left && seen.len() <= HEAD_CAP => {
                        self.state = State::Head(seen);
                        self.extend(writes, left);
                        left
                    }
                    _ => {
                        // Not seen whole, or no head at all: its status, if that much is there, and no end.
                        self.open.status = http1::status_of(&seen).unwrap_or(0);
                        self.state = State::Hidden;
                        on_step(Step::Began, asked());
                        0
                    }
                }
            }
            State::Body(to_come) => {
                let taken = left.min(*to_come);
                *to_come -= taken;
                let ended = *to_come == 0;
                self.extend(writes, taken);
                if ended {
                    on_step(Step::Ended(self.end()), None);
                }
                taken
            }
            State::Chunked => {
                self.extend(writes, left);
                if chunked::ends_chunked(writes.tail) {
                    on_step(Step::Ended(self.end()), None);
                }
                left
            }
            State::UntilClose | State::Hidden => {
                self.extend(writes, left);
                left
            }
            State::Rest | State::Tunnel => left,
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, in one place, of what a head leaves to say"
    )]
    fn begin(
        &mut self,
        writes: &Writes<'_>,
        head: AnswerHead,
        after: &[u8],
        left: u64,
        taken: u64,
        request: Option<Request>,
        on_step: &mut impl FnMut(Step, Option<Request>),
    ) {
        self.open.status = head.status;
        self.open.request_id = head.request_id;
        self.extend(writes, taken);
        let to_head = request
            .as_ref()
            .is_some_and(|request| request.method == "HEAD");
        let bodiless = to_head || matches!(head.status, 204 | 304);
        on_step(Step::Began, request);
        if head.status == 101 {
            let answer = self.end();
            self.state = State::Tunnel;
            on_step(Step::Upgraded(answer), None);
            return;
        }
        self.state = match head.body {
            _ if bodiless => State::Body(0),
            Body::Length(length) => State::Body(length),
            Body::Unsaid => State::UntilClose,
            Body::Chunked => match http1::scan_chunks(after, left) {
                ChunkScan::Ended(chunks) => State::Body(chunks as u64),
                ChunkScan::Open => State::Chunked,
            },
        };
        if self.state == State::Body(0) {
            on_step(Step::Ended(self.end()), None);
        }
    }

    fn extend(&mut self, writes: &Writes<'_>, bytes: u64) {
        self.open.bytes += bytes;
        self.open.last_write_ns = Some(writes.end_ns);
    }

    fn end(&mut self) -> Answer {
        self.state = State::Between;
        std::mem::replace(&mut self.open, NOT_BEGUN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Run {
        stream: AnswerStream,
        steps: Vec<Step>,
        now_ns: u64,
    }

    impl Run {
        fn new() -> Self {
            Self {
                stream: AnswerStream::default(),
                steps: Vec::new(),
                now_ns: 0,
            }
        }

        fn write(&mut self, visible: &[u8], bytes: u64) {
            self.now_ns += 10;
            let mut last = [0; 8];
            let kept = visible.len().min(8);
            last[8 - kept..].copy_from_slice(&visible[visible.len() - kept..]);
            let writes = Writes {
                start_ns: self.now_ns,
                start_bounded: false,
                end_ns: self.now_ns + 1,
                bytes,
                visible,
                tail: if visible.len() as u64 == bytes {
                    u64::from_be_bytes(last)
                } else {
                    0
                },
            };
            let steps = &mut self.steps;
            self.stream
                .feed(&writes, || None, |step, _| steps.push(step));
        }

        fn all(&mut self, bytes: &[u8]) {
            self.write(bytes, bytes.len() as u64);
        }

        fn ended(&self) -> Vec<(u16, u64, u64, Option<u64>)> {
            let told = |step: &Step| match step {
                Step::Ended(answer) => Some((
                    answer.status,
                    answer.bytes,
                    answer.first_write_ns,
                    answer.last_write_ns,
                )),
                _ => None,
            };
            self.steps.iter().filter_map(told).collect()
        }
    }

    #[test]
    fn an_answer_ends_at_its_length() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n";
        let mut run = Run::new();
        run.write(head, head.len() as u64 + 1_000_000);
        assert!(run.stream.is_open());
        run.write(b"", 2_000_000);
        assert_eq!(
            run.ended(),
            [(200, head.len() as u64 + 3_000_000, 10, Some(21))]
        );
    }

    #[test]
    fn head_and_body_in_separate_writes_at_any_cut() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 1..whole.len() {
            let mut run = Run::new();
            run.all(&whole[..cut]);
            run.all(&whole[cut..]);
            assert_eq!(
                run.ended(),
                [(200, whole.len() as u64, 10, Some(21))],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn interim_answers_are_not_the_answer() {
        let mut run = Run::new();
        run.all(b"HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(run.steps, []);
        run.all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(run.ended().len(), 1);
        assert_eq!(run.ended()[0].0, 404);
        assert_eq!(run.ended()[0].2, 20);
    }

    #[test]
    fn chunked_answers_end_at_the_last_chunk() {
        let mut run = Run::new();
        run.all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        run.all(b"5\r\nhello\r\n");
        assert!(run.stream.is_open());
        run.all(b"5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(run.ended().len(), 1);
        assert_eq!(run.ended()[0].3, Some(31));
        run.all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
        assert_eq!(run.ended().len(), 2);
    }

    #[test]
    fn a_chunked_answer_whose_end_was_not_seen_ends_before_the_next() {
        let mut run = Run::new();
        run.all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        run.write(b"", 5_000);
        run.all(b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            run.ended()
                .iter()
                .map(|end| (end.0, end.3))
                .collect::<Vec<_>>(),
            [(200, Some(21)), (201, Some(31))]
        );
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let mut run = Run::new();
        run.all(b"HTTP/1.0 200 OK\r\n\r\nsome");
        run.all(b"more");
        assert!(
            run.stream.is_open() && !run.stream.ends_unseen(true) && run.stream.ends_unseen(false)
        );
        let answer = run.stream.close().unwrap();
        assert_eq!(
            (answer.status, answer.bytes, answer.last_write_ns),
            (200, 27, Some(21))
        );
    }

    #[test]
    fn an_answer_cut_short_has_no_end() {
        let mut run = Run::new();
        run.all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort");
        assert_eq!(run.stream.close().unwrap().last_write_ns, None);
        assert_eq!(run.stream.close(), None);
    }

    #[test]
    fn bodiless_statuses_end_with_their_head() {
        for status in [204, 304] {
            let mut run = Run::new();
            run.all(format!("HTTP/1.1 {status} x\r\nContent-Length: 9\r\n\r\n").as_bytes());
            assert_eq!(run.ended().len(), 1, "{status}");
        }
    }

    #[test]
    fn pipelined_answers_in_one_write_are_told_apart() {
        let mut run = Run::new();
        run.all(&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".repeat(3));
        assert_eq!(run.ended().len(), 3);
    }

    #[test]
    fn an_upgrade_ends_http() {
        let mut run = Run::new();
        run.all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
        assert!(matches!(run.steps[..], [Step::Began, Step::Upgraded(_)]));
        run.all(b"\x81\x02hi");
        assert_eq!(run.steps.len(), 2);
    }

    #[test]
    fn an_answer_given_up_takes_its_rest_with_it() {
        let mut run = Run::new();
        run.write(b"HTTP/1.1 200 OK\r\nX-Long: aaa", 9_000);
        assert_eq!(run.stream.give_up().last_write_ns, None);
        run.all(b"more of the same answer");
        assert!(!run.stream.is_open());
        run.all(b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            run.ended().iter().map(|end| end.0).collect::<Vec<_>>(),
            [201]
        );
    }

    #[test]
    fn a_chunked_answer_with_trailers_may_have_ended() {
        let mut run = Run::new();
        run.all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        run.write(b"", 5_000);
        assert!(!run.stream.ends_unseen(true));
        run.all(b"0\r\nX-Sum: 12345\r\n\r\n");
        assert!(run.stream.ends_unseen(true));
    }

    #[test]
    fn a_head_that_was_not_seen_whole_keeps_its_status() {
        let mut run = Run::new();
        run.write(b"HTTP/1.1 503 Busy\r\nX-Long: aaa", 9_000);
        assert!(run.stream.ends_unseen(true));
        assert_eq!(run.stream.close().unwrap().status, 503);
    }
}
