//! Tests of one worker connection, with records as the eBPF side emits them.

use crate::exchange::event::Event;

use super::*;

/// What came of the records.
#[derive(Debug, Default)]
struct Pushed {
    exchanges: Vec<WorkerExchange>,
    lost: Vec<Loss>,
}

impl Sink for Pushed {
    fn event(&mut self, event: Event) {
        let Event::Lost(loss) = event else {
            panic!("{event:?}")
        };
        self.lost.push(loss);
    }
}

impl WorkerSink for Pushed {
    fn worked(&mut self, exchanges: WorkerExchange) {
        self.exchanges.push(exchanges);
    }
}

const ID: &str = "f043ec09-d650-4c73-8e29-cab71d5c951f";

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn predict(body: usize) -> Vec<u8> {
    let mut bytes = [b"I", &text(ID)[..], &text("explain"), &text("False")].concat();
    bytes.extend([0xff; 4]);
    bytes.extend([text("body"), text("json"), text(&"x".repeat(body))].concat());
    bytes.extend([0xff; 12]);
    bytes
}

fn reply(body: usize, stream_next: Option<&str>) -> Vec<u8> {
    let mut bytes = 200_i32.to_be_bytes().to_vec();
    bytes.extend([text("Prediction success"), text(ID), text("")].concat());
    bytes.extend(200_i32.to_be_bytes());
    bytes.extend(text(""));
    bytes.extend(u32::from(stream_next.is_some()).to_be_bytes());
    if let Some(value) = stream_next {
        bytes.extend([text("ts_stream_next"), text(value)].concat());
    }
    bytes.extend(text(&"y".repeat(body)));
    bytes.extend([0xff; 4]);
    bytes
}

/// Builds the records of one connection as the kernel half would.
struct Wire {
    connection: Option<WorkerConnection>,
    seq: u32,
    written: u64,
    now_ns: u64,
    out: Pushed,
    /// Whether the frontend reads each reply as soon as it is written.
    prompt_reader: bool,
}

impl Wire {
    fn new() -> Self {
        Self {
            prompt_reader: true,
            connection: None,
            seq: 0,
            written: 0,
            now_ns: 1_000,
            out: Pushed::default(),
        }
    }

    fn record(
        &mut self,
        record_kind: u8,
        (request, read_bytes): (&[u8], usize),
        (response, response_bytes): (&[u8], usize),
    ) {
        self.seq += 1;
        self.now_ns += 1_000;
        if record_kind == kind::EXCHANGE {
            self.written = 0;
        }
        self.written += response_bytes as u64;
        let record = Record {
            cookie: 5,
            arrival_ns: self.now_ns,
            first_read_ns: self.now_ns + 10,
            last_read_ns: self.now_ns + 20,
            read_bytes: read_bytes as u64,
            first_write_ns: self.now_ns + 300,
            last_write_ns: self.now_ns + 400,
            written_bytes: self.written,
            tail: 0xff_ff_ff_ff,
            seq: self.seq,
            tgid: 7,
            kind: record_kind,
            flags: flag::ARRIVAL_KNOWN | flag::UNIX | flag::WRITE_AT_RETURN,
            ..Record::default()
        };
        let peer = Peer {
            cookie: 5,
            tgid: 7,
            local_port: None,
            peer_port: None,
            accepted_ns: None,
            client: None,
        };
        let view = RecordView {
            arrived: &[],
            record,
            request,
            response,
        };
        self.connection
            .get_or_insert_with(|| WorkerConnection::new(&record, peer))
            .on_record(&view, &mut self.out);
        if self.prompt_reader && response_bytes > 0 {
            self.read_reply(response_bytes as u64, self.now_ns + 410);
        }
    }

    fn exchange(&mut self, request: &[u8], response: &[u8]) {
        self.record(
            kind::EXCHANGE,
            (request, request.len()),
            (response, response.len()),
        );
    }

    fn read_reply(&mut self, read_bytes: u64, last_read_ns: u64) {
        let record = Record {
            cookie: 5,
            kind: kind::REPLY_READ,
            read_bytes,
            last_read_ns,
            ..Record::default()
        };
        let view = RecordView {
            arrived: &[],
            record,
            request: b"",
            response: b"",
        };
        let connection = self.connection.as_mut().unwrap();
        connection.on_record(&view, &mut self.out);
    }

    /// The exchanges, if nothing was lost.
    fn exchanges(&self) -> &[WorkerExchange] {
        assert_eq!(self.out.lost, []);
        &self.out.exchanges
    }
}

fn ids(command: &WorkerCommand) -> Vec<Option<&str>> {
    let WorkerCommand::Predict { requests, .. } = command else {
        panic!("{command:?}")
    };
    requests
        .iter()
        .map(|request| request.id.as_deref())
        .collect()
}

#[test]
fn a_frame_and_its_reply_are_one_exchange() {
    let mut wire = Wire::new();
    wire.exchange(&predict(10), &reply(10, None));
    wire.exchange(&predict(10), &reply(10, None));
    let exchanges = wire.exchanges();
    assert_eq!(exchanges.len(), 2);
    assert_eq!(ids(&exchanges[1].command), [Some(ID)]);
    assert_eq!(
        (exchanges[1].arrival_ns, exchanges[1].last_read_ns),
        (Some(3_000), 3_020)
    );
    assert_eq!(
        (exchanges[1].first_write_ns, exchanges[1].last_write_ns),
        (Some(3_300), 3_400)
    );
    assert_eq!(
        (exchanges[1].reply.code, exchanges[1].reply.whole),
        (200, true)
    );
    let idle_since_ns = [exchanges[0].idle_since_ns, exchanges[1].idle_since_ns];
    assert_eq!(idle_since_ns, [None, Some(2_400)]);
}

#[test]
fn a_frame_in_pieces_keeps_its_first_arrival_and_last_read() {
    let mut wire = Wire::new();
    let bytes = predict(300_000);
    let value = bytes.iter().position(|&byte| byte == b'x').unwrap();
    wire.record(kind::READ, (&bytes[..44], 44), (b"", 0));
    wire.record(
        kind::READ,
        (&bytes[44..value], value - 44 + 300_000),
        (b"", 0),
    );
    let response = reply(10, None);
    wire.record(
        kind::EXCHANGE,
        (&bytes[value + 300_000..], 12),
        (&response, response.len()),
    );
    let exchanges = wire.exchanges();
    assert_eq!(ids(&exchanges[0].command), [Some(ID)]);
    assert_eq!(
        (exchanges[0].arrival_ns, exchanges[0].last_read_ns),
        (Some(2_000), 4_020)
    );
}

#[test]
fn a_big_reply_ends_with_its_last_write_and_its_start_is_only_bounded() {
    let mut wire = Wire::new();
    let (request, response) = (predict(10), reply(500_000, None));
    wire.record(
        kind::EXCHANGE,
        (&request, request.len()),
        (&response[..1_024], response.len()),
    );
    wire.exchange(&request, &reply(10, None));
    let exchanges = wire.exchanges();
    assert_eq!(
        (exchanges[0].reply.code, exchanges[0].reply.whole),
        (200, false)
    );
    assert_eq!(
        (exchanges[0].first_write_ns, exchanges[0].last_write_ns),
        (None, 2_400)
    );
    assert_eq!(exchanges.len(), 2);
}

#[test]
fn a_streamed_reply_is_one_exchange() {
    let mut wire = Wire::new();
    wire.exchange(&predict(10), &reply(5_000, Some("true"))[..1_024]);
    for next in ["true", "false"] {
        let part = reply(5_000, Some(next));
        wire.record(kind::PROGRESS, (b"", 0), (&part[..1_024], part.len()));
    }
    wire.exchange(&predict(10), &reply(10, None));
    let exchanges = wire.exchanges();
    assert_eq!(exchanges.len(), 2);
    assert_eq!(
        (exchanges[0].first_write_ns, exchanges[0].last_write_ns),
        (Some(2_300), 4_400)
    );
}

#[test]
fn a_reply_goes_on_once_it_is_read() {
    let mut wire = Wire::new();
    wire.prompt_reader = false;
    let response = reply(10, None);
    let bytes = response.len() as u64;
    wire.exchange(&predict(10), &response);
    wire.read_reply(bytes - 1, 2_500);
    assert!(wire.exchanges().is_empty());
    wire.read_reply(1, 2_600);
    // The read may be told before the write.
    let request = predict(10);
    wire.record(kind::READ, (&request[..9], 9), (b"", 0));
    wire.read_reply(bytes, 4_350);
    wire.exchange(&request[9..], &response);
    // A read that was not seen is not waited for.
    wire.exchange(&predict(10), &response);
    wire.exchange(&predict(10), &response);
    let connection = wire.connection.as_mut().unwrap();
    assert!(connection.awaits_reader());
    connection.end_if_quiet(wire.now_ns + 400 + REPLY_READ_WAIT_NS, &mut wire.out);
    let reply_read_ns: Vec<_> = wire
        .exchanges()
        .iter()
        .map(|exchanges| exchanges.reply_read_ns)
        .collect();
    assert_eq!(reply_read_ns, [Some(2_600), Some(4_350), None, None]);
}

#[test]
fn what_is_no_frame_is_counted_and_left() {
    let mut wire = Wire::new();
    wire.exchange(b"X marks nothing", b"nor does this");
    assert_eq!(
        wire.out.lost,
        [Loss::NotFramed, Loss::ResponseWithoutRequest]
    );
    wire.out = Pushed::default();
    wire.exchange(&predict(10), &reply(10, None));
    assert_eq!(wire.exchanges().len(), 1);
}

#[test]
fn a_lost_record_costs_the_frame_it_belongs_to() {
    let mut wire = Wire::new();
    wire.record(kind::READ, (&predict(10)[..20], 20), (b"", 0));
    wire.seq += 1;
    wire.exchange(&predict(10), &reply(10, None));
    assert_eq!(wire.out.lost, [Loss::Resynchronised]);
    wire.out.lost.clear();
    assert_eq!(wire.exchanges().len(), 1);
}

#[test]
fn a_worker_that_ends_leaves_its_frame_unanswered() {
    let mut wire = Wire::new();
    let request = predict(10);
    wire.record(kind::READ, (&request, request.len()), (b"", 0));
    let connection = wire.connection.as_mut().unwrap();
    assert!(!connection.is_idle());
    connection.close(&mut wire.out);
    assert_eq!(wire.out.lost, [Loss::WorkerUnanswered]);
}
