mod captured;
mod dialogues;
mod joined;
mod pieces;

use inferprobe_ebpf::{abi::Record, segment::COPIED_DEFAULT};

use super::*;
use crate::{
    exchange::{Exchange, event::Event, http2::streams::OPEN_CAP, reads::Arrivals},
    protocol::grpc::MESSAGE_CAP,
    protocol::http2::{
        PREFACE,
        encode::{Random, data, frame, go_away, headers, reset, settings},
    },
};

const PEER: Peer = Peer {
    cookie: 5,
    tgid: 7,
    local_port: Some(7070),
    peer_port: Some(81),
    accepted_ns: None,
    client: None,
};

const PREDICT: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
const ASK: &[(&str, &str)] = &[(":method", "POST"), (":path", PREDICT)];
const OK: &[(&str, &str)] = &[(":status", "200")];
const DONE: &[(&str, &str)] = &[("grpc-status", "0")];
const MESSAGE: &[u8] = b"\0\0\0\0\x06\x0a\x04tiny";

/// A connection whose transfers are 1000 ns apart, and what came of them.
struct Run {
    connection: Http2Connection,
    /// The kernel half's walks.
    walks: [FrameCursor; 2],
    now_ns: u64,
    out: Vec<Event>,
}

/// What the kernel half copies of a transfer of `bytes` bytes that begins with `known`, as far as those go.
fn carried(walk: &mut FrameCursor, known: &[u8], bytes: u64, data: DataKept) -> Vec<u8> {
    let mut carried = Vec::new();
    let (mut at, mut left) = (0, bytes as usize);
    while left > 0 {
        let kept = (walk.keeps() as usize).min(left);
        let taken = match kept {
            0 => (walk.skips() as usize).min(left),
            kept => kept,
        };
        if kept > 0 {
            // What is not known is not there either.
            let Some(here) = known.get(at..at + kept) else {
                carried.extend(known.get(at..).unwrap_or_default());
                return carried;
            };
            carried.extend(here);
        }
        if walk.is_in_head() {
            for byte in &known[at..at + kept] {
                walk.on_head(*byte, data);
            }
        } else {
            if kept > 0 && walk.is_before_body() {
                walk.on_first(known[at], data);
            }
            walk.on_payload(taken as u32);
        }
        at += taken;
        left -= taken;
    }
    carried
}

impl Run {
    /// A connection before its first byte.
    fn new() -> Self {
        Self {
            connection: Http2Connection::new(PEER, COPIED_DEFAULT),
            walks: [FrameCursor::BEFORE_PREFACE, FrameCursor::START],
            now_ns: 0,
            out: Vec::new(),
        }
    }

    /// A connection whose beginning was missed.
    fn joined() -> Self {
        Self {
            walks: [FrameCursor::START; 2],
            ..Self::new()
        }
    }

    /// A connection whose sides have exchanged SETTINGS, until 2000 ns.
    fn open() -> Self {
        let mut run = Self::new();
        run.read(&[&PREFACE[..], &settings()].concat());
        run.write(&settings());
        assert_eq!(run.out, []);
        run
    }

    /// Arrives 1 ns, and is read 2 ns, after the full thousand.
    fn read_of(&mut self, known: &[u8], bytes: u64) {
        self.now_ns += 1000;
        let visible = &carried(
            &mut self.walks[0],
            known,
            bytes,
            DataKept::requests(COPIED_DEFAULT),
        );
        let reads = Reads {
            arrivals: Arrivals::of(&Record {
                flags: flag::ARRIVAL_KNOWN | flag::ONE_ARRIVAL,
                arrival_ns: self.now_ns + 1,
                ..Record::NONE
            }),
            first_ns: self.now_ns + 2,
            last_ns: self.now_ns + 2,
            reader_tid: None,
            bytes,
            visible,
            body_dropped: false,
        };
        self.connection.reads(&reads, &mut self.out);
    }

    fn read(&mut self, bytes: &[u8]) {
        self.read_of(bytes, bytes.len() as u64);
    }

    /// Starts 3 ns, and ends 4 ns, after the full thousand.
    fn write_of(&mut self, known: &[u8], bytes: u64) {
        self.now_ns += 1000;
        let visible = &carried(&mut self.walks[1], known, bytes, DataKept::RESPONSES);
        let writes = Writes {
            start_ns: self.now_ns + 3,
            start_bounded: false,
            thread_wait: None,
            end_ns: self.now_ns + 4,
            undrained_ns: None,
            sends: 1,
            bytes,
            visible,
            tail: 0,
        };
        self.connection.writes(&writes, &mut self.out);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.write_of(bytes, bytes.len() as u64);
    }

    fn finished(&self) -> Vec<&Exchange> {
        self.out
            .iter()
            .filter_map(|outcome| match outcome {
                Event::Finished(exchange) => Some(exchange),
                _ => None,
            })
            .collect()
    }

    fn others(&self) -> Vec<&Event> {
        let others = |outcome: &&Event| !matches!(outcome, Event::Finished(_));
        self.out.iter().filter(others).collect()
    }

    /// What came since the last call.
    fn taken(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.out)
    }
}

/// Arrival, first and last read, first and last write.
fn times(exchange: &Exchange) -> [Option<u64>; 5] {
    let Exchange {
        request, response, ..
    } = exchange;
    [
        request.arrival_ns,
        Some(request.first_read_ns),
        Some(request.last_read_ns),
        Some(response.first_write_ns),
        response.last_write_ns,
    ]
}

fn ask(stream: u32) -> Vec<u8> {
    [headers(stream, ASK, false), data(stream, MESSAGE, true)].concat()
}

fn response(stream: u32) -> Vec<u8> {
    [
        headers(stream, OK, false),
        data(stream, b"\0\0\0\0\0", false),
        headers(stream, DONE, true),
    ]
    .concat()
}

fn unfinished(reason: Unfinished) -> Event {
    Event::Unfinished(reason)
}

#[test]
fn requests_of_one_read_are_separate() {
    let mut run = Run::open();
    let noise = frame(6, 0, 0, &[0; 8]);
    run.read(&[noise, ask(1), ask(3)].concat());
    run.write(&[response(3), response(1)].concat());
    let reported: Vec<_> = run
        .finished()
        .into_iter()
        .map(|exchange| (exchange.request.index, times(exchange)))
        .collect();
    let both = [Some(3001), Some(3002), Some(3002), Some(4003), Some(4004)];
    assert_eq!(reported, [(1, both), (0, both)]);
}

#[test]
fn a_json_body_names_its_model_in_its_first_bytes() {
    let chat: &[(&str, &str)] = &[(":method", "POST"), (":path", "/v1/chat/completions")];
    let mut run = Run::open();
    let body = data(1, br#"{"messages":[{"model":"no"}],"model":"llama"}"#, true);
    run.read(&[headers(1, chat, false), body].concat());
    run.write(&[headers(1, OK, false), data(1, b"{}", true)].concat());
    let finished = run.finished();
    let [exchange] = &finished[..] else {
        panic!("{:?}", run.out)
    };
    let named = exchange.request.named.as_deref();
    assert_eq!(named.map(|named| &*named.model), Some("llama"));
    assert!(!exchange.is_grpc());
}

#[test]
fn streams_that_run_through_each_other_keep_their_own_times() {
    let mut run = Run::open();
    run.read(&headers(1, ASK, false)); // 3000
    run.read(&ask(3)); // 4000
    run.write(&headers(3, OK, false)); // 5000
    run.read(&data(1, MESSAGE, true)); // 6000
    run.write(&headers(1, OK, false)); // 7000
    run.write(&headers(3, DONE, true)); // 8000
    run.write(&headers(1, DONE, true)); // 9000
    let reported: Vec<_> = run.finished().into_iter().map(times).collect();
    assert_eq!(
        reported,
        [
            [4001, 4002, 4002, 5003, 8004].map(Some),
            [3001, 3002, 6002, 7003, 9004].map(Some)
        ]
    );
}

#[test]
fn a_frame_over_several_reads_begins_and_ends_with_its_own_bytes() {
    let mut run = Run::open();
    let (asked, answered) = (ask(1), response(1));
    for piece in asked.chunks(5) {
        run.read(piece);
    }
    let read_ns = run.now_ns;
    for piece in answered.chunks(4) {
        run.write(piece);
    }
    assert_eq!(
        times(run.finished()[0]),
        [3001, 3002, read_ns + 2, read_ns + 1003, run.now_ns + 4].map(Some)
    );
}

#[test]
fn content_that_was_not_captured_counts_by_its_frame() {
    let mut run = Run::open();
    let message = [MESSAGE, &[0; 100_000]].concat();
    let asked = [headers(1, ASK, false), data(1, &message, true)].concat();
    let bytes = asked.len() as u64;
    run.read(&asked[..2_000]);
    run.read_of(b"", bytes - 2_000);
    run.write(&response(1));
    let exchange = run.finished()[0];
    assert_eq!(exchange.request.bytes, bytes);
    assert_eq!(exchange.request.last_read_ns, 4002);
    assert_eq!(exchange.request.named.as_ref().unwrap().model, "tiny");
}

#[test]
fn a_response_before_the_requests_end_finishes_it() {
    let mut run = Run::open();
    run.read(&headers(1, ASK, false));
    let refused = &[(":status", "200"), ("grpc-status", "8")];
    run.write(&[headers(1, refused, true), reset(1)].concat());
    run.read(&data(1, MESSAGE, true));
    run.read(&ask(3));
    run.write(&response(3));
    assert!(run.others().is_empty());
    let reported: Vec<_> = run
        .finished()
        .into_iter()
        .map(|exchange| (exchange.request.complete, exchange.response.grpc_status))
        .collect();
    assert_eq!(reported, [(false, Some(8)), (true, Some(0))]);
}

#[test]
fn interim_responses_are_not_the_response() {
    let mut run = Run::open();
    run.read(&ask(1));
    run.write(&headers(1, &[(":status", "103")], false));
    run.write(&response(1));
    let exchange = run.finished()[0];
    assert_eq!(exchange.response.status, 200);
    assert_eq!(exchange.response.first_write_ns, 5003);
}

#[test]
fn trailers_of_a_request_end_it() {
    let mut run = Run::open();
    run.read(&[headers(1, ASK, false), data(1, MESSAGE, false)].concat());
    run.read(&headers(1, &[("x-sum", "1")], true));
    run.write(&response(1));
    let [exchange] = run.finished()[..] else {
        panic!("{:?}", run.out)
    };
    assert_eq!(
        (exchange.request.complete, exchange.request.last_read_ns),
        (true, 4002)
    );
}

#[test]
fn a_stream_reset_by_either_side_is_unfinished() {
    let mut run = Run::open();
    run.read(&[ask(1), ask(3)].concat());
    run.read(&reset(1));
    run.write(&[headers(3, OK, false), reset(3)].concat());
    run.read(&reset(1));
    run.write(&response(1));
    let [reset, abandoned, other_reset, Event::Abandoned(..)] = &run.out[..] else {
        panic!("{:?}", run.out)
    };
    assert_eq!(
        [reset, other_reset],
        [
            &unfinished(Unfinished::Reset),
            &unfinished(Unfinished::Reset)
        ]
    );
    let Event::Abandoned(PEER, request) = abandoned else {
        panic!("{abandoned:?}")
    };
    assert_eq!(request.named.as_ref().unwrap().model, "tiny");
}

#[test]
fn a_goaway_refuses_the_streams_behind_its_last() {
    let mut run = Run::open();
    run.read(&[ask(1), ask(3), ask(5)].concat());
    run.write(&go_away(0x7fff_ffff));
    assert_eq!(run.out, []);
    run.write(&go_away(1));
    run.write(&response(1));
    assert_eq!(run.others(), [&unfinished(Unfinished::Reset); 2]);
    assert_eq!(run.finished().len(), 1);
}

#[test]
fn open_requests_are_unfinished_when_the_connection_ends() {
    let mut run = Run::open();
    run.read(&[ask(1), headers(3, ASK, false)].concat());
    run.write(&headers(1, OK, false));
    assert!(!run.connection.is_idle());
    run.connection.close(Unfinished::Unanswered, &mut run.out);
    let [unanswered, Event::Abandoned(..), incomplete] = &run.out[..] else {
        panic!("{:?}", run.out)
    };
    assert_eq!(*unanswered, unfinished(Unfinished::Unanswered));
    assert_eq!(*incomplete, unfinished(Unfinished::Incomplete));
    assert!(run.connection.is_idle());
}

#[test]
fn connection_that_cannot_be_followed_is_dropped_for_good() {
    let mut run = Run::open();
    run.read(&ask(1));
    run.read_of(&ask(3), 10_000);
    assert_eq!(
        run.taken(),
        [
            Event::Lost(Loss::Http2Unfollowed),
            unfinished(Unfinished::LostRecords),
            unfinished(Unfinished::LostRecords)
        ]
    );
    run.read(&[ask(5), ask(7)].concat());
    run.write(&response(5));
    run.read_of(b"", 0);
    assert_eq!(run.taken(), [Event::Lost(Loss::Http2Unfollowed)]);
}

#[test]
fn write_that_cannot_be_followed_drops_the_connection() {
    let mut run = Run::open();
    run.read(&ask(1));
    run.write_of(b"", 100);
    assert_eq!(
        run.out,
        [
            Event::Lost(Loss::Http2Unfollowed),
            unfinished(Unfinished::LostRecords)
        ]
    );
}

#[test]
fn missing_records_drop_the_connection() {
    let mut run = Run::open();
    run.read(&ask(1));
    run.connection.lose(Unfinished::LostRecords, &mut run.out);
    run.connection.lose(Unfinished::LostRecords, &mut run.out);
    assert_eq!(
        run.out,
        [
            Event::Lost(Loss::Http2Unfollowed),
            unfinished(Unfinished::LostRecords)
        ]
    );
}

#[test]
fn a_flood_of_streams_is_bounded_and_counted() {
    let mut run = Run::open();
    let streams = OPEN_CAP as u32 + 10;
    for stream in 0..streams {
        run.read(&headers(stream * 2 + 1, ASK, false));
    }
    assert_eq!(run.taken(), vec![unfinished(Unfinished::Evicted); 10]);
    run.write(&response(1));
    run.write(&response(21));
    assert_eq!(run.finished().len(), 1);
    assert_eq!(run.connection.streams.open.len(), OPEN_CAP - 1);
}

#[test]
fn what_no_client_may_begin_is_skipped() {
    let mut run = Run::open();
    run.read(
        &[
            headers(5, ASK, true),
            headers(2, ASK, true),
            headers(3, ASK, true),
        ]
        .concat(),
    );
    run.read(&data(9, MESSAGE, true));
    run.write(&[response(2), response(9), data(5, b"x", true), response(5)].concat());
    assert_eq!(run.finished().len(), 1);
    assert!(run.others().is_empty());
}

#[test]
fn any_frames_on_both_sides_are_followed_within_bounds() {
    let mut random = Random(3);
    for _ in 0..500 {
        let mut run = Run::open();
        for _ in 0..40 {
            let stream = 1 + random.below(12) as u32;
            let flags = random.below(2) == 0;
            let bytes = match random.below(9) {
                0..3 => headers(stream, ASK, flags),
                3 => headers(stream, OK, flags),
                4 => headers(stream, DONE, flags),
                5 => data(stream, &random.bytes(300), flags),
                6 => reset(stream),
                7 => go_away(stream),
                _ => {
                    let len = random.below(20);
                    frame(random.below(10) as u8, 0, stream % 3, &random.bytes(len))
                }
            };
            let captured = match random.below(20) {
                0 => random.below(bytes.len() as u64) as usize,
                _ => bytes.len(),
            };
            match random.below(2) {
                0 => run.read_of(&bytes[..captured], bytes.len() as u64),
                _ => run.write_of(&bytes[..captured], bytes.len() as u64),
            }
            let open = &run.connection.streams.open;
            assert!(open.len() <= 12);
            assert!(
                open.values()
                    .all(|stream| stream.content.len() <= MESSAGE_CAP)
            );
        }
        run.connection.close(Unfinished::Unanswered, &mut run.out);
        assert!(run.out.len() <= 41 + 12, "{:?}", run.out);
        assert!(run.connection.is_idle());
    }
}

#[test]
fn response_that_begins_before_the_end_of_its_request_is_early() {
    let mut run = Run::open();
    run.read(&[headers(1, ASK, false), data(1, MESSAGE, false)].concat());
    run.write(&headers(1, OK, false));
    run.read(&data(1, MESSAGE, true));
    run.write(&headers(1, DONE, true));
    run.read(&[headers(3, ASK, false), data(3, MESSAGE, true)].concat());
    run.write(&[headers(3, OK, false), headers(3, DONE, true)].concat());
    let overlaps: Vec<_> = run
        .out
        .iter()
        .map(|event| match event {
            Event::Finished(exchange) => (
                exchange.overlaps(),
                exchange.request.last_read_ns < exchange.response.last_write_ns.unwrap(),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(overlaps, [(true, true), (false, true)]);
}
