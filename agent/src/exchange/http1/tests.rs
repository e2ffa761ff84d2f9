use inferprobe_ebpf::segment::COPIED_DEFAULT;

use super::*;

/// Builds the records of one connection as the kernel half would.
struct Wire {
    connection: Option<Http1Connection>,
    seq: u32,
    written: u64,
    now_ns: u64,
    out: Vec<Event>,
    alive: bool,
}

const PEER: Peer = Peer {
    cookie: 5,
    tgid: 7,
    local_port: Some(80),
    peer_port: Some(81),
    accepted_ns: None,
    client: None,
};

impl Wire {
    fn new() -> Self {
        Self {
            connection: None,
            seq: 0,
            written: 0,
            now_ns: 1_000,
            out: Vec::new(),
            alive: true,
        }
    }

    fn record(&mut self, record_kind: u8, request: &[u8], response: &[u8]) {
        self.seq += 1;
        self.now_ns += 1_000;
        let now_ns = self.now_ns;
        if record_kind == kind::EXCHANGE {
            self.written = 0;
        }
        self.written += response.len() as u64;
        let mut last = [0; 8];
        let kept = response.len().min(8);
        last[8 - kept..].copy_from_slice(&response[response.len() - kept..]);
        let record = Record {
            cookie: 5,
            arrival_ns: now_ns,
            first_read_ns: now_ns + 10,
            last_read_ns: now_ns + 20,
            read_bytes: request.len() as u64,
            first_write_ns: now_ns + 300,
            last_write_ns: now_ns + 400,
            written_bytes: self.written,
            tail: u64::from_be_bytes(last),
            seq: self.seq,
            tgid: 7,
            local_port: 80,
            peer_port: 81,
            kind: record_kind,
            flags: flag::ARRIVAL_KNOWN,
            ..Record::default()
        };
        let view = RecordView {
            arrived: &[],
            record,
            request,
            response,
        };
        let connection = self
            .connection
            .get_or_insert_with(|| Http1Connection::new(&record, PEER, COPIED_DEFAULT));
        self.alive = connection.on_record(&view, &mut self.out);
    }

    fn finished(&self) -> Vec<(u32, &str, u16)> {
        self.out
            .iter()
            .filter_map(|outcome| match outcome {
                Event::Finished(exchange) => Some((
                    exchange.request.index,
                    exchange.request.target.as_str(),
                    exchange.response.status,
                )),
                _ => None,
            })
            .collect()
    }

    fn others(&self) -> Vec<&Event> {
        self.out
            .iter()
            .filter(|outcome| !matches!(outcome, Event::Finished(_)))
            .collect()
    }
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn keep_alive_requests_pair_in_order() {
    let mut wire = Wire::new();
    for _ in 0..3 {
        wire.record(kind::EXCHANGE, GET, OK);
    }
    assert_eq!(
        wire.finished(),
        [(0, "/a", 200), (1, "/a", 200), (2, "/a", 200)]
    );
    assert!(wire.others().is_empty());
    let Event::Finished(exchange) = &wire.out[1] else {
        panic!("{:?}", wire.out[1])
    };
    assert_eq!(exchange.request.arrival_ns, Some(3_000));
    assert_eq!(exchange.request.last_read_ns, 3_020);
    assert_eq!(
        (
            exchange.response.first_write_ns,
            exchange.response.last_write_ns
        ),
        (3_300, Some(3_400))
    );
}

#[test]
fn a_continue_is_not_the_response() {
    let mut wire = Wire::new();
    wire.record(
        kind::EXCHANGE,
        b"POST /a HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    );
    wire.record(kind::EXCHANGE, b"body", OK);
    let Event::Finished(exchange) = &wire.out[0] else {
        panic!("{:?}", wire.out)
    };
    assert_eq!(
        (
            exchange.request.first_read_ns,
            exchange.request.last_read_ns
        ),
        (2_010, 3_020)
    );
    assert_eq!(exchange.response.first_write_ns, 3_300);
    assert_eq!(wire.out.len(), 1);
}

#[test]
fn a_response_before_the_body_is_read_keeps_its_own_times() {
    let mut wire = Wire::new();
    wire.record(
        kind::EXCHANGE,
        b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n",
    );
    wire.record(kind::READ, b"012345678", b"");
    wire.record(kind::EXCHANGE, GET, OK);
    assert_eq!(wire.finished(), [(0, "/a", 413), (1, "/a", 200)]);
    assert!(wire.others().is_empty());
}

#[test]
fn requests_read_ahead_wait_for_their_responses() {
    let mut wire = Wire::new();
    wire.record(kind::READ, b"GET /1 HTTP/1.1\r\n\r\n", b"");
    wire.record(kind::EXCHANGE, b"GET /2 HTTP/1.1\r\n\r\n", OK);
    wire.record(kind::PROGRESS, b"", OK);
    assert_eq!(wire.finished(), [(0, "/1", 200), (1, "/2", 200)]);
}

#[test]
fn a_response_to_head_has_no_body() {
    let mut wire = Wire::new();
    wire.record(
        kind::EXCHANGE,
        b"HEAD /a HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n",
    );
    wire.record(kind::EXCHANGE, GET, OK);
    assert_eq!(wire.finished().len(), 2);
}

#[test]
fn request_without_response_at_close_is_unfinished() {
    let mut wire = Wire::new();
    wire.record(kind::READ, GET, b"");
    wire.record(
        kind::READ,
        b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
        b"",
    );
    wire.record(kind::CLOSE, b"", b"");
    assert!(!wire.alive);
    let [
        Event::Unfinished(Unfinished::Unanswered),
        Event::Abandoned(_, request),
        Event::Unfinished(Unfinished::Incomplete),
    ] = &wire.out[..]
    else {
        panic!("{:?}", wire.out)
    };
    assert_eq!(request.target, "/a");
}

#[test]
fn a_response_that_ends_with_the_connection_ends_at_its_last_write() {
    let mut wire = Wire::new();
    wire.record(kind::EXCHANGE, GET, b"HTTP/1.0 200 OK\r\n\r\nbody");
    assert!(wire.out.is_empty());
    wire.record(kind::CLOSE, b"", b"");
    let Event::Finished(exchange) = &wire.out[0] else {
        panic!("{:?}", wire.out)
    };
    assert_eq!(exchange.response.last_write_ns, Some(2_400));
}

#[test]
fn gap_discards_open_requests_and_resumes_with_the_next() {
    let mut wire = Wire::new();
    wire.record(kind::READ, GET, b"");
    wire.seq += 1;
    wire.record(kind::EXCHANGE, b"GET /after HTTP/1.1\r\n\r\n", OK);
    assert_eq!(wire.finished(), [(1, "/after", 200)]);
    assert_eq!(
        wire.others(),
        [
            &Event::Lost(Loss::Resynchronised),
            &Event::Unfinished(Unfinished::LostRecords)
        ]
    );
}

#[test]
fn a_response_whose_request_was_not_seen_is_not_paired() {
    let mut wire = Wire::new();
    wire.seq = 3;
    wire.record(kind::PROGRESS, b"", OK);
    assert_eq!(wire.out, [Event::Lost(Loss::ResponseWithoutRequest)]);
}

#[test]
fn held_back_progress_ends_a_long_response() {
    let mut wire = Wire::new();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    wire.record(kind::EXCHANGE, GET, head);
    let mut out = Vec::new();
    let slot = ProgressSlot {
        cookie: 5,
        last_write_ns: 9_000,
        written_bytes: head.len() as u64 + 100,
        seq: 1,
        ..ProgressSlot::default()
    };
    wire.connection
        .as_mut()
        .unwrap()
        .on_progress(&slot, &mut out);
    let [Event::Finished(exchange)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(exchange.response.last_write_ns, Some(9_000));
}

#[test]
fn request_read_on_after_its_response_began_is_one_early_exchange() {
    let mut wire = Wire::new();
    let head = b"POST /d HTTP/1.1\r\nContent-Length: 20\r\n\r\n01234";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
    wire.record(kind::EXCHANGE, head, chunked);
    wire.record(kind::EXCHANGE, b"56789", b"2\r\nho\r\n");
    wire.record(kind::EXCHANGE, b"0123456789", b"0\r\n\r\n");
    wire.record(kind::EXCHANGE, GET, OK);
    assert_eq!(wire.finished(), [(0, "/d", 200), (1, "/a", 200)]);
    assert!(wire.others().is_empty());
    let exchange = |at: usize| match &wire.out[at] {
        Event::Finished(exchange) => exchange.clone(),
        other => panic!("{other:?}"),
    };
    let (duplex, next) = (exchange(0), exchange(1));
    assert_eq!(duplex.request.bytes, head.len() as u64 + 15);
    assert_eq!(duplex.request.last_read_ns, 4_020);
    assert_eq!(duplex.response.last_write_ns, Some(4_400));
    assert!(duplex.overlaps() && duplex.request.complete);
    assert!(!next.overlaps());
}

#[test]
fn response_to_a_request_that_is_not_read_on_is_early() {
    let mut wire = Wire::new();
    let head = b"POST /d HTTP/1.1\r\nContent-Length: 20\r\n\r\n";
    wire.record(kind::EXCHANGE, head, OK);
    wire.record(kind::READ, b"01234567890123456789", b"");
    wire.record(kind::EXCHANGE, GET, OK);
    assert_eq!(wire.finished(), [(0, "/d", 200), (1, "/a", 200)]);
    let Event::Finished(refused) = &wire.out[0] else {
        panic!("{:?}", wire.out[0])
    };
    assert!(refused.overlaps());
    assert_eq!(refused.request.bytes, head.len() as u64);
    assert_eq!(wire.connection.unwrap().take_missed_bytes(), 0);
}

#[test]
fn websocket_session_is_one_request_that_ends_with_the_connection() {
    const AGREED: &[u8] = b"HTTP/1.1 101 -\r\nUpgrade: websocket\r\n\r\n";
    let mut wire = Wire::new();
    wire.record(kind::EXCHANGE, GET, &[AGREED, b"\x81\x02hi"].concat());
    assert!(wire.out.is_empty());
    let open = wire.connection.as_ref().unwrap().open_requests(None);
    assert_eq!(open.len(), 1);
    wire.record(kind::EXCHANGE, b"\x81\x82\0\0\0\0hi", b"\x81\x02hi");
    wire.record(kind::READ, b"\x89\x80\0\0\0\0", b"");
    wire.record(kind::CLOSE, b"", b"");
    let [Event::Finished(exchange)] = &wire.out[..] else {
        panic!("{:?}", wire.out)
    };
    let (request, response) = (&exchange.request, &exchange.response);
    assert_eq!((response.status, response.first_write_ns), (101, 2_300));
    assert_eq!(response.last_write_ns, Some(4_020));
    let messages = response.session.unwrap();
    assert_eq!((messages.received, messages.sent), (Some(1), Some(2)));
    assert_eq!(request.bytes, GET.len() as u64 + 8 + 6);
    assert_eq!(response.bytes, AGREED.len() as u64 + 8);
    assert!(!exchange.overlaps());
}
