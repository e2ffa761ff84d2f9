use inferprobe_ebpf::{
    abi::{Record, flag, kind, mode},
    http2_frames::{DataKept, FrameCursor},
    view::RecordView,
};

use super::*;
use crate::{
    exchange::Exchange,
    protocol::tls::hello::fixtures::{client, older_server, server},
};

const PEER: Peer = Peer {
    cookie: 5,
    tgid: 7,
    local_port: Some(443),
    peer_port: Some(81),
    accepted_ns: None,
    client: None,
};
/// What TLS 1.3 with AES-128-GCM adds to a record.
const OVER: usize = 17;
/// The client's Finished.
const FINISHED: usize = 4 + 32;

/// A record of TLS.
fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
    let len = u16::try_from(fragment.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, len[0], len[1]][..], fragment].concat()
}

/// A record of TLS 1.3 with so many bytes of plaintext.
fn sealed(plaintext: usize) -> Vec<u8> {
    record(record_type::DATA, &vec![0xee; plaintext + OVER])
}

/// Plays transfers to a connection as the kernel half reports them.
struct Player {
    connection: Option<TlsConnection>,
    listeners: Listeners,
    plaintexts: Option<Plaintexts>,
    moved: u32,
    cursors: [FrameCursor; 2],
    seq: u32,
    written_bytes: u64,
    now_ns: u64,
    out: Vec<Event>,
    missed_bytes: u64,
    bytes: u64,
}

impl Player {
    fn new(listeners: &Listeners) -> Self {
        Self {
            connection: None,
            listeners: listeners.clone(),
            plaintexts: None,
            moved: 0,
            cursors: [FrameCursor::BEFORE_RECORDS; 2],
            seq: 0,
            written_bytes: 0,
            now_ns: 1_000_000,
            out: Vec::new(),
            missed_bytes: 0,
            bytes: 0,
        }
    }

    /// What the kernel half copies of a transfer.
    fn copied(&mut self, side: usize, bytes: &[u8]) -> Vec<u8> {
        let cursor = &mut self.cursors[side];
        let mut copied = Vec::new();
        let mut rest = bytes;
        cursor.on_transfer();
        while !rest.is_empty() {
            let kept = (cursor.keeps() as usize).min(rest.len());
            let step = match kept {
                0 => (cursor.skips() as usize).min(rest.len()),
                kept => kept,
            };
            copied.extend(&rest[..kept]);
            if cursor.is_in_head() {
                for &byte in &rest[..kept] {
                    cursor.on_head(byte, DataKept::RESPONSES);
                }
            } else {
                cursor.on_payload(step as u32);
            }
            rest = &rest[step..];
        }
        copied
    }

    fn push(&mut self, record: Record, request: &[u8], response: &[u8]) {
        self.seq += 1;
        let record = Record {
            seq: self.seq,
            tgid: PEER.tgid,
            mode: mode::RECORDS,
            ..record
        };
        let view = RecordView {
            arrived: &[],
            record,
            request,
            response,
        };
        let connection = self.connection.get_or_insert_with(|| {
            TlsConnection::new(
                &record,
                PEER,
                self.listeners.clone(),
                self.plaintexts.clone(),
            )
        });
        connection.on_record(&view, &mut self.out);
        self.missed_bytes += connection.take_missed_bytes();
    }

    /// What the library read, or wrote.
    fn move_plaintext(&mut self, read: &[u8], written: &[u8]) {
        self.moved += 1;
        let record = Record {
            kind: kind::PLAINTEXT,
            cookie: 0x1000,
            tgid: PEER.tgid,
            reader_tid: 70,
            seq: self.moved,
            read_bytes: read.len() as u64,
            written_bytes: written.len() as u64,
            ..Record::NONE
        };
        self.plaintexts.as_ref().unwrap().push(&RecordView {
            record,
            request: read,
            response: written,
            arrived: &[],
        });
    }

    /// A request and its response, whose records have so many bytes more than the library says.
    fn exchange(&mut self, request: &[u8], response: &[u8], more: [usize; 2]) -> &mut Self {
        self.move_plaintext(request, &[]);
        self.read(&sealed(request.len() + more[0]));
        self.move_plaintext(&[], response);
        self.write(&sealed(response.len() + more[1]))
    }

    /// Target and status of each exchange.
    fn contents(&self) -> Vec<(&str, u16)> {
        let exchanges = self.exchanges().into_iter();
        exchanges
            .map(|exchange| (&*exchange.request.target, exchange.response.status))
            .collect()
    }

    /// How many exchanges were read, and how many only timed.
    fn counts(&self) -> (usize, usize) {
        let count = |wanted: TlsEvent| {
            let events = self.out.iter();
            let is_it = |event: &&Event| matches!(event, Event::Tls(_, other) if *other == wanted);
            events.filter(is_it).count()
        };
        (count(TlsEvent::Read), count(TlsEvent::Timed))
    }

    /// Advances the clock by 1 µs.
    fn tick(&mut self) -> u64 {
        self.now_ns += 1_000;
        self.now_ns
    }

    fn read(&mut self, bytes: &[u8]) -> &mut Self {
        let now_ns = self.tick();
        self.read_at(bytes, now_ns - 500)
    }

    fn read_at(&mut self, bytes: &[u8], arrival_ns: u64) -> &mut Self {
        let copied = self.copied(0, bytes);
        self.written_bytes = 0;
        self.bytes += bytes.len() as u64;
        let record = Record {
            kind: kind::READ,
            flags: flag::ARRIVAL_KNOWN | flag::ONE_ARRIVAL,
            arrival_ns,
            first_read_ns: self.now_ns,
            last_read_ns: self.now_ns,
            read_bytes: bytes.len() as u64,
            ..Record::NONE
        };
        self.push(record, &copied, &[]);
        self
    }

    fn write(&mut self, bytes: &[u8]) -> &mut Self {
        let copied = self.copied(1, bytes);
        let start_ns = self.tick();
        self.written_bytes += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        let record = Record {
            kind: kind::PROGRESS,
            first_write_ns: start_ns,
            last_write_ns: start_ns + 100,
            written_bytes: self.written_bytes,
            ..Record::NONE
        };
        self.push(record, &[], &copied);
        self
    }

    fn close(&mut self) -> &mut Self {
        self.tick();
        let record = Record {
            kind: kind::CLOSE,
            ..Record::NONE
        };
        self.push(record, &[], &[]);
        self
    }

    /// The server's flight and the client's Finished, with nothing after it. `chosen` is how many bytes the chosen protocol
    /// adds to the encrypted extensions; `None`: all of the flight is one record.
    fn shake(&mut self, offered: &[&str], chosen: Option<usize>, resumed: bool) -> &mut Self {
        self.begin(offered, chosen, resumed);
        let finished = [record(record_type::CHANGE, &[1]), sealed(FINISHED)].concat();
        self.read(&finished)
    }

    fn begin(&mut self, offered: &[&str], chosen: Option<usize>, resumed: bool) -> &mut Self {
        self.read(&record(record_type::HANDSHAKE, &client(offered, false)));
        let rest = match chosen {
            Some(bytes) => [sealed(6 + bytes), sealed(900), sealed(FINISHED)].concat(),
            None => sealed(6 + 900 + FINISHED),
        };
        let flight = [
            record(record_type::HANDSHAKE, &server(0x1301, resumed)),
            record(record_type::CHANGE, &[1]),
            rest,
        ]
        .concat();
        self.write(&flight)
    }

    fn exchanges(&self) -> Vec<&Exchange> {
        let exchanges = self.out.iter().filter_map(|event| match event {
            Event::Finished(exchange) => Some(exchange),
            _ => None,
        });
        exchanges.collect()
    }

    /// Bytes of request and response of each exchange.
    fn sizes(&self) -> Vec<(u64, u64)> {
        let exchanges = self.exchanges().into_iter();
        exchanges
            .map(|exchange| (exchange.request.bytes, exchange.response.bytes))
            .collect()
    }

    fn losses(&self) -> Vec<Loss> {
        let losses = self.out.iter().filter_map(|event| match event {
            Event::Lost(loss) => Some(*loss),
            _ => None,
        });
        losses.collect()
    }

    fn secured(&self) -> Vec<Secured> {
        let secured = self.out.iter().filter_map(|event| match event {
            Event::Tls(_, TlsEvent::Secured(secured)) => Some(*secured),
            _ => None,
        });
        secured.collect()
    }

    fn busy_ns(&self) -> u64 {
        let busy = self.out.iter().map(|event| match event {
            Event::Tls(_, TlsEvent::Busy(ns)) => *ns,
            _ => 0,
        });
        busy.sum()
    }
}

fn player() -> Player {
    Player::new(&Listeners::default())
}

const HTTP1: &[&str] = &["http/1.1"];
const BOTH: &[&str] = &["h2", "http/1.1"];

#[test]
fn requests_are_timed_and_their_bytes_are_those_of_the_plaintext() {
    let mut player = player();
    player.shake(HTTP1, Some(15), false);
    player.write(&[sealed(233), sealed(233)].concat());
    let begun_ns = player.now_ns;
    player.read(&sealed(125)).read(&sealed(40));
    player.write(&sealed(120)).write(&sealed(80));
    player.read(&sealed(99)).write(&sealed(7_000)).close();
    assert_eq!(player.sizes(), [(165, 200), (99, 7_000)]);
    let first = player.exchanges()[0];
    assert_eq!(first.request.arrival_ns, Some(begun_ns + 500));
    assert_eq!(
        (first.request.first_read_ns, first.request.last_read_ns),
        (begun_ns + 1_000, begun_ns + 2_000)
    );
    assert_eq!(first.response.first_write_ns, begun_ns + 3_000);
    assert_eq!(first.response.last_write_ns, Some(begun_ns + 4_100));
    assert_eq!((first.response.status, first.overlaps()), (0, false));
    assert_eq!(player.losses(), []);
    assert_eq!(player.missed_bytes, 0);
    let expected = Secured {
        version: Some(Version::Tls13),
        alpn: Some(Alpn::Http1),
        resumed: Some(false),
        client_certificate: Some(false),
        handshake_ns: Some(2_500),
    };
    assert_eq!(player.secured(), [expected]);
}

/// What each connection of a server sends after the handshake, in writes of such plaintexts, and whether the request came with
/// the client's Finished.
fn after_handshake(tickets: &[&[usize]], with_finished: bool, listeners: &Listeners) -> Player {
    let mut player = Player::new(listeners);
    player.begin(HTTP1, Some(15), false);
    let finished = sealed(FINISHED);
    match with_finished {
        true => player.read(&[finished, sealed(125)].concat()),
        false => player.read(&finished),
    };
    for write in tickets {
        let records: Vec<_> = write.iter().map(|plaintext| sealed(*plaintext)).collect();
        player.write(&records.concat());
    }
    if !with_finished {
        player.read(&sealed(125));
    }
    player.write(&sealed(120)).write(&sealed(80)).close();
    player
}

#[test]
fn tickets_are_no_responses_wherever_they_are() {
    for tickets in [
        &[][..],
        &[&[233, 233][..]],
        &[&[233], &[233]],
        &[&[712]],
        &[&[57, 57]],
    ] {
        let listeners = Listeners::default();
        // The first of a listener, and later ones, with the request apart and with it.
        for with_finished in [false, true, false, true] {
            let player = after_handshake(tickets, with_finished, &listeners);
            assert_eq!(player.sizes(), [(125, 200)], "{tickets:?}");
            let exchange = player.exchanges()[0];
            assert!(!exchange.response.first_write_bounded);
            assert_eq!(
                exchange.response.last_write_ns,
                Some(exchange.response.first_write_ns + 1_100)
            );
            assert_eq!(player.losses(), []);
        }
    }
}

#[test]
fn a_first_response_that_may_be_a_ticket_has_an_unknown_start() {
    for (tickets, response) in [(&[][..], 200), (&[&[712][..]], 912)] {
        let player = after_handshake(tickets, true, &Listeners::default());
        assert_eq!(player.sizes(), [(125, response)]);
        assert!(player.exchanges()[0].response.first_write_bounded);
    }
    // Two of equal size need no other connection, but a response after them.
    let player = after_handshake(&[&[233, 233]], true, &Listeners::default());
    assert!(!player.exchanges()[0].response.first_write_bounded);
    let mut player = self::player();
    player.begin(HTTP1, Some(15), false);
    player.read(&[sealed(FINISHED), sealed(125)].concat());
    player.write(&[sealed(90), sealed(90)].concat()).close();
    assert_eq!(player.sizes(), [(125, 180)]);
    // Tickets in the middle of an upload are none of it.
    let mut player = self::player();
    player.begin(HTTP1, Some(15), false);
    player.read(&[sealed(FINISHED), sealed(125)].concat());
    player.write(&[sealed(233), sealed(233)].concat());
    player.read(&sealed(16_384)).write(&sealed(120)).close();
    assert_eq!(player.sizes(), [(125 + 16_384, 120)]);
}

#[test]
fn alerts_and_new_keys_are_no_data() {
    let mut player = player();
    player.shake(HTTP1, Some(15), true);
    player.read(&sealed(5)).write(&sealed(5));
    player.read(&sealed(5)).read(&sealed(125));
    player.write(&sealed(5)).write(&sealed(120));
    // The end of a body in chunks is as long as new keys.
    player.write(&sealed(5));
    player.read(&sealed(2)).write(&sealed(2)).close();
    assert_eq!(player.sizes(), [(125, 125)]);
    assert_eq!(player.losses(), []);
}

#[test]
fn a_request_goes_on_after_100_continue() {
    let mut player = player();
    player.shake(HTTP1, Some(15), false);
    player.read(&sealed(125)).write(&sealed(25));
    player.read(&sealed(4_000)).write(&sealed(120)).close();
    assert_eq!(player.sizes(), [(4_125, 120)]);
    let exchange = player.exchanges()[0];
    assert!(exchange.response.first_write_ns > exchange.request.last_read_ns);
    // Without more of the request, it is a response.
    let mut player = self::player();
    player.shake(HTTP1, Some(15), false);
    player.read(&sealed(125)).write(&sealed(25));
    player.write(&sealed(120)).close();
    assert_eq!(player.sizes(), [(125, 145)]);
}

#[test]
fn writes_after_the_first_are_pieces_without_the_last_chunk() {
    let mut player = player();
    player.shake(HTTP1, Some(15), false);
    player.read(&sealed(125)).write(&sealed(120));
    for _ in 0..3 {
        player.write(&sealed(30));
    }
    player.write(&sealed(5)).close();
    let chunks = player.exchanges()[0].response.chunks.as_deref().unwrap();
    assert_eq!(chunks.gaps_ns(), [1_000, 1_000]);
    assert_eq!((chunks.count(), chunks.is_counted()), (3, false));
    // A head and its body are no stream.
    let player = after_handshake(&[&[233, 233]], false, &Listeners::default());
    let chunks = player.exchanges()[0].response.chunks.as_deref().unwrap();
    assert!(!chunks.is_stream());
}

#[test]
fn data_that_came_before_the_end_of_a_response_is_counted_and_invents_no_request() {
    let mut player = player();
    player.shake(HTTP1, Some(15), false);
    let sent_ns = player.now_ns;
    player.read(&sealed(125));
    player.write(&sealed(120));
    player.read_at(&sealed(125), sent_ns);
    player.write(&sealed(120)).close();
    assert_eq!(player.losses(), [Loss::TlsOverlapped]);
    assert_eq!(player.sizes(), [(250, 240)]);
    assert!(player.exchanges()[0].overlaps());
}

#[test]
fn certificates_of_clients_are_seen_in_one_record_or_several() {
    for flight in [
        &[426, 79, FINISHED][..],
        &[426 + 79 + FINISHED],
        &[8, FINISHED],
        &[FINISHED],
    ] {
        let mut player = player();
        player.begin(HTTP1, Some(15), false);
        let records: Vec<_> = flight.iter().map(|plaintext| sealed(*plaintext)).collect();
        let has_certificate = flight[0] > FINISHED;
        if has_certificate {
            player.read(&[records.concat(), sealed(125)].concat());
        } else {
            player.read(&records.concat()).read(&sealed(125));
        }
        player.write(&[sealed(649), sealed(649)].concat());
        player.write(&sealed(120)).close();
        assert_eq!(player.sizes(), [(125, 120)], "{flight:?}");
        let secured = player.secured()[0];
        assert_eq!(secured.client_certificate, Some(has_certificate));
        assert_eq!(secured.handshake_ns, Some(2_500));
    }
}

#[test]
fn tickets_may_come_before_the_last_bytes_of_the_finished() {
    // Go reads 576 bytes at once, and answers a certificate with a ticket.
    let flight = [sealed(428), sealed(79), sealed(FINISHED)].concat();
    let whole = flight.len() - sealed(FINISHED).len();
    for cut in whole + 1..flight.len() {
        let mut player = player();
        player.begin(HTTP1, Some(15), false);
        player.read(&flight[..cut]).write(&sealed(550));
        player.read(&flight[cut..]).read(&sealed(125));
        player.write(&sealed(120)).close();
        assert_eq!(player.sizes(), [(125, 120)], "{cut}");
        assert_eq!(player.losses(), []);
        assert_eq!(player.secured()[0].client_certificate, Some(true));
    }
}

#[test]
fn of_tls_1_2_the_types_of_records_say_everything() {
    for resumed in [false, true] {
        let mut player = player();
        let hello = |chosen| record(record_type::HANDSHAKE, &older_server(0xc02f, chosen));
        let change = record(record_type::CHANGE, &[1]);
        let finished = record(record_type::HANDSHAKE, &[1; 40]);
        let ends = [&change[..], &finished].concat();
        player.read(&record(record_type::HANDSHAKE, &client(BOTH, false)));
        if resumed {
            player
                .write(&[&hello(None), &ends[..]].concat())
                .read(&ends);
        } else {
            let key = record(record_type::HANDSHAKE, &[16, 0, 0, 1, 7]);
            let rest = record(record_type::HANDSHAKE, &[11; 900]);
            player.write(&[hello(None), rest].concat());
            player.read(&[key, ends.clone()].concat());
            player.write(&[record(record_type::HANDSHAKE, &[4; 200]), ends].concat());
        }
        let data = |plaintext: usize| record(record_type::DATA, &vec![0xee; plaintext + 24]);
        player.read(&data(125)).write(&data(120));
        player.write(&record(record_type::ALERT, &[1; 26])).close();
        assert_eq!(player.sizes(), [(125, 120)]);
        let expected = Secured {
            version: Some(Version::Tls12),
            alpn: Some(Alpn::Nothing),
            resumed: Some(resumed),
            client_certificate: Some(false),
            handshake_ns: Some(2_500),
        };
        assert_eq!(player.secured(), [expected], "{resumed}");
        assert_eq!(player.losses(), []);
    }
}

#[test]
fn http2_invents_no_request_however_it_is_recognised() {
    // By the length of the chosen protocol.
    let mut player = player();
    player.shake(BOTH, Some(9), false);
    player.write(&[sealed(233), sealed(46)].concat());
    player.read(&sealed(64)).read(&sealed(165));
    player.write(&sealed(84)).read(&sealed(13)).close();
    assert_eq!(
        (player.sizes(), player.losses()),
        (vec![], vec![Loss::TlsMultiplexed])
    );
    assert_eq!(player.secured()[0].alpn, Some(Alpn::Http2));
    assert_eq!(player.busy_ns(), 2_100);
    // By the server's settings, by the client's acknowledgement of them, and by the server's.
    for (settings, acknowledged, answered) in [
        (true, false, false),
        (false, true, false),
        (false, false, true),
    ] {
        let mut player = self::player();
        player.shake(BOTH, None, false);
        if settings {
            player.write(&[sealed(396), sealed(46)].concat());
        }
        player.read(&sealed(64)).read(&sealed(165));
        if answered {
            player.write(&sealed(9));
        }
        player.write(&sealed(84));
        if acknowledged {
            player.read(&sealed(9));
        }
        player.read(&sealed(165)).write(&sealed(84)).close();
        assert_eq!(
            (player.sizes(), player.losses()),
            (vec![], vec![Loss::TlsMultiplexed])
        );
        assert_eq!(player.secured()[0].alpn, Some(Alpn::Http2));
        assert!(player.missed_bytes > 0 && player.missed_bytes <= player.bytes);
    }
}

#[test]
fn requests_wait_until_no_sign_of_http2_is_left() {
    let mut player = player();
    player.shake(BOTH, None, false).read(&sealed(125));
    player.write(&[sealed(712), sealed(712)].concat());
    player.write(&sealed(120));
    player.read(&sealed(125)).write(&sealed(120));
    assert_eq!(player.sizes(), []);
    player.close();
    assert_eq!(player.sizes(), [(125, 120); 2]);
    assert_eq!((player.secured()[0].alpn, player.losses()), (None, vec![]));
}

#[test]
fn a_connection_that_was_open_is_followed_as_others_of_its_listener() {
    let joined = |listeners: &Listeners| {
        let mut player = Player::new(listeners);
        for _ in 0..3 {
            player.read(&sealed(125)).write(&sealed(120));
        }
        player.close();
        player
    };
    let listeners = Listeners::default();
    let player = joined(&listeners);
    assert_eq!(
        (player.sizes(), player.losses()),
        (vec![], vec![Loss::TlsUndecided])
    );
    assert_eq!(player.secured(), []);
    after_handshake(&[], false, &listeners);
    let player = joined(&listeners);
    assert_eq!(
        (player.sizes(), player.losses()),
        (vec![(125, 120); 3], vec![])
    );
    Player::new(&listeners).shake(BOTH, Some(9), false).close();
    let player = joined(&listeners);
    assert_eq!(
        (player.sizes(), player.losses()),
        (vec![], vec![Loss::TlsUndecided])
    );
}

#[test]
fn either_direction_may_be_plaintext_after_the_handshake() {
    for (reads_plain, writes_plain) in [(false, true), (true, true), (true, false)] {
        let mut player = player();
        player.shake(HTTP1, Some(15), false);
        let ticket = [&[4, 0, 0, 196][..], &[9; 196]].concat();
        match writes_plain {
            true => player.write(&ticket).write(&ticket),
            false => player.write(&[sealed(233), sealed(233)].concat()),
        };
        for _ in 0..2 {
            match reads_plain {
                true => player.read(b"POST /a HTTP/1.1\r\nhost: a\r\n\r\n"),
                false => player.read(&sealed(29)),
            };
            match writes_plain {
                true => player.write(b"HTTP/1.1 200 OK\r\n\r\n").write(b"ok"),
                false => player.write(&sealed(19)).write(&sealed(2 + 1)),
            };
        }
        player.close();
        let written = if writes_plain { 21 } else { 22 };
        assert_eq!(
            player.sizes(),
            [(29, written); 2],
            "{reads_plain} {writes_plain}"
        );
        assert_eq!(player.losses(), []);
    }
}

#[test]
fn transfers_may_be_cut_at_every_byte() {
    let hello = record(record_type::HANDSHAKE, &client(HTTP1, false));
    let flight = [
        record(record_type::HANDSHAKE, &server(0x1301, false)),
        record(record_type::CHANGE, &[1]),
        sealed(21),
        sealed(900),
        sealed(FINISHED),
    ]
    .concat();
    let tickets = [sealed(233), sealed(233)].concat();
    let request = [sealed(125), sealed(40)].concat();
    let response = [sealed(120), sealed(80)].concat();
    let longest = flight.len();
    for cut in 1..longest {
        let mut player = player();
        let cut_of = |bytes: &[u8]| cut.min(bytes.len());
        for (reads, bytes) in [
            (true, &hello),
            (false, &flight),
            (true, &sealed(FINISHED)),
            (false, &tickets),
            (true, &request),
            (false, &response),
        ] {
            for piece in [&bytes[..cut_of(bytes)], &bytes[cut_of(bytes)..]] {
                match (piece.is_empty(), reads) {
                    (true, _) => continue,
                    (false, true) => player.read(piece),
                    (false, false) => player.write(piece),
                };
            }
        }
        player.close();
        assert_eq!(player.sizes(), [(165, 200)], "cut at {cut}");
        assert_eq!(player.losses(), []);
        assert_eq!(player.secured().len(), 1);
    }
}

#[test]
fn early_data_and_failed_handshakes_are_counted() {
    let mut player = player();
    let hello = record(record_type::HANDSHAKE, &client(HTTP1, true));
    player.read(&[hello, sealed(300)].concat());
    let answer = [
        record(record_type::HANDSHAKE, &server(0x1301, true)),
        sealed(6 + 15 + 4),
        sealed(FINISHED),
    ]
    .concat();
    player.write(&answer).write(&sealed(120));
    player.read(&[sealed(4), sealed(FINISHED)].concat());
    player.read(&sealed(125)).write(&sealed(120)).close();
    assert_eq!(player.losses(), [Loss::TlsEarlyData]);
    assert_eq!(player.sizes(), [(125, 120)]);
    assert_eq!(player.secured()[0].resumed, Some(true));
    let mut player = self::player();
    player.begin(HTTP1, Some(15), false);
    player.read(&record(record_type::ALERT, &[2, 42])).close();
    assert_eq!(player.losses(), [Loss::TlsNoHandshake]);
    assert_eq!((player.sizes(), player.secured()), (vec![], vec![]));
}

#[test]
fn lost_records_drop_the_open_request_and_nothing_else() {
    let mut player = player();
    player.shake(HTTP1, Some(15), false);
    player.write(&[sealed(233), sealed(233)].concat());
    player.read(&sealed(125));
    player.seq += 1;
    player.write(&sealed(120));
    player.read(&sealed(125)).write(&sealed(120)).close();
    assert_eq!(player.losses(), [Loss::Resynchronised]);
    assert!(
        player
            .out
            .contains(&Event::Unfinished(Unfinished::LostRecords))
    );
    assert_eq!(player.sizes(), [(125, 120)]);
}

#[test]
fn a_silent_response_ends_at_an_unknown_time() {
    let mut player = player();
    player.shake(HTTP1, Some(15), false);
    player.read(&sealed(125)).write(&sealed(120));
    let written_ns = player.now_ns;
    let connection = player.connection.as_mut().unwrap();
    assert_eq!(connection.open_requests(None).len(), 1);
    connection.end_if_quiet(written_ns + WRITING_NS * 2, &mut player.out);
    assert_eq!(connection.open_requests(None).len(), 0);
    assert!(connection.is_responding());
    connection.end_if_quiet(written_ns + QUIET_NS * 2, &mut player.out);
    assert!(!connection.is_responding());
    assert_eq!(player.exchanges()[0].response.last_write_ns, None);
}

const POST: &[u8] = b"POST /predictions/a HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";
const GET: &[u8] = b"GET /ping HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const MISSING: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// A connection whose library is observed, after its handshake and tickets.
fn observed() -> Player {
    let mut player = player();
    player.plaintexts = Some(Plaintexts::default());
    player.shake(HTTP1, Some(15), false);
    player.write(&[sealed(233), sealed(233)].concat());
    player
}

#[test]
fn requests_are_read_with_the_moments_of_the_socket() {
    let mut player = observed();
    let begun_ns = player.now_ns;
    player
        .exchange(POST, OK, [0; 2])
        .exchange(GET, MISSING, [0; 2]);
    player.close();
    assert_eq!(player.contents(), [("/predictions/a", 200), ("/ping", 404)]);
    assert_eq!((player.counts(), player.losses()), ((2, 0), vec![]));
    let first = player.exchanges()[0];
    assert_eq!(first.request.arrival_ns, Some(begun_ns + 500));
    assert_eq!(first.request.last_arrival_ns, Some(begun_ns + 500));
    assert_eq!(first.request.last_read_ns, begun_ns + 1_000);
    assert_eq!(first.response.first_write_ns, begun_ns + 2_000);
    assert_eq!(first.response.last_write_ns, Some(begun_ns + 2_100));
    assert_eq!(first.request.bytes, POST.len() as u64);
    assert_eq!(player.missed_bytes, 0);
}

#[test]
fn tampered_lengths_undo_the_join_and_the_request_is_timed() {
    for more in [[1, 0], [0, 1], [9, 9]] {
        let mut player = observed();
        player.exchange(POST, OK, [0; 2]);
        player.exchange(GET, MISSING, more);
        // The next turn that fits joins them again.
        player.exchange(POST, OK, [0; 2]).exchange(GET, OK, [0; 2]);
        player.close();
        let expected = [
            ("/predictions/a", 200),
            ("", 0),
            ("/predictions/a", 200),
            ("/ping", 200),
        ];
        assert_eq!(player.contents(), expected, "{more:?}");
        assert_eq!(player.counts(), (3, 1));
        assert_eq!(player.losses(), [Loss::TlsUnjoined]);
        assert_eq!(player.missed_bytes, 0);
    }
}

#[test]
fn requests_whose_plaintext_is_missing_are_timed() {
    let mut player = observed();
    // The probes come with the second request.
    player.read(&sealed(POST.len())).write(&sealed(OK.len()));
    player.exchange(GET, MISSING, [0; 2]);
    // The third is read by nobody.
    player.read(&sealed(POST.len())).write(&sealed(OK.len()));
    player.exchange(GET, OK, [0; 2]).close();
    assert_eq!(
        player.contents(),
        [("", 0), ("/ping", 404), ("", 0), ("/ping", 200)]
    );
    assert_eq!(player.counts(), (2, 2));
    assert_eq!(player.losses(), [Loss::TlsUnjoined]);
}

#[test]
fn another_protocol_is_not_joined() {
    let mut player = observed();
    player
        .exchange(b"\x00\x01\x02\x03 hello", b"world", [0; 2])
        .close();
    assert_eq!(player.contents(), [("", 0)]);
    assert_eq!((player.counts(), player.losses()), ((0, 1), vec![]));
}
