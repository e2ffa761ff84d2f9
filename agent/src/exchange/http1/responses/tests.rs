//! Checks the responses that are found in the writes of one connection.

use crate::exchange::{fixtures, generation::Unknown};

use super::*;

struct Run {
    stream: ResponseStream,
    steps: Vec<Step>,
    now_ns: u64,
}

impl Run {
    fn new() -> Self {
        Self {
            stream: ResponseStream::default(),
            steps: Vec::new(),
            now_ns: 0,
        }
    }

    fn write(&mut self, visible: &[u8], bytes: u64) {
        let mut last = [0; 8];
        let kept = visible.len().min(8);
        last[8 - kept..].copy_from_slice(&visible[visible.len() - kept..]);
        let whole = visible.len() as u64 == bytes;
        let tail = if whole { u64::from_be_bytes(last) } else { 0 };
        self.write_to(tail, visible, bytes);
    }

    fn write_to(&mut self, tail: u64, visible: &[u8], bytes: u64) {
        self.write_after(None, tail, visible, bytes);
    }

    /// A write during and before which the send buffer was too full for `undrained_ns`.
    fn write_after(&mut self, undrained_ns: Option<u64>, tail: u64, visible: &[u8], bytes: u64) {
        self.now_ns += 10;
        let writes = Writes {
            start_ns: self.now_ns,
            start_bounded: false,
            thread_wait: None,
            end_ns: self.now_ns + 1,
            undrained_ns,
            sends: 1,
            bytes,
            visible,
            tail,
        };
        let steps = &mut self.steps;
        let next_request = || Some(fixtures::exchange().request);
        self.stream
            .feed(&writes, next_request, |step, _| steps.push(step));
    }

    /// Later writes of a response that are reported together, with the start of its first.
    fn more(&mut self, sends: u32, bytes: u64) {
        self.now_ns += 10;
        let writes = Writes {
            start_ns: 10,
            start_bounded: false,
            thread_wait: None,
            end_ns: self.now_ns + 1,
            undrained_ns: None,
            sends,
            bytes,
            visible: b"",
            tail: 0,
        };
        let steps = &mut self.steps;
        self.stream
            .feed(&writes, || None, |step, _| steps.push(step));
    }

    fn all(&mut self, bytes: &[u8]) {
        self.write(bytes, bytes.len() as u64);
    }

    fn ended(&self) -> Vec<(u16, u64, u64, Option<u64>)> {
        let ended = |step: &Step| match step {
            Step::Ended(response) => Some((
                response.status,
                response.bytes,
                response.first_write_ns,
                response.last_write_ns,
            )),
            _ => None,
        };
        self.steps.iter().filter_map(ended).collect()
    }
}

#[test]
fn a_response_ends_at_its_length() {
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
fn interim_responses_are_not_the_response() {
    let mut run = Run::new();
    run.all(b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(run.steps, []);
    run.all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(run.ended().len(), 1);
    assert_eq!(run.ended()[0].0, 404);
    assert_eq!(run.ended()[0].2, 20);
}

#[test]
fn chunked_responses_end_at_the_last_chunk() {
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
fn chunked_response_without_a_copied_end_ends_before_the_next() {
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
fn a_response_without_a_length_ends_with_the_connection() {
    let mut run = Run::new();
    run.all(b"HTTP/1.0 200 OK\r\n\r\nsome");
    run.all(b"more");
    assert!(run.stream.is_open() && !run.stream.ends_unobserved() && run.stream.is_until_close());
    let response = run.stream.close().unwrap();
    assert_eq!(
        (response.status, response.bytes, response.last_write_ns),
        (200, 27, Some(21))
    );
}

#[test]
fn a_response_cut_short_has_no_end() {
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
fn pipelined_responses_in_one_write_are_separate() {
    let mut run = Run::new();
    run.all(&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".repeat(3));
    assert_eq!(run.ended().len(), 3);
}

#[test]
fn an_upgrade_to_http2_is_no_response() {
    let mut run = Run::new();
    run.all(b"HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n");
    assert_eq!(run.steps, [Step::Began, Step::Switched]);
}

#[test]
fn an_upgrade_ends_http() {
    let mut run = Run::new();
    run.all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    assert!(matches!(run.steps[..], [Step::Began, Step::Session(_)]));
    run.all(b"\x81\x02hi");
    assert_eq!(run.steps.len(), 2);
}

#[test]
fn dropped_response_includes_its_rest() {
    let mut run = Run::new();
    run.write(b"HTTP/1.1 200 OK\r\nX-Long: aaa", 9_000);
    assert_eq!(run.stream.end_at_unknown_time().last_write_ns, None);
    run.all(b"more of the same answer");
    assert!(!run.stream.is_open());
    run.all(b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        run.ended().iter().map(|end| end.0).collect::<Vec<_>>(),
        [201]
    );
}

#[test]
fn a_chunked_response_with_trailers_may_have_ended() {
    let mut run = Run::new();
    run.all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    run.write(b"", 5_000);
    assert!(!run.stream.ends_unobserved());
    run.all(b"0\r\nX-Sum: 12345\r\n\r\n");
    assert!(run.stream.ends_unobserved());
}

/// The pieces of the responses that ended: how many, the first's time, the gaps between them.
fn pieces(run: &Run) -> Vec<(u32, Option<u64>, Vec<u64>)> {
    let ended = |step: &Step| match step {
        Step::Ended(Response {
            chunks: Some(chunks),
            ..
        }) => Some((chunks.count(), chunks.first_ns(), chunks.gaps_ns().to_vec())),
        _ => None,
    };
    run.steps.iter().filter_map(ended).collect()
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn head_without_body_is_no_piece() {
    let mut run = Run::new();
    run.all(CHUNKED);
    run.all(b"5\r\nhello\r\n");
    run.all(b"3\r\nyou\r\n");
    run.all(b"0\r\n\r\n");
    assert_eq!(pieces(&run), [(2, Some(20), vec![10])]);
}

#[test]
fn piece_in_the_write_of_its_head_has_the_start_of_the_write() {
    let mut run = Run::new();
    run.all(b"HTTP/1.1 100 Continue\r\n\r\n");
    run.all(&[CHUNKED, b"5\r\nhello\r\n"].concat());
    run.all(b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(pieces(&run), [(2, Some(20), vec![10])]);
}

#[test]
fn chunks_are_the_pieces_however_they_are_written() {
    let mut run = Run::new();
    run.all(CHUNKED);
    for part in [
        &b"5"[..],
        b"\r\n",
        b"hello",
        b"\r\n",
        b"1\r\na\r\n1\r\nb\r\n",
        b"0\r\n",
    ] {
        run.all(part);
    }
    assert!(run.stream.is_open());
    run.all(b"\r\n");
    assert_eq!(pieces(&run), [(3, Some(40), vec![20, 0])]);
    assert_eq!(run.ended()[0].3, Some(81));
}

#[test]
fn a_chunked_response_is_the_same_at_any_cut() {
    let whole = [CHUNKED, b"5\r\nhello\r\n3\r\nyou\r\n0\r\nX-Sum: 1\r\n\r\n"].concat();
    for cut in 1..whole.len() {
        let mut run = Run::new();
        run.all(&whole[..cut]);
        run.all(&whole[cut..]);
        let ended = run.ended();
        assert_eq!((ended.len(), ended[0].1), (1, whole.len() as u64), "{cut}");
        assert_eq!(pieces(&run)[0].0, 2, "cut at {cut}");
    }
}

#[test]
fn data_that_looks_like_an_end_or_a_head_is_data() {
    let mut run = Run::new();
    run.all(CHUNKED);
    run.all(b"1e\r\n\r\n0\r\n\r\n");
    assert!(run.stream.is_open());
    run.all(b"HTTP/1.1 200 OK\r\n\r\n1234\r\n");
    assert!(run.stream.is_open());
    run.all(b"0\r\n\r\n");
    assert_eq!(pieces(&run), [(1, Some(20), vec![])]);
}

#[test]
fn pipelined_chunked_responses_in_one_write_are_separate() {
    let mut run = Run::new();
    run.all(&[CHUNKED, b"1\r\na\r\n0\r\n\r\n"].concat().repeat(2));
    assert_eq!(pieces(&run).len(), 2);
}

#[test]
fn walk_that_lost_its_place_resumes_at_the_next_chunk_uncounted() {
    let mut run = Run::new();
    run.all(CHUNKED);
    run.write(b"4\r\nab", 200);
    run.all(b"4\r\nabcd\r\n");
    run.all(b"1\r\na\r\n0\r\n\r\n");
    assert_eq!(pieces(&run), [(3, Some(20), vec![10, 10])]);
    let Some(Step::Ended(response)) = run.steps.last() else {
        panic!("not ended")
    };
    assert!(!response.chunks.as_ref().unwrap().is_counted());
}

#[test]
fn uncopied_end_is_found_by_the_tail() {
    let mut run = Run::new();
    run.all(CHUNKED);
    let tail = u64::from_be_bytes(*b"x\r\n0\r\n\r\n");
    run.write_to(tail, b"1388\r\nxxxx", 6 + 5_000 + 2 + 5);
    assert_eq!(pieces(&run), [(1, Some(20), vec![])]);
    let Some(Step::Ended(response)) = run.steps.last() else {
        panic!("not ended")
    };
    assert!(response.chunks.as_ref().unwrap().is_counted());
}

#[test]
fn a_write_is_a_piece_of_a_body_that_ends_with_the_connection() {
    let mut run = Run::new();
    run.all(b"HTTP/1.0 200 OK\r\n\r\nsome");
    run.all(b"more");
    let chunks = run.stream.close().unwrap().chunks.unwrap();
    assert_eq!((chunks.count(), chunks.first_ns()), (2, Some(10)));
    assert!(chunks.is_stream());
}

#[test]
fn writes_reported_together_are_as_many_pieces() {
    let mut run = Run::new();
    run.all(b"HTTP/1.0 200 OK\r\n\r\nsome");
    run.more(1, 4);
    run.more(3, 12);
    let chunks = run.stream.close().unwrap().chunks.unwrap();
    assert_eq!((chunks.count(), chunks.first_ns()), (5, Some(10)));
    // The second is known by its return, of the others only the last.
    assert_eq!((chunks.gaps_ns(), chunks.gaps_unknown()), (&[11][..], 3));
    assert_eq!(chunks.mean_gap_ns(), Some(5));
}

#[test]
fn a_response_of_known_length_is_a_stream_of_events_or_none() {
    for (kind, expected) in [("text/event-stream", Some(2)), ("text/plain", None)] {
        let mut run = Run::new();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Type: {kind}\r\n\r\n");
        run.all(head.as_bytes());
        run.all(b"so");
        run.all(b"me");
        let count = pieces(&run).first().map(|piece| piece.0);
        assert_eq!(count, expected, "{kind}");
    }
}

#[test]
fn head_of_16_kb_in_pieces_is_read_whole() {
    let fill = "f".repeat(16_300);
    let head = format!("HTTP/1.1 201 Created\r\nX-Fill: {fill}\r\nContent-Length: 9\r\n\r\n");
    for step in [64, 1024, 16 << 10] {
        let mut run = Run::new();
        for piece in head.as_bytes().chunks(step) {
            run.all(piece);
        }
        run.all(b"123456789");
        let [(status, bytes, _, last_ns)] = run.ended()[..] else {
            panic!("{step}: {:?}", run.steps)
        };
        assert_eq!((status, bytes), (201, head.len() as u64 + 9), "{step}");
        assert_eq!(last_ns, Some(run.now_ns + 1), "{step}");
    }
}

#[test]
fn head_that_was_not_copied_whole_keeps_its_status() {
    let mut run = Run::new();
    run.write(b"HTTP/1.1 503 Busy\r\nX-Long: aaa", 9_000);
    assert!(run.stream.ends_unobserved());
    assert_eq!(run.stream.close().unwrap().status, 503);
}

/// What the responses that ended generated.
fn generated(run: &Run) -> Vec<&Generation> {
    let steps = run.steps.iter().filter_map(|step| match step {
        Step::Ended(response) => response.generation.as_deref(),
        _ => None,
    });
    steps.collect()
}

/// Chunks of these sizes.
fn in_chunks(body: &str, size: usize) -> Vec<u8> {
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let chunks: Vec<u8> = body.as_bytes().chunks(size).flat_map(chunk).collect();
    [chunks, b"0\r\n\r\n".to_vec()].concat()
}

const EVENTS: &str = ": hi\r\n\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

#[test]
fn events_are_found_in_chunks_of_any_size_at_any_cut() {
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    for size in [1, 7, 100, EVENTS.len()] {
        let body = in_chunks(EVENTS, size);
        // The event with content ends in the first write, or in the second.
        let content = EVENTS.find("\"a\"").unwrap() + 8;
        for cut in 0..body.len() {
            let mut run = Run::new();
            run.all(head);
            run.all(&body[..cut]);
            run.all(&body[cut..]);
            let [generation] = generated(&run)[..] else {
                panic!("{size} {cut}: {:?}", run.steps)
            };
            let mut seen = 0;
            ChunkWalk::default().walk(&body[..cut], cut as u64, |data, _| seen += data.len());
            let expected = if seen <= content { 30 } else { 20 };
            assert_eq!(generation.first_ns(), Ok(Some(expected)), "{size} {cut}");
            assert_eq!(generation.usage().input, Some(5), "{size} {cut}");
        }
    }
}

#[test]
fn usage_of_a_plain_response_is_found() {
    let body = br#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut run = Run::new();
    run.all(&[head.as_bytes(), body].concat());
    run.all(head.as_bytes());
    run.write(&body[..20], body.len() as u64);
    run.all(head.replace("application/json", "image/png").as_bytes());
    run.all(body);
    let found = generated(&run);
    let found: Vec<_> = found
        .iter()
        .map(|generation| (generation.usage().output, generation.usage_unknown()))
        .collect();
    assert_eq!(found, [(Some(2), None), (None, Some(Unknown::NotCopied))]);
}

#[test]
fn the_end_of_a_write_may_come_in_a_record_of_its_own() {
    let body = br#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let head = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n";
    let mut run = Run::new();
    run.write(&[&head[..], &body[..9]].concat(), head.len() as u64 + 5_000);
    // The same write: no send of its own, and the same times.
    let steps = &mut run.steps;
    let writes = Writes {
        start_ns: 10,
        start_bounded: false,
        thread_wait: None,
        end_ns: 11,
        undrained_ns: None,
        sends: 0,
        bytes: body.len() as u64,
        visible: body,
        tail: 0,
    };
    run.stream
        .feed(&writes, || None, |step, _| steps.push(step));
    let response = run.stream.close().unwrap();
    assert_eq!(response.chunks.unwrap().count(), 1);
    assert_eq!(response.generation.unwrap().usage().input, Some(5));
    assert_eq!(response.last_write_ns, Some(11));
}

#[test]
fn time_that_the_client_kept_the_buffer_full_is_the_responses() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    let undrained = |writes: &[(&[u8], Option<u64>)]| {
        let mut run = Run::new();
        for (bytes, undrained_ns) in writes {
            run.write_after(*undrained_ns, 0, bytes, bytes.len() as u64);
        }
        let ended = run.steps.iter().filter_map(|step| match step {
            Step::Ended(response) => Some(response.undrained_ns),
            _ => None,
        });
        ended.collect::<Vec<_>>()
    };
    let both = [&head[..], b"body", head, b"bo"].concat();
    for (writes, expected) in [
        (
            vec![(&head[..], Some(0)), (b"body", Some(70))],
            vec![Some(70)],
        ),
        (
            vec![(head, Some(20)), (b"bo", Some(30)), (b"dy", Some(0))],
            vec![Some(50)],
        ),
        (vec![(head, None), (b"body", None)], vec![None]),
        (
            vec![(&both, Some(5)), (b"dy", Some(9))],
            vec![Some(5), Some(9)],
        ),
    ] {
        assert_eq!(undrained(&writes), expected);
    }
}
