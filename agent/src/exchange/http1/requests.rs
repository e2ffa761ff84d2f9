//! Finds the requests in the bytes that a server reads from one HTTP/1 connection.
//!
//! Keeps those that have no response yet, in order.
//! Does not depend on: the responses.

use std::collections::VecDeque;

use crate::{
    exchange::{Request, body_search::BodySearch, event::Loss, reads::Reads},
    protocol::{
        grpc::{ModelName, NamedBy},
        http1::{
            self, Body, Parse,
            chunked::{ChunkWalk, Place},
            proxy::{self, Start},
        },
        json_model::BodyModel,
    },
};

/// Longest target that is kept, bytes.
const TARGET_CAP: usize = 1024;
/// Longest head that is gathered over several segments, bytes.
const HEAD_CAP: usize = 64 << 10;
/// Bytes of a head that are parsed each time some are added; further on, only its end is looked for.
const PARSED_CAP: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Before a request.
    Between,
    /// In a head, of which these bytes were read.
    Head(Vec<u8>),
    /// In a body, with so many bytes to come.
    Body(u64),
    /// In a chunked body.
    Chunked(ChunkWalk),
    /// In a request whose end is unknown, because its head or its chunks were not copied whole.
    Open,
    /// In bytes that are no request.
    Junk,
    /// After an upgrade: no requests any more.
    Tunnel,
}

/// What bytes are that were read unobserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// They are in the body that is being read, or after the last request.
    Known,
    /// They may be anything: whatever is open is lost.
    Unknown,
}

/// Requests without a response, oldest first, and the state of the byte stream.
#[derive(Debug)]
pub struct RequestStream {
    state: State,
    /// Requests without a response, oldest first; the last may still be incomplete.
    pub pending: VecDeque<Request>,
    /// Whether nothing was read but PROXY headers.
    at_start: bool,
    /// Bytes that belong to no request, until they are counted.
    pub missed_bytes: u64,
    next_index: u32,
    /// Of the body that is being read.
    body: BodySearch,
}

impl Default for RequestStream {
    fn default() -> Self {
        Self {
            state: State::Between,
            pending: VecDeque::new(),
            at_start: true,
            missed_bytes: 0,
            next_index: 0,
            body: BodySearch::without_body(),
        }
    }
}

impl RequestStream {
    /// Processes reads; calls `on_loss` for what could not be interpreted.
    pub fn feed(&mut self, reads: &Reads<'_>, mut on_loss: impl FnMut(Loss)) {
        if matches!(self.state, State::Open | State::Junk) && begins_request(reads.visible) {
            self.state = State::Between;
        }
        let mut at = 0;
        while at < reads.bytes {
            let visible = usize::try_from(at)
                .ok()
                .and_then(|at| reads.visible.get(at..))
                .unwrap_or_default();
            let left = reads.bytes - at;
            let taken = self.step(reads, visible, left, at);
            if self.state == State::Junk && taken == left {
                on_loss(Loss::NotHttp);
            } else if self.state == State::Open && taken == 0 && at > 0 && visible.is_empty() {
                on_loss(Loss::HeadUnseen);
            }
            at += taken;
        }
    }

    /// Skips `bytes` that were read unobserved. If they end a body, it is not known when it was read: the request stays
    /// incomplete.
    pub fn skip(&mut self, bytes: u64) -> Skipped {
        let State::Body(to_come) = &mut self.state else {
            return match self.state {
                State::Tunnel => Skipped::Known,
                _ => Skipped::Unknown,
            };
        };
        if bytes > *to_come {
            return Skipped::Unknown;
        }
        *to_come -= bytes;
        let ended = *to_come == 0;
        search(&mut self.body, b"", bytes);
        if let Some(request) = self.open() {
            request.bytes += bytes;
        }
        if ended {
            self.end_body();
            self.state = State::Between;
        }
        Skipped::Known
    }

    /// Ends the stream: no request follows, because the connection speaks another protocol from here on.
    pub fn tunnel(&mut self) {
        self.state = State::Tunnel;
        self.pending.clear();
    }

    /// Returns a copy to see what `feed` would find.
    pub fn glimpse(&self) -> Self {
        Self {
            state: self.state.clone(),
            pending: self.pending.clone(),
            body: self.body.glimpse(),
            ..*self
        }
    }

    /// Returns a stream that keeps nothing of this one but the number of its requests.
    pub fn restart(&self) -> Self {
        Self {
            state: State::Junk,
            pending: VecDeque::new(),
            at_start: false,
            missed_bytes: self.missed_bytes,
            next_index: self.next_index,
            body: BodySearch::without_body(),
        }
    }

    /// Processes some of `left` bytes, of which `visible` were copied; returns how many.
    fn step(&mut self, reads: &Reads<'_>, visible: &[u8], left: u64, at: u64) -> u64 {
        match &mut self.state {
            State::Between => {
                let blank = visible
                    .iter()
                    .take_while(|&&byte| byte == b'\r' || byte == b'\n')
                    .count() as u64;
                let may_be_proxy = self.at_start && proxy::start_of(visible) != Start::Other;
                if blank > 0 && !may_be_proxy {
                    return blank.min(left);
                }
                self.begin(reads, at);
                self.state = if visible.is_empty() {
                    State::Open
                } else {
                    State::Head(Vec::new())
                };
                0
            }
            State::Head(gathered) => {
                let before = gathered.len();
                gathered.extend_from_slice(visible);
                let head = std::mem::take(gathered);
                if self.at_start
                    && let Some(taken) = self.skip_proxy(reads, &head, before, visible, (at, left))
                {
                    return taken;
                }
                self.read_head(reads, head, before, visible.len() as u64, (at, left))
            }
            State::Body(to_come) => {
                let taken = left.min(*to_come);
                *to_come -= taken;
                let ended = *to_come == 0;
                let copied = usize::try_from(taken)
                    .map_or(visible, |taken| &visible[..visible.len().min(taken)]);
                search(&mut self.body, copied, taken);
                self.extend(reads, (at, taken), left == taken, ended);
                if ended {
                    self.end_body();
                    self.state = State::Between;
                }
                taken
            }
            State::Chunked(walk) => {
                let body = &mut self.body;
                let walked = walk.walk(visible, left, |copied, bytes| search(body, copied, bytes));
                match walked.place {
                    Place::Open => {}
                    Place::Ended => self.state = State::Between,
                    Place::Lost => self.state = State::Open,
                }
                let ended = walked.place != Place::Open;
                self.extend(reads, (at, walked.taken), left == walked.taken, ended);
                if ended {
                    self.end_body();
                }
                walked.taken
            }
            State::Open => {
                self.extend(reads, (at, left), true, true);
                left
            }
            State::Junk => {
                self.missed_bytes += left;
                left
            }
            State::Tunnel => left,
        }
    }

    /// Skips a PROXY header, of which `head` is known, `before` bytes of it from earlier reads; returns how many of `left`
    /// bytes belong to it, or `None` if there is none.
    fn skip_proxy(
        &mut self,
        reads: &Reads<'_>,
        head: &[u8],
        before: usize,
        visible: &[u8],
        (at, left): (u64, u64),
    ) -> Option<u64> {
        match proxy::start_of(head) {
            Start::Header(len) => {
                self.pending.pop_back();
                self.next_index = self.next_index.wrapping_sub(1);
                let header_left = (len - before) as u64;
                self.state = match header_left.checked_sub(left) {
                    None | Some(0) => State::Between,
                    Some(to_come) => State::Body(to_come),
                };
                Some(header_left.min(left))
            }
            Start::Unknown if visible.len() as u64 == left => {
                self.state = State::Head(head.to_vec());
                self.extend(reads, (at, left), true, false);
                Some(left)
            }
            Start::Unknown | Start::Other => {
                self.at_start = false;
                None
            }
        }
    }

    fn read_head(
        &mut self,
        reads: &Reads<'_>,
        head_bytes: Vec<u8>,
        before: usize,
        visible: u64,
        (at, left): (u64, u64),
    ) -> u64 {
        // Only at the start of a connection, where they may have been the beginning of a PROXY header.
        let blank = head_bytes
            .iter()
            .take_while(|&&byte| byte == b'\r' || byte == b'\n')
            .count();
        let parsed = match before > PARSED_CAP && !http1::ends_head(&head_bytes[before - 2..]) {
            true => Parse::Partial,
            false => http1::parse_request(&head_bytes[blank..]),
        };
        match parsed {
            Parse::Complete(head, len) => {
                let taken = (blank + len - before) as u64;
                self.name(head.method, head.target, http1::user_agent(&head_bytes));
                self.body = match head.body {
                    Body::Unsaid | Body::Length(0) => BodySearch::without_body(),
                    Body::Length(_) | Body::Chunked => BodySearch::new(&head.format),
                };
                let (state, ended) = match head.body {
                    Body::Unsaid | Body::Length(0) => (State::Between, true),
                    Body::Length(length) => (State::Body(length), false),
                    Body::Chunked => (State::Chunked(ChunkWalk::default()), false),
                };
                self.state = state;
                self.extend(reads, (at, taken), left == taken, ended);
                taken
            }
            Parse::Partial if visible == left && head_bytes.len() <= HEAD_CAP => {
                self.state = State::Head(head_bytes);
                self.extend(reads, (at, left), true, false);
                left
            }
            Parse::Partial => match http1::parse_cut_request(&head_bytes[blank..]) {
                // The rest of the head was not copied.
                Some((method, target)) => {
                    self.name(method, target, http1::user_agent(&head_bytes));
                    self.name_by_body(BodyModel::Unknown);
                    self.state = State::Open;
                    0
                }
                None => self.discard(left),
            },
            Parse::Invalid => self.discard(left),
        }
    }

    fn discard(&mut self, left: u64) -> u64 {
        let begun = self.pending.pop_back();
        self.missed_bytes += begun.map_or(0, |request| request.bytes) + left;
        self.state = State::Junk;
        left
    }

    fn begin(&mut self, reads: &Reads<'_>, at: u64) {
        self.body = BodySearch::without_body();
        self.pending.push_back(Request {
            index: self.next_index,
            method: String::new(),
            target: String::new(),
            arrival_ns: reads.arrivals.at(at),
            first_read_ns: reads.first_ns,
            last_read_ns: reads.first_ns,
            last_arrival_ns: None,
            reader_tid: None,
            bytes: 0,
            complete: false,
            named: None,
            user_agent: None,
            content_cut: false,
        });
        self.next_index = self.next_index.wrapping_add(1);
    }

    fn name(&mut self, method: String, target: String, user_agent: Option<Box<str>>) {
        if let Some(request) = self.open() {
            request.method = method;
            request.target = target;
            request.user_agent = user_agent;
            if request.target.len() > TARGET_CAP {
                let end = request.target.floor_char_boundary(TARGET_CAP);
                request.target.truncate(end);
            }
        }
    }

    /// Gives the request that is being read the model that its body names, as far as it was read: its response begins.
    pub fn name_so_far(&mut self) {
        if matches!(self.state, State::Body(_) | State::Chunked(_)) {
            let found = self.body.so_far();
            self.name_by_body(found);
        }
    }

    /// Ends the search of the body.
    fn end_body(&mut self) {
        let found = self.body.verdict();
        self.name_by_body(found);
    }

    /// Gives the request that is being read the model that its body names.
    fn name_by_body(&mut self, found: BodyModel) {
        if let Some(request) = self.open() {
            request.content_cut = found == BodyModel::Unknown;
            request.named = match found {
                BodyModel::Named(model) => Some(Box::new(ModelName {
                    by: NamedBy::Body,
                    model,
                    version: None,
                })),
                BodyModel::Absent | BodyModel::Unknown => None,
            };
        }
    }

    /// Adds the next `bytes` of the request, which begin at `at` of `reads`.
    fn extend(
        &mut self,
        reads: &Reads<'_>,
        (at, bytes): (u64, u64),
        to_the_end: bool,
        complete: bool,
    ) {
        if let Some(request) = self.open() {
            request.bytes += bytes;
            request.last_read_ns = if to_the_end {
                reads.last_ns
            } else {
                reads.first_ns
            };
            if bytes > 0 {
                request.last_arrival_ns = reads.arrivals.at(at + bytes - 1);
            }
            request.reader_tid = reads.reader_tid;
            request.complete = complete;
        }
    }

    /// The request that is being read, unless its response came before its end.
    fn open(&mut self) -> Option<&mut Request> {
        let newest = self.next_index.wrapping_sub(1);
        self.pending
            .back_mut()
            .filter(|request| request.index == newest)
    }
}

/// Searches the next `bytes` of a body, of which these were copied. Without the others the search is over.
fn search(body: &mut BodySearch, copied: &[u8], bytes: u64) {
    body.push(copied);
    if (copied.len() as u64) < bytes {
        body.end();
    }
}

/// Whether bytes begin like a request line with a path.
fn begins_request(visible: &[u8]) -> bool {
    http1::parse_cut_request(visible).is_some_and(|(_, target)| {
        target.starts_with('/') || target.starts_with("http") || target == "*"
    })
}

#[cfg(test)]
mod tests {
    use inferprobe_ebpf::abi::{Record, flag};

    use super::*;
    use crate::exchange::reads::Arrivals;

    fn reads(visible: &[u8], bytes: u64, at_ns: u64) -> Reads<'_> {
        Reads {
            arrivals: Arrivals::of(&Record {
                flags: flag::ARRIVAL_KNOWN,
                arrival_ns: at_ns - 1,
                ..Record::NONE
            }),
            first_ns: at_ns,
            last_ns: at_ns + 1,
            reader_tid: None,
            bytes,
            visible,
            body_dropped: false,
        }
    }

    fn fed(parts: &[&[u8]]) -> (RequestStream, u32) {
        let mut stream = RequestStream::default();
        let mut junk = 0;
        for (index, part) in parts.iter().enumerate() {
            let reads = reads(part, part.len() as u64, 100 * (index as u64 + 1));
            stream.feed(&reads, |loss| {
                assert_eq!(loss, Loss::NotHttp);
                junk += 1;
            });
        }
        (stream, junk)
    }

    const POST: &[u8] = b"POST /p HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789";

    #[test]
    fn http2_behind_a_proxy_header_is_no_request() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 443\r\n";
        for parts in [
            &[&[header, &preface[..]].concat()[..]][..],
            &[header, preface],
        ] {
            let (stream, junk) = fed(parts);
            assert_eq!((stream.pending.len(), junk), (0, 1));
        }
    }

    #[test]
    fn a_request_cut_at_any_byte_is_one_request() {
        for cut in 1..POST.len() {
            let (stream, junk) = fed(&[&POST[..cut], &POST[cut..]]);
            assert_eq!((stream.pending.len(), junk), (1, 0), "cut at {cut}");
            let request = &stream.pending[0];
            assert_eq!(
                (request.bytes, request.complete),
                (POST.len() as u64, true),
                "cut at {cut}"
            );
            assert_eq!(
                (
                    request.arrival_ns,
                    request.first_read_ns,
                    request.last_read_ns
                ),
                (Some(99), 100, 201)
            );
            assert_eq!(
                (request.method.as_str(), request.target.as_str()),
                ("POST", "/p")
            );
        }
    }

    #[test]
    fn a_body_that_was_not_copied_counts_by_its_length() {
        let head = b"POST /p HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n";
        let mut stream = RequestStream::default();
        stream.feed(&reads(head, 1_000_000, 100), |loss| panic!("{loss:?}"));
        assert!(!stream.pending[0].complete);
        stream.feed(&reads(b"", 4_000_000 + head.len() as u64, 200), |loss| {
            panic!("{loss:?}")
        });
        assert!(stream.pending[0].complete);
        assert_eq!(stream.pending[0].bytes, 5_000_000 + head.len() as u64);
    }

    #[test]
    fn pipelined_requests_are_separate_requests() {
        let mut three = POST.repeat(2);
        three.extend(b"GET /last HTTP/1.1\r\n\r\n");
        let (stream, _) = fed(&[&three]);
        let targets: Vec<&str> = stream
            .pending
            .iter()
            .map(|request| request.target.as_str())
            .collect();
        assert_eq!(targets, ["/p", "/p", "/last"]);
        assert!(stream.pending.iter().all(|request| request.complete));
        let arrivals: Vec<_> = stream
            .pending
            .iter()
            .map(|request| request.arrival_ns)
            .collect();
        assert_eq!(arrivals, [Some(99), None, None]);
    }

    #[test]
    fn a_chunked_request_ends_with_the_next_one_at_the_latest() {
        let (stream, _) = fed(&[
            b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"GET /b HTTP/1.1\r\n\r\n",
        ]);
        assert_eq!(stream.pending.len(), 2);
        assert_eq!(stream.pending[0].last_read_ns, 301);
        assert!(stream.pending[0].complete);
    }

    #[test]
    fn a_chunked_body_seen_whole_ends_by_itself() {
        let (stream, _) = fed(&[
            b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        ]);
        assert_eq!(stream.pending.len(), 2);
    }

    #[test]
    fn a_body_names_its_own_requests_model() {
        let body = br#"{"messages":[],"model":"m"}"#;
        let mut bytes = b"POST /a HTTP/1.1\r\nContent-Length: 27\r\n\r\n".to_vec();
        bytes.extend_from_slice(body);
        bytes.extend(b"POST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
        bytes.extend(b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n");
        bytes.extend_from_slice(body);
        bytes.extend(b"\r\n0\r\n\r\n");
        for cut in 1..bytes.len() {
            let (stream, _) = fed(&[&bytes[..cut], &bytes[cut..]]);
            let named: Vec<_> = stream
                .pending
                .iter()
                .map(|request| request.named.as_ref().map(|named| named.model.as_str()))
                .collect();
            assert_eq!(named, [Some("m"), None, Some("m")], "{cut}");
        }
    }

    #[test]
    fn unobserved_bytes_are_of_the_body_that_they_are_in() {
        let head = b"POST /p HTTP/1.1\r\nContent-Length: 5000\r\n\r\n";
        let (mut stream, _) = fed(&[head]);
        assert_eq!(stream.skip(4_000), Skipped::Known);
        assert_eq!(stream.skip(1_300), Skipped::Unknown);
        assert_eq!(stream.skip(1_000), Skipped::Known);
        let request = &stream.pending[0];
        let whole = head.len() as u64 + 5_000;
        assert_eq!((request.bytes, request.complete), (whole, false));
        assert!(request.content_cut);
        stream.feed(&reads(POST, POST.len() as u64, 900), |loss| {
            panic!("{loss:?}")
        });
        assert_eq!(stream.pending[1].target, "/p");
    }

    #[test]
    fn unobserved_bytes_elsewhere_may_be_anything() {
        let chunked = b"POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe";
        for before in [&b""[..], POST, b"POST /p HTT", chunked] {
            let (mut stream, _) = fed(&[before]);
            assert_eq!(stream.skip(7), Skipped::Unknown, "{before:?}");
        }
        let (mut stream, _) = fed(&[POST]);
        stream.tunnel();
        assert_eq!(stream.skip(7), Skipped::Known);
    }

    #[test]
    fn proxy_headers_belong_to_no_request() {
        let text: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.5 51234 8000\r\n";
        let binary: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c............";
        for header in [text, binary, &[text, binary].concat(), b"\r\n", b""] {
            let bytes = [header, POST, POST].concat();
            for cut in 1..bytes.len() {
                let (stream, junk) = fed(&[&bytes[..cut], &bytes[cut..]]);
                let named = |request: &Request| (request.target == "/p", request.complete);
                let requests: Vec<_> = stream.pending.iter().map(named).collect();
                assert_eq!((requests, junk), (vec![(true, true); 2], 0), "cut at {cut}");
                assert_eq!(stream.missed_bytes, 0);
                assert_eq!(stream.pending[1].bytes, POST.len() as u64);
                if cut == header.len() && header != b"\r\n" {
                    assert_eq!(stream.pending[0].first_read_ns, 200);
                    assert_eq!(stream.pending[0].bytes, POST.len() as u64);
                }
            }
        }
    }

    #[test]
    fn a_proxy_header_is_only_at_the_start_of_a_connection() {
        let (stream, junk) = fed(&[POST, b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", POST]);
        assert_eq!((stream.pending.len(), junk), (2, 1));
    }

    #[test]
    fn junk_is_counted_and_skipped() {
        let (stream, junk) = fed(&[
            b"\x16\x03\x01junk",
            b"more junk",
            b"GET /a HTTP/1.1\r\n\r\n",
        ]);
        assert_eq!(junk, 2);
        assert_eq!(stream.pending.len(), 1);
        assert_eq!(stream.pending[0].target, "/a");
    }

    #[test]
    fn a_head_longer_than_what_is_copied_keeps_its_path() {
        let head = b"GET /predictions/m HTTP/1.1\r\nCookie: aaaa";
        let mut stream = RequestStream::default();
        stream.feed(&reads(head, 64_000, 100), |loss| panic!("{loss:?}"));
        assert_eq!(stream.pending[0].target, "/predictions/m");
        assert!(stream.pending[0].complete);
        stream.feed(&reads(b"GET /next HTTP/1.1\r\n\r\n", 22, 200), |loss| {
            panic!("{loss:?}")
        });
        assert_eq!(stream.pending.len(), 2);
    }

    #[test]
    fn head_after_an_uncopied_body_counts_head_unseen() {
        let head = b"POST /p HTTP/1.1\r\nContent-Length: 5000\r\n\r\n";
        let mut stream = RequestStream::default();
        let mut losses = Vec::new();
        let bytes = head.len() as u64 + 5_000 + 60;
        stream.feed(&reads(head, bytes, 100), |loss| losses.push(loss));
        assert_eq!(losses, [Loss::HeadUnseen]);
        assert_eq!(stream.pending.len(), 2);
        assert_eq!(
            (stream.pending[1].bytes, stream.pending[1].arrival_ns),
            (60, None)
        );
    }

    #[test]
    fn uncopied_bytes_are_still_a_request() {
        let mut stream = RequestStream::default();
        stream.feed(&reads(b"", 300, 100), |loss| panic!("{loss:?}"));
        assert_eq!(
            (stream.pending[0].bytes, stream.pending[0].target.as_str()),
            (300, "")
        );
    }
}
