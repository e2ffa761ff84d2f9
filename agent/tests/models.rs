//! The model that a request's body names is the one that `serde_json` reads in it, however the body is written,
//! compressed, sent and cut.

mod events;

use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use inferprobe::{exchange::event::Event, pipeline::connections::ConnectionTable};
use inferprobe_ebpf::{
    abi::{PIECE_CAP, Record, kind, mode},
    http2_frames::{DataKept, FrameCursor},
    segment::COPIED_DEFAULT,
};
use proptest::prelude::*;
use serde_json::Value;

use events::Events;

/// Longest name that is compared, bytes: longer ones are cut, and no metric has them.
const NAME_CAP: usize = 256;
/// Largest body, bytes.
const LARGEST: usize = 1 << 20;

/// Numbers that a seed determines (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % end
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// Writes JSON in every way in which it may be written.
struct Writer {
    random: Random,
    text: String,
}

impl Writer {
    fn space(&mut self) {
        for _ in 0..self.random.below(3) {
            let space = self.random.one_of(&[' ', '\t', '\n', '\r', ' ', ' ']);
            self.text.push(space);
        }
    }

    fn string(&mut self, content: &str) {
        self.text.push('"');
        for letter in content.chars() {
            let escapes = self.random.below(8) == 0;
            match letter {
                '"' | '\\' => self.text.extend(['\\', letter]),
                '/' if escapes => self.text.push_str("\\/"),
                '\n' => self.text.push_str("\\n"),
                _ if escapes || letter < ' ' => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        self.text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => self.text.push(letter),
            }
        }
        self.text.push('"');
    }

    fn name(&mut self) {
        let name = self.random.one_of(&[
            "model", "model", "messages", "Model", "models", "mode", "", "a\"b", "tools", "\\", "é",
        ]);
        self.string(name);
    }

    fn value(&mut self, depth: usize) {
        match self.random.below(if depth == 0 { 5 } else { 8 }) {
            0 => self.text.push_str("null"),
            1 => self.text.push_str("-1.5e3"),
            2 => self.text.push_str("true"),
            3 | 4 => {
                let text = self.random.one_of(&[
                    "llama",
                    "org/m-7b:q4",
                    "",
                    "\"model\":\"no\"}",
                    "\\\\\"",
                    "été 😀",
                    "]}{[,:",
                    "a\nb",
                ]);
                self.string(text);
            }
            5 => self.object(depth - 1, 4),
            _ => {
                self.text.push('[');
                for index in 0..self.random.below(4) {
                    if index > 0 {
                        self.text.push(',');
                    }
                    self.space();
                    self.value(depth - 1);
                    self.space();
                }
                self.text.push(']');
            }
        }
    }

    fn object(&mut self, depth: usize, members: usize) {
        self.text.push('{');
        self.space();
        for index in 0..self.random.below(members) {
            if index > 0 {
                self.text.push(',');
                self.space();
            }
            self.name();
            self.space();
            self.text.push(':');
            self.space();
            match depth {
                5 if self.random.below(6) == 0 => self.large(),
                _ => self.value(depth),
            }
            self.space();
        }
        self.text.push('}');
    }

    /// A value like an image, a long prompt or a list of tokens.
    fn large(&mut self) {
        // Some bytes are written as escapes.
        let len = (LARGEST - self.text.len().min(LARGEST)) / 2;
        let len = self.random.below(len + 1) >> self.random.below(12);
        match self.random.below(3) {
            0 => self.string(&"iVBORw0KGgo/".repeat(len / 12)),
            1 => self.string(&"lorem \"ipsum\" \\ {model} ".repeat(len / 24)),
            _ => {
                let tokens = "1024, ".repeat(len / 6);
                self.text.push_str(&format!("[{tokens}7]"));
            }
        }
    }
}

/// A body, and the model that it names.
fn body(random: u64) -> (Vec<u8>, Option<String>) {
    let mut writer = Writer {
        random: Random(random | 1),
        text: String::new(),
    };
    writer.space();
    if writer.random.below(20) == 0 {
        writer.value(5);
    } else {
        writer.object(5, 9);
    }
    writer.space();
    let value: Value = serde_json::from_str(&writer.text).expect("the writer writes JSON");
    let model = match value.get("model") {
        Some(Value::String(model)) if !model.is_empty() => Some(start_of(model)),
        _ => None,
    };
    let mark: &[u8] = match writer.random.below(8) {
        0 => b"\xef\xbb\xbf",
        _ => b"",
    };
    ([mark, writer.text.as_bytes()].concat(), model)
}

fn start_of(model: &str) -> String {
    model[..model.floor_char_boundary(NAME_CAP)].to_owned()
}

/// How a body may be compressed: the values of `Content-Encoding`, and zlib's format without its header.
const CODINGS: [&str; 5] = [
    "identity",
    "gzip",
    "deflate",
    "deflate without header",
    "br",
];

fn compressed(body: &[u8], coding: &str) -> Vec<u8> {
    let level = Compression::fast();
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect("memory takes it");
            encoder.finish().expect("memory takes it")
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect("memory takes it");
            encoder.finish().expect("memory takes it")
        }
        "deflate without header" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect("memory takes it");
            encoder.finish().expect("memory takes it")
        }
        "br" => {
            let mut out = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 1, 18);
            encoder.write_all(body).expect("memory takes it");
            drop(encoder);
            out
        }
        _ => body.to_vec(),
    }
}

/// A connection's records, as the kernel half numbers them.
struct Conversation {
    table: ConnectionTable,
    out: Events,
    record: Record,
}

impl Conversation {
    fn new(mode: u8) -> Self {
        Self {
            table: ConnectionTable::new(true),
            out: Events::default(),
            record: Record {
                cookie: 1,
                mode,
                ..Record::default()
            },
        }
    }

    fn push(&mut self, record: Record, request: &[u8], response: &[u8]) {
        let record = Record {
            request_len: request.len().try_into().expect("a piece"),
            response_len: response.len().try_into().expect("a piece"),
            written_bytes: response.len() as u64,
            ..record
        };
        let entry = [bytemuck::bytes_of(&record), request, response].concat();
        self.table.on_record(&entry, &mut self.out);
    }

    fn read(&mut self, request: &[u8], bytes: usize) {
        self.record.seq += 1;
        let record = Record {
            kind: kind::READ,
            read_bytes: bytes as u64,
            ..self.record
        };
        self.push(record, request, b"");
    }

    /// The models that the bodies of the requests name, and whether that is all that came of the records.
    fn named(&self) -> Vec<Option<String>> {
        let named = |event: &Event| match event {
            Event::Finished(exchange) => {
                let named = exchange.request.named.as_ref();
                assert!(!exchange.request.content_cut || named.is_none());
                named.map(|named| start_of(&named.model))
            }
            other => panic!("{other:?}"),
        };
        self.out.0.iter().map(named).collect()
    }
}

/// Cuts bytes into reads of any length.
fn reads<'a>(random: &mut Random, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let most = [3, 700, PIECE_CAP, PIECE_CAP][random.below(4)];
    let mut reads = vec![];
    while !bytes.is_empty() {
        let most = if bytes.len() > 100_000 {
            PIECE_CAP
        } else {
            most
        };
        let (read, rest) = bytes.split_at((1 + random.below(most)).min(bytes.len()));
        reads.push(read);
        bytes = rest;
    }
    reads
}

fn over_http1(random: &mut Random, body: &[u8], coding: &str) -> Vec<Option<String>> {
    let coding = coding.split(' ').next().expect("memory takes it");
    let mut request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nX: {}\r\nContent-Encoding: {coding}\r\n",
        "x".repeat([0, 30_000][random.below(2)])
    )
    .into_bytes();
    if random.below(2) == 0 {
        request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in reads(random, body) {
            request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
    } else {
        request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
        request.extend(body);
    }
    let mut run = Conversation::new(mode::MESSAGES);
    for read in reads(random, &request) {
        run.read(read, read.len());
    }
    run.record.seq += 1;
    let record = Record {
        kind: kind::EXCHANGE,
        ..run.record
    };
    run.push(record, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    run.named()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len())
        .expect("memory takes it")
        .to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).expect("it is short"));
        field.extend(text.bytes());
    }
    field
}

/// What the kernel half copies of a transfer.
fn copied(walk: &mut FrameCursor, mut bytes: &[u8], data: DataKept) -> Vec<u8> {
    let mut copied = Vec::new();
    while !bytes.is_empty() {
        let kept = (walk.keeps() as usize).min(bytes.len());
        let taken = match kept {
            0 => (walk.skips() as usize).min(bytes.len()),
            kept => kept,
        };
        copied.extend(&bytes[..kept]);
        if walk.is_in_head() {
            for byte in &bytes[..kept] {
                walk.on_head(*byte, data);
            }
        } else {
            if kept > 0 && walk.is_before_body() {
                walk.on_first(bytes[0], data);
            }
            walk.on_payload(u32::try_from(taken).expect("memory takes it"));
        }
        bytes = &bytes[taken..];
    }
    copied
}

fn over_http2(random: &mut Random, body: &[u8], coding: &str) -> Vec<Option<String>> {
    let coding = coding.split(' ').next().expect("memory takes it");
    let fields = [
        literal(":method", "POST"),
        literal(":path", "/v1/chat/completions"),
        literal("content-encoding", coding),
    ]
    .concat();
    let mut request = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(4, 0, 0, b""),
        &frame(1, 4, 1, &fields),
    ]
    .concat();
    for piece in reads(random, body) {
        request.extend(frame(0, 0, 1, piece));
    }
    request.extend(frame(0, 1, 1, b""));
    let mut run = Conversation::new(mode::STREAMS);
    let mut walk = FrameCursor::BEFORE_PREFACE;
    for read in reads(random, &request) {
        let visible = copied(&mut walk, read, DataKept::requests(COPIED_DEFAULT));
        run.read(&visible, read.len());
    }
    let record = Record {
        kind: kind::PROGRESS,
        flags: inferprobe_ebpf::abi::flag::RESPONSES,
        seq: 1,
        ..run.record
    };
    let response = [frame(4, 0, 0, b""), frame(1, 5, 1, b"\x88")].concat();
    run.push(record, b"", &response);
    run.named()
}

/// Nothing is kept of a failure but what it prints.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_body_names_the_model_that_a_whole_reader_of_json_finds(seed in any::<u64>()) {
        let (body, model) = body(seed);
        let mut random = Random(seed | 1);
        for over in [over_http1, over_http2] {
            let coding = random.one_of(&CODINGS);
            let sent = compressed(&body, coding);
            prop_assert_eq!(over(&mut random, &sent, coding), vec![model.clone()], "{}", coding);
        }
    }
}
