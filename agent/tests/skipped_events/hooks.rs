//! The hooks of one connection: what the programs do with the library's decisions, and the agent's side of it.
//!
//! The server's calls run one after the other.

use inferprobe::{
    exchange::{
        Exchange,
        event::{Event, Loss, Sink, Unfinished},
    },
    pipeline::connections::ConnectionTable,
    torchserve::{connection::WorkerSink, exchange::WorkerExchange},
};
use inferprobe_ebpf::{
    abi::{Record, kind, mode},
    arrival::Arrival,
    conn::{Conn, phase},
    http2_frames::FrameCursor,
    segment::{COPIED_DEFAULT, READ_END_CAP, SendPlan, WRITE_END_CAP, WriteHint},
    sniff::{
        PEEK, ends_json, looks_like_chunk, looks_like_event, looks_like_line, looks_like_request,
        looks_like_response, mode_of,
    },
    unobserved::Unobserved,
};
use inferprobe_tests::scripted_server::script::Script;

use crate::transfer::{Skip, Transfer};

/// Time between two events, ns; longer than what the kernel half merges.
const EVENT_NS: u64 = 1_000_000;
/// How long before its read a byte arrives, and before its return a write starts, ns.
const BEFORE_NS: u64 = 5_000;
/// Most bytes of one copy.
const STEP_CAP: u32 = 1024;

/// What came of the records.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) finished: Vec<Exchange>,
    pub(crate) unfinished: Vec<Unfinished>,
    pub(crate) lost: Vec<Loss>,
    /// Bytes that were counted.
    pub(crate) bytes: u64,
}

impl Sink for Outcome {
    fn event(&mut self, event: Event) {
        match event {
            Event::Finished(exchange) => self.finished.push(exchange),
            Event::Unfinished(reason) => self.unfinished.push(reason),
            Event::Lost(loss) => self.lost.push(loss),
            Event::Abandoned(..) | Event::Accepted(..) | Event::Tls(..) => {}
        }
    }
}

impl WorkerSink for Outcome {
    fn worked(&mut self, _: WorkerExchange) {}
}

/// Direction of the bytes that are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Requests,
    Responses,
}

/// A connection, and how far its bytes have moved.
pub(crate) struct Hooks {
    conn: Conn,
    table: ConnectionTable,
    out: Outcome,
    read_position: u32,
    write_position: u32,
    /// Whether the kernel keeps positions, as for TCP.
    has_positions: bool,
    now_ns: u64,
}

impl Hooks {
    fn new(has_positions: bool) -> Self {
        let mut conn = Conn::new();
        conn.record.cookie = 5;
        conn.record.tgid = 7;
        conn.record.local_port = 80;
        conn.record.peer_port = 81;
        if has_positions {
            // As at the arrival of the first byte.
            conn.queue.positioned = 1;
            conn.set_written(0);
        }
        Self {
            conn,
            table: ConnectionTable::new(true),
            out: Outcome::default(),
            read_position: 0,
            write_position: 0,
            has_positions,
            now_ns: EVENT_NS,
        }
    }

    /// Plays the transfers of a script without what is skipped, and ends the connection.
    pub(crate) fn play(
        script: &Script,
        all: &[Transfer],
        skipped: &[Skip],
        has_positions: bool,
    ) -> Outcome {
        let mut hooks = Self::new(has_positions);
        for (number, transfer) in all.iter().enumerate() {
            hooks.now_ns += EVENT_NS;
            let is_skipped = skipped.contains(&Skip::Return(number));
            match transfer {
                Transfer::Read(range) => {
                    hooks.read_position += u32::try_from(range.len()).expect("short");
                    if !is_skipped {
                        hooks.read(&script.sent[range.clone()]);
                    }
                }
                Transfer::Write(range) => {
                    if !skipped.contains(&Skip::Start(number)) {
                        let is_late = skipped.contains(&Skip::Late(number));
                        hooks.start_write(if is_late { 0 } else { BEFORE_NS });
                    }
                    hooks.write_position += u32::try_from(range.len()).expect("short");
                    if !is_skipped {
                        hooks.write(&script.answered[range.clone()]);
                    }
                }
            }
        }
        hooks.now_ns += EVENT_NS;
        hooks.close();
        let counts = hooks.table.coverage.drain().map(|(_, counts)| counts);
        hooks.out.bytes = counts.map(|counts| counts.seen_bytes).sum();
        hooks.out
    }

    fn push(&mut self, record: Record, payload: &[u8]) {
        let entry = [bytemuck::bytes_of(&record), payload].concat();
        self.table.on_record(&entry, &mut self.out);
    }

    fn emit(&mut self, record_kind: u8) {
        let len = usize::from(self.conn.seal(record_kind, self.now_ns));
        let payload = self.conn.payload[..len].to_vec();
        self.push(self.conn.record, &payload);
        self.conn.on_emitted();
    }

    fn report(&mut self, bytes: Unobserved) {
        if bytes.is_none() {
            return;
        }
        if let Some(cut) = self.conn.before_close() {
            self.emit(cut);
        }
        self.conn.on_unobserved(bytes);
        let record = Record {
            kind: kind::UNOBSERVED,
            flags: 0,
            seq: self.conn.record.seq + 1,
            read_bytes: u64::try_from(bytes.read).unwrap_or(0),
            written_bytes: u64::try_from(bytes.written).unwrap_or(0),
            last_read_ns: self.now_ns,
            request_len: 0,
            response_len: 0,
            ..self.conn.record
        };
        self.push(record, &[]);
    }

    fn read(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("short");
        let (first, known) = peek(bytes);
        if self.conn.progress.phase == phase::IDLE {
            self.conn.set_mode(mode_of(first, known, len));
        }
        let is_reading = self.conn.progress.phase == phase::READING;
        let request_like = is_reading
            && self.conn.record.mode == mode::MESSAGES
            && looks_like_request(first, known);
        if self.has_positions {
            self.before_read(len);
        }
        let plan = self.conn.plan_recv(len, request_like);
        if let Some(cut) = plan.cut {
            self.emit(cut);
        }
        let arrival = (Arrival::At(self.now_ns - BEFORE_NS), true);
        self.conn.queue.consumed = self.read_position;
        let capture = self
            .conn
            .on_recv(self.now_ns, len, arrival, plan, COPIED_DEFAULT);
        if self.conn.is_copied_stepwise(len) {
            self.copy_stepwise(bytes, Side::Requests);
            return;
        }
        self.copy(capture.at, &bytes[..capture.len.into()]);
        self.conn.on_request_captured(capture, capture.len);
    }

    fn before_read(&mut self, len: u32) {
        let mut bytes = Unobserved {
            read: self.conn.read_before(self.read_position - len),
            written: 0,
        };
        let position = self.write_position;
        if let Some(position) = self.conn.moved_on(|| Some(position)) {
            bytes.written = self.conn.on_written(position, 0);
        } else if self.conn.progress.positioned == 0 {
            self.conn.set_written(position);
        }
        if !bytes.is_none() && self.conn.progress.phase == phase::IDLE {
            bytes.written += i32::try_from(self.conn.record.written_bytes).expect("short");
        }
        self.report(bytes);
    }

    fn start_write(&mut self, before_ns: u64) {
        let start_ns = self.now_ns - before_ns;
        self.conn.progress.reports_starts = 1;
        self.conn.on_send_start(|| start_ns);
    }

    fn write(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("short");
        let is_idle = self.conn.progress.phase == phase::IDLE;
        if self.has_positions {
            let written = self.conn.on_written(self.write_position, len);
            if is_idle {
                let before = &mut self.conn.record.written_bytes;
                *before = before.wrapping_add_signed(written.into());
            } else {
                let read = self.conn.read_before(self.read_position);
                self.conn.queue.consumed = self.read_position;
                self.report(Unobserved { read, written });
            }
        }
        if is_idle {
            self.conn.on_unread_send(len);
            return;
        }
        let tail = bytes.iter().fold(self.conn.record.tail, |tail, byte| {
            tail << 8 | u64::from(*byte)
        });
        let is_writing = self.conn.progress.phase == phase::WRITING;
        let hint = match is_writing && self.conn.record.mode == mode::MESSAGES {
            true => hint_of(bytes, tail),
            false => WriteHint::default(),
        };
        let may_exceed_head = self.conn.may_exceed_head(len, hint, false);
        let stepwise = !may_exceed_head && self.conn.is_written_stepwise(len, hint, tail, false);
        if self.conn.send_cuts(hint) || stepwise && self.conn.progress.pending != 0 {
            self.emit(kind::PROGRESS);
        }
        let Some(plan) = self.conn.on_send(self.now_ns, len, hint) else {
            return;
        };
        if stepwise {
            self.write_stepwise(bytes, plan, false, tail);
            return;
        }
        self.conn.record.tail = tail;
        let copied = &bytes[..plan.capture.len.into()];
        self.copy(plan.capture.at, copied);
        self.conn
            .on_response_captured(plan.capture, plan.capture.len);
        if may_exceed_head {
            let in_head = !copied.windows(4).any(|bytes| bytes == b"\r\n\r\n");
            if in_head || ends_json(tail) && bytes.len() > copied.len() {
                self.write_stepwise(bytes, plan, in_head, tail);
                return;
            }
            self.conn.progress.head_left = 0;
        }
        self.conn.end_head(tail);
        match plan.emit {
            Some(record_kind) => self.emit(record_kind),
            None => self.conn.progress.pending = 1,
        }
    }

    fn write_stepwise(&mut self, bytes: &[u8], plan: SendPlan, in_head: bool, tail: u64) {
        let len = u32::try_from(bytes.len()).expect("short");
        self.conn.on_send_stepwise(len, plan, in_head, tail);
        self.copy_stepwise(bytes, Side::Responses);
        self.conn.cursors.responses = FrameCursor::START;
        self.conn.record.tail = tail;
        let record_kind = self.conn.next_piece();
        self.emit(record_kind);
    }

    fn copy(&mut self, at: u16, bytes: &[u8]) {
        let at = usize::from(at);
        self.conn.payload[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Copies a transfer that does not fit one record.
    fn copy_stepwise(&mut self, bytes: &[u8], side: Side) {
        let responses = side == Side::Responses;
        let mut left = u32::try_from(bytes.len()).expect("short");
        let mut end = match side {
            Side::Requests => READ_END_CAP,
            Side::Responses => WRITE_END_CAP,
        };
        while left > 0 {
            let kept = self.conn.frames(responses).keeps();
            if kept == 0 && left <= end {
                self.emit_full(responses);
                *self.conn.frames(responses) = FrameCursor::copying(left);
                end = 0;
                continue;
            }
            let kept = kept.min(left).min(STEP_CAP);
            if kept > self.conn.room(responses) {
                self.emit_full(responses);
                continue;
            }
            let step = if kept > 0 { kept } else { left - end };
            let from = bytes.len() - left as usize;
            if kept > 0 {
                let at = self.conn.record.request_len + self.conn.record.response_len;
                self.copy(at, &bytes[from..from + step as usize]);
            }
            self.conn.frames(responses).on_payload(step);
            self.conn.on_copied(responses, step, kept > 0);
            left -= step;
        }
    }

    fn emit_full(&mut self, responses: bool) {
        if responses {
            let record_kind = self.conn.next_piece();
            self.emit(record_kind);
        } else {
            self.emit(kind::READ);
            self.conn.on_record_full();
        }
    }

    fn close(&mut self) {
        let mut bytes = Unobserved::NONE;
        if self.has_positions {
            bytes.read = self.conn.read_before(self.read_position);
            bytes.written = self.conn.written_since(self.write_position);
        }
        if self.conn.progress.phase == phase::IDLE {
            bytes.written += i32::try_from(self.conn.record.written_bytes).expect("short");
        }
        self.report(bytes);
        if let Some(cut) = self.conn.before_close() {
            self.emit(cut);
        }
        self.emit(kind::CLOSE);
    }
}

fn hint_of(bytes: &[u8], tail: u64) -> WriteHint {
    let (first, known) = peek(bytes);
    let len = u32::try_from(bytes.len()).expect("short");
    WriteHint {
        response_like: looks_like_response(first, known),
        chunk_like: looks_like_chunk(first, known, len)
            || looks_like_event(first, known)
            || looks_like_line(first, known, tail),
    }
}

fn peek(bytes: &[u8]) -> ([u8; PEEK], usize) {
    let mut first = [0; PEEK];
    let known = bytes.len().min(PEEK);
    first[..known].copy_from_slice(&bytes[..known]);
    (first, known)
}
