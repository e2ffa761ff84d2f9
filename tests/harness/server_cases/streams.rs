//! Defines the cases of HTTP/2 and gRPC: streams that share a connection.

use crate::{
    http2::{self, Client},
    server_cases::{
        cases::Case,
        expected::{Ending, Lenient},
        hosts::Kind,
        play::Play,
    },
};

/// Every case; a gRPC server gets the same as gRPC calls.
pub const STREAMS: &[Case] = &[
    any("streams-one-by-one", one_by_one),
    any("streams-codes", codes),
    any("streams-together", together),
    any("streams-cut-anywhere", cut_anywhere),
    any("streams-bodies", bodies),
    any("streams-big-answers", big_answers),
    any("streams-in-parts", in_parts),
    any("streams-reset", reset),
    any("streams-gone", gone),
    Case {
        name: "h2c-upgrade",
        on: |kind| kind == Kind::Hypercorn,
        act: upgrade,
    },
];

const fn any(name: &'static str, act: fn(&mut Play)) -> Case {
    let on = Kind::is_http2;
    Case { name, on, act }
}

/// An HTTP/2 connection, and the requests on it.
struct Streams<'a> {
    play: &'a mut Play,
    client: Client,
    next: u32,
}

impl<'a> Streams<'a> {
    /// Opens with empty settings.
    fn open(play: &'a mut Play) -> Self {
        let mut streams = Self::join(play, 1);
        let opening = http2::opening();
        streams.play.filler(opening.len());
        streams.send(&opening);
        streams
    }

    /// Continues an open connection, from stream `next`.
    fn join(play: &'a mut Play, next: u32) -> Self {
        let client = Client::new(play.client.take().expect("the client is there"));
        Self { play, client, next }
    }

    /// Returns the frames of a request for a new model, and its stream.
    fn post(&mut self, query: &str, body_bytes: usize) -> (u32, Vec<u8>) {
        let stream = self.next;
        self.next += 2;
        let case = self.play.next_case();
        let model = self.play.next_model();
        let target = format!("/v1/models/{model}:predict?{query}");
        let filling = vec![b'x'; body_bytes];
        let bytes = if self.play.kind == Kind::Grpcio {
            let named = [&[0x0a, 2], model.as_bytes(), &[0x12], &filling].concat();
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/inference.GRPCInferenceService/ModelInfer"),
                (":authority", "test"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("x-case", &case),
                ("x-plan", query),
            ];
            http2::request(stream, &fields, Some(&http2::message(&named)))
        } else {
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", &target),
                (":authority", "test"),
                ("x-case", &case),
            ];
            http2::request(stream, &fields, Some(&filling))
        };
        self.play.note("POST", &target, &bytes);
        self.play.latest().lenient = Lenient::Shared;
        if self.play.kind == Kind::Grpcio {
            let fails = self.play.latest().status != 200;
            self.play.latest().status = 200;
            // INVALID_ARGUMENT.
            self.play.latest().code = if fails { 400 } else { 200 };
        }
        (stream, bytes)
    }

    fn send(&mut self, bytes: &[u8]) {
        let call = self.client.send(bytes);
        self.play.note_sent(bytes.len(), call);
    }

    /// Waits for the end of the response on `stream`, which is the request `index` of the connection.
    fn receive(&mut self, stream: u32, index: usize) {
        let ended_ns = self
            .client
            .wait_end(stream)
            .expect("the stream is answered");
        self.play.expected[index].received_ns = Some(ended_ns);
    }

    fn exchange(&mut self, query: &str, body_bytes: usize) {
        let (stream, bytes) = self.post(query, body_bytes);
        self.send(&bytes);
        self.receive(stream, self.play.expected.len() - 1);
    }
}

fn one_by_one(play: &mut Play) {
    let mut streams = Streams::open(play);
    for (query, body_bytes) in [("sleep_ms=5", 10), ("body=3000", 3000), ("", 0), ("", 900)] {
        streams.exchange(query, body_bytes);
    }
}

fn codes(play: &mut Play) {
    let mut streams = Streams::open(play);
    for query in ["status=500", "status=404&sleep_ms=5", ""] {
        streams.exchange(query, 10);
    }
}

fn together(play: &mut Play) {
    let mut streams = Streams::open(play);
    let mut all = Vec::new();
    for sleep_ms in [40, 30, 20, 10] {
        all.push(streams.post(&format!("sleep_ms={sleep_ms}&body={sleep_ms}00"), 300));
    }
    let bytes: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    streams.send(&bytes);
    for (index, (stream, _)) in all.iter().enumerate() {
        streams.receive(*stream, index);
    }
}

fn cut_anywhere(play: &mut Play) {
    let mut streams = Streams::open(play);
    for cut in [1, 4, 8, 9, 10, 60] {
        let (stream, bytes) = streams.post("", 200);
        for cut in [cut, bytes.len() - cut] {
            assert!(cut < bytes.len());
        }
        let end = bytes.len() - cut;
        for part in [&bytes[..cut], &bytes[cut..end], &bytes[end..]] {
            streams.send(part);
            streams.play.until_read();
        }
        streams.receive(stream, streams.play.expected.len() - 1);
    }
}

fn bodies(play: &mut Play) {
    let mut streams = Streams::open(play);
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(streams.post("sleep_ms=10", 15_000));
    }
    for (_, bytes) in &all {
        streams.send(bytes);
    }
    for (index, (stream, _)) in all.iter().enumerate() {
        streams.receive(*stream, index);
    }
}

fn big_answers(play: &mut Play) {
    let mut streams = Streams::open(play);
    for _ in 0..2 {
        streams.exchange("body=300000", 10);
    }
}

fn in_parts(play: &mut Play) {
    let mut streams = Streams::open(play);
    for _ in 0..2 {
        streams.exchange("chunks=4&gap_ms=20&body=40", 10);
    }
}

fn reset(play: &mut Play) {
    let mut streams = Streams::open(play);
    let (given_up, first) = streams.post("sleep_ms=300", 10);
    streams.play.latest().ending = Ending::Unanswered;
    let (stream, second) = streams.post("sleep_ms=10", 10);
    streams.send(&[first, second].concat());
    streams.receive(stream, 1);
    let bytes = http2::reset(given_up);
    streams.play.filler(bytes.len());
    streams.send(&bytes);
    streams.exchange("status=404", 10);
}

fn gone(play: &mut Play) {
    let mut streams = Streams::open(play);
    streams.exchange("", 10);
    let (_, bytes) = streams.post("sleep_ms=300", 10);
    streams.play.latest().ending = Ending::Unanswered;
    streams.send(&bytes);
    streams.play.until_read();
}

fn upgrade(play: &mut Play) {
    let fields = [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ];
    let bytes = play.ask("GET", "sleep_ms=10&status=201", &fields, b"");
    // A GET is no inference, over HTTP/2 neither.
    play.latest().purpose = "admin";
    play.latest().model.clear();
    play.latest().lenient = Lenient::Shared;
    play.send(&bytes);
    let client = play.client.as_mut().expect("the client is there");
    let interim = client.receive_one(false).expect("an answer to the upgrade");
    assert_eq!(interim.status, 101);
    // Stream 1 is the request that asked for the upgrade.
    let mut streams = Streams::join(play, 3);
    let opening = http2::opening();
    streams.play.filler(opening.len());
    streams.send(&opening);
    streams.receive(1, 0);
    streams.exchange("status=202&sleep_ms=5", 10);
    streams.exchange("status=500", 2000);
}
