use std::{vec, vec::Vec};

use super::*;
use crate::{abi::Record, conn::Waits};

/// Plays transfers against a socket's state as the hooks do, and keeps the emitted records.
struct Player {
    conn: Conn,
    emitted: Vec<Record>,
    /// Last bytes of each write.
    tail: u64,
    /// Whether no write shows the end of the response's head in its first bytes.
    in_head: bool,
}

impl Player {
    fn new() -> Self {
        Self {
            conn: Conn::new(),
            emitted: vec![],
            tail: 0,
            in_head: false,
        }
    }

    fn emit(&mut self, record_kind: u8, now_ns: u64) {
        self.conn.seal(record_kind, now_ns);
        self.emitted.push(self.conn.record);
        self.conn.on_emitted();
    }

    fn recv(&mut self, now_ns: u64, bytes: u32, arrival: Arrival, request_like: bool) -> Capture {
        let plan = self.conn.plan_recv(bytes, request_like);
        if let Some(cut) = plan.cut {
            self.emit(cut, now_ns);
        }
        let arrival = (arrival, false);
        let capture = self
            .conn
            .on_recv(now_ns, bytes, arrival, plan, COPIED_LEAST);
        if self.conn.is_copied_stepwise(bytes) && self.conn.record.mode == mode::MESSAGES {
            self.copy_stepwise(now_ns, bytes);
        }
        self.conn.on_request_captured(capture, capture.len);
        capture
    }

    /// Adds a read step by step, as the program does.
    fn copy_stepwise(&mut self, now_ns: u64, bytes: u32) {
        let mut left = bytes;
        let mut end = READ_END_CAP;
        while left > 0 {
            if self.conn.cursors.requests.keeps() == 0 && left <= end {
                self.emit(kind::READ, now_ns);
                self.conn.on_record_full();
                self.conn.cursors.requests = FrameCursor::copying(left);
                end = 0;
            }
            let kept = self.conn.cursors.requests.keeps().min(left).min(512);
            if kept > self.conn.room(false) {
                self.emit(kind::READ, now_ns);
                self.conn.on_record_full();
                continue;
            }
            let step = if kept > 0 { kept } else { left - end };
            self.conn.cursors.requests.on_payload(step);
            self.conn.on_copied(false, step, kept > 0);
            left -= step;
        }
    }

    /// Adds a write step by step, as the program does.
    fn write_stepwise(&mut self, now_ns: u64, bytes: u32) {
        let mut left = bytes;
        let mut end = WRITE_END_CAP;
        while left > 0 {
            if self.conn.cursors.responses.keeps() == 0 && end > 0 && left <= end {
                let record_kind = self.conn.next_piece();
                self.emit(record_kind, now_ns);
                self.conn.cursors.responses = FrameCursor::copying(left);
                end = 0;
            }
            let kept = self.conn.cursors.responses.keeps().min(left).min(1024);
            if kept > self.conn.room(true) {
                let record_kind = self.conn.next_piece();
                self.emit(record_kind, now_ns);
                continue;
            }
            let step = if kept > 0 { kept } else { left - end };
            self.conn.cursors.responses.on_payload(step);
            self.conn.on_copied(true, step, kept > 0);
            left -= step;
        }
        let record_kind = self.conn.next_piece();
        self.emit(record_kind, now_ns);
    }

    fn send(&mut self, start_ns: u64, now_ns: u64, bytes: u32, response_like: bool) {
        let hint = WriteHint {
            response_like,
            chunk_like: false,
        };
        self.send_hinted(start_ns, now_ns, bytes, hint);
    }

    fn send_hinted(&mut self, start_ns: u64, now_ns: u64, bytes: u32, hint: WriteHint) {
        if self.conn.send_cuts(hint) {
            self.emit(kind::PROGRESS, now_ns);
        }
        self.conn.progress.send_start_ns = start_ns;
        let may_exceed_head = self.conn.may_exceed_head(bytes, hint, false);
        let stepwise =
            !may_exceed_head && self.conn.is_written_stepwise(bytes, hint, self.tail, false);
        if stepwise && self.conn.progress.pending != 0 {
            self.emit(kind::PROGRESS, now_ns);
        }
        let Some(plan) = self.conn.on_send(now_ns, bytes, hint) else {
            return;
        };
        if stepwise {
            self.conn.on_send_stepwise(bytes, plan, false, self.tail);
            return self.write_stepwise(now_ns, bytes);
        }
        self.conn
            .on_response_captured(plan.capture, plan.capture.len);
        if may_exceed_head {
            if self.in_head || ends_json(self.tail) && bytes > u32::from(plan.capture.len) {
                self.conn
                    .on_send_stepwise(bytes, plan, self.in_head, self.tail);
                return self.write_stepwise(now_ns, bytes);
            }
            self.conn.progress.head_left = 0;
        }
        self.conn.end_head(self.tail);
        match plan.emit {
            Some(record_kind) => self.emit(record_kind, now_ns),
            None => self.conn.progress.pending = 1,
        }
    }
}

#[test]
fn a_request_and_its_response_are_one_exchange() {
    let mut player = Player::new();
    player.recv(2_000, 300, Arrival::At(1_000), true);
    player.send(9_000, 9_500, 120, true);
    let [record] = player.emitted[..] else {
        panic!("{:?}", player.emitted)
    };
    assert_eq!(record.kind, kind::EXCHANGE);
    assert_eq!(
        (record.arrival_ns, record.first_read_ns, record.last_read_ns),
        (1_000, 2_000, 2_000)
    );
    assert_eq!(
        (record.first_write_ns, record.last_write_ns),
        (9_000, 9_500)
    );
    assert_eq!((record.read_bytes, record.written_bytes), (300, 120));
    assert_eq!((record.request_len, record.response_len), (300, 120));
    assert_eq!(record.flags, flag::ARRIVAL_KNOWN);
    assert_eq!(record.seq, 1);
}

fn waits(run_delay_ns: u64, sleeps: u64) -> Option<Waits> {
    Some(Waits {
        run_delay_ns,
        sleeps,
    })
}

/// Plays a request that thread 7 reads, with 100 ns of waits before, and returns the state before the first write.
fn read_by_thread_7() -> Player {
    let mut player = Player::new();
    player.conn.on_reader(7, waits(100, 3));
    player.recv(2_000, 300, Arrival::At(1_000), true);
    player
}

#[test]
fn wait_for_a_cpu_is_known_if_one_thread_reads_and_writes() {
    for (tid, before_write, thread, starved_ns) in [
        (7, waits(140, 3), 7, 40),
        (7, waits(140, 4), 3, 40),
        (8, waits(140, 3), 1, 0),
        (7, None, 1, 0),
    ] {
        let mut player = read_by_thread_7();
        player.conn.on_writer(tid, || before_write);
        // The return of the same write must not compare anew.
        player.conn.on_writer(tid, || waits(900, 9));
        player.send(9_000, 9_500, 120, true);
        let record = player.emitted[0];
        assert_eq!((record.thread, record.starved_ns), (thread, starved_ns));
        assert_eq!((record.reader_tid, record.run_delay_ns), (7, 100));
    }
}

#[test]
fn refused_write_is_not_the_first() {
    let mut player = read_by_thread_7();
    player.conn.on_writer(7, || waits(110, 3));
    player.conn.on_send_refused();
    player.conn.on_writer(7, || waits(150, 4));
    player.send(9_000, 9_500, 120, true);
    assert_eq!(
        (player.emitted[0].thread, player.emitted[0].starved_ns),
        (3, 50)
    );
}

#[test]
fn later_writes_are_not_compared() {
    let mut player = read_by_thread_7();
    player.conn.on_writer(7, || waits(110, 3));
    player.send(9_000, 9_500, 120, true);
    player
        .conn
        .on_writer(7, || unreachable!("not the first write"));
    player.conn.on_reader(7, waits(200, 5));
    player.recv(20_000, 300, Arrival::At(19_000), true);
    assert_eq!(
        (player.conn.record.thread, player.conn.record.run_delay_ns),
        (0, 200)
    );
}

/// Returns the emitted records: kind, first read, bytes, and how many of them were copied.
fn reads(player: &Player) -> Vec<(u8, u64, u64, u16)> {
    let fields = |record: &Record| {
        let Record {
            kind,
            first_read_ns,
            read_bytes,
            request_len,
            ..
        } = *record;
        (kind, first_read_ns, read_bytes, request_len)
    };
    player.emitted.iter().map(fields).collect()
}

#[test]
fn each_read_of_a_request_has_a_record() {
    let mut player = Player::new();
    player.recv(10, 24, Arrival::At(5), true);
    player.recv(20, 800, Arrival::At(15), false);
    player.recv(30, 1, Arrival::At(25), false);
    player.send(50, 60, 10, true);
    assert_eq!(
        reads(&player),
        [
            (kind::READ, 10, 24, 24),
            (kind::READ, 20, 800, 800),
            (kind::EXCHANGE, 30, 1, 1)
        ]
    );
    assert_eq!(player.emitted[1].arrival_ns, 15);
    assert_eq!(player.emitted[2].total_bytes, 24 + 800 + 1 + 10);
}

#[test]
fn the_reads_of_a_long_body_share_a_record_after_its_beginning() {
    let mut player = Player::new();
    player.recv(10, 1_000, Arrival::At(5), true);
    for step in 2..=10 {
        player.recv(step * 10, 2_000, Arrival::Unseen, false);
    }
    player.recv(200, 100, Arrival::Unseen, false);
    player.recv(210, 600, Arrival::Unseen, false);
    player.send(250, 260, 10, true);
    let [.., long, small, last] = &reads(&player)[..] else {
        panic!("{:?}", player.emitted)
    };
    // The end of the second read of 2,000 bytes, and seven more. A small read may begin a request, so the next is
    // copied.
    assert_eq!(*long, (kind::READ, 30, 14_904, 904));
    assert_eq!(*small, (kind::READ, 200, 100, 100));
    assert_eq!(*last, (kind::EXCHANGE, 210, 600, 600));
    let read: u64 = player.emitted.iter().map(|record| record.read_bytes).sum();
    assert_eq!(read, 1_000 + 9 * 2_000 + 100 + 600);
}

#[test]
fn the_end_of_a_read_that_may_be_the_last_is_copied() {
    let mut player = Player::new();
    for (now_ns, bytes) in [(10, 8_000), (20, 8_000), (30, 7_000), (40, 7_000)] {
        player.recv(now_ns, bytes, Arrival::Unseen, false);
    }
    player.send(250, 260, 10, true);
    assert_eq!(
        reads(&player)[3..],
        [
            (kind::READ, 10, 3_904, 1_024),
            (kind::READ, 10, 9_024, 1_024),
            (kind::READ, 30, 5_976, 1_024),
            (kind::EXCHANGE, 30, 8_024, 1_024),
        ]
    );
}

#[test]
fn a_read_longer_than_a_record_has_several() {
    let mut player = Player::new();
    player.recv(10, 9_000, Arrival::At(5), true);
    player.send(50, 60, 10, true);
    assert_eq!(
        reads(&player),
        [
            (kind::READ, 10, 1_024, 1_024),
            (kind::READ, 10, 1_024, 1_024),
            (kind::READ, 10, 1_024, 1_024),
            (kind::READ, 10, 4_904, 1_024),
            // Its end, after what was not copied.
            (kind::EXCHANGE, 10, 1_024, 1_024)
        ]
    );
    for (record, offset) in player.emitted.iter().zip([0, 1_024, 2_048, 3_072, 7_976]) {
        assert_eq!((record.arrival_ns, record.read_offset), (5, offset));
    }
}

#[test]
fn each_write_of_chunks_has_a_record_with_its_beginning() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::At(1), true);
    player.send(20, 21, 130, true);
    let chunk = WriteHint {
        response_like: false,
        chunk_like: true,
    };
    player.send_hinted(22, 23, 900, chunk);
    player.send(24, 25, 900, false);
    player.send(26, 27, 20_000, false);
    player.send(28, 29, 20_000, false);
    let written: Vec<(u64, u64, u16, u32)> = player
        .emitted
        .iter()
        .map(|record| {
            (
                record.first_write_ns,
                record.written_bytes,
                record.response_len,
                record.writes,
            )
        })
        .collect();
    assert_eq!(
        written,
        [
            (20, 130, 130, 1),
            (22, 1_030, 900, 2),
            (24, 1_930, 900, 3),
            (26, 21_930, 1_024, 4),
            (28, 41_930, 1_024, 5)
        ]
    );
    player.recv(100, 100, Arrival::At(90), true);
    player.send(110, 111, 3_000, true);
    player.send(112, 113, 3_000, false);
    assert_eq!(player.conn.progress.pending, 1);
}

#[test]
fn no_bytes_are_copied_after_a_gap() {
    let mut conn = Conn::new();
    conn.record.mode = mode::FRAMES;
    let plan = conn.plan_recv(200, true);
    let first = conn.on_recv(10, 200, (Arrival::Unseen, false), plan, COPIED_LEAST);
    conn.on_request_captured(first, 100);
    let plan = RecvPlan {
        cut: None,
        begins: false,
        fresh: false,
        shorter: false,
    };
    let next = conn.on_recv(20, 100, (Arrival::Unseen, false), plan, COPIED_LEAST);
    assert_eq!(next.len, 0);
    let hint = WriteHint::default();
    let next = conn.on_send(30, 100, hint).unwrap().capture;
    conn.on_response_captured(next, 0);
    conn.record.mode = mode::MESSAGES;
    assert_eq!(conn.on_send(40, 100, hint).unwrap().capture.len, 0);
}

#[test]
fn a_second_request_read_before_the_response_cuts_the_segment() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::At(1), true);
    player.recv(20, 50, Arrival::At(15), true);
    player.send(90, 95, 10, true);
    assert_eq!(player.emitted[0].kind, kind::READ);
    assert_eq!(
        (
            player.emitted[0].read_bytes,
            player.emitted[0].first_write_ns
        ),
        (100, 0)
    );
    assert_eq!(player.emitted[1].kind, kind::EXCHANGE);
    assert_eq!(
        (player.emitted[1].read_bytes, player.emitted[1].arrival_ns),
        (50, 15)
    );
}

#[test]
fn a_send_with_unknown_start_is_marked() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::Unseen, true);
    player.send(0, 95, 10, true);
    assert_eq!(player.emitted[0].flags, flag::WRITE_AT_RETURN);
    assert_eq!(player.emitted[0].first_write_ns, 95);
}

#[test]
fn small_responses_have_a_record_for_each_write() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::At(1), true);
    player.send(20, 21, 130, true);
    player.send(22, 23, 40, false);
    let kinds: Vec<u8> = player.emitted.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [kind::EXCHANGE, kind::PROGRESS]);
    assert_eq!(
        (
            player.emitted[1].written_bytes,
            player.emitted[1].last_write_ns
        ),
        (170, 23)
    );
    assert_eq!(
        (
            player.emitted[1].request_len,
            player.emitted[1].response_len
        ),
        (0, 40)
    );
}

#[test]
fn long_responses_are_coalesced_and_their_end_is_never_lost() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::At(1), true);
    for step in 1..=300_u64 {
        player.send(step * 1_000, step * 1_000 + 10, 16_384, step == 1);
    }
    assert!(player.emitted.len() < 5, "{} records", player.emitted.len());
    assert_eq!(player.conn.progress.pending, 1);
    player.recv(9_000_000, 100, Arrival::At(8_000_000), true);
    let last = player.emitted.last().unwrap();
    assert_eq!(last.kind, kind::PROGRESS);
    assert_eq!(last.written_bytes, 300 * 16_384);
    assert_eq!(last.last_write_ns, 300_010);
}

#[test]
fn slow_writes_each_have_a_record() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::At(1), true);
    for step in 1..=10_u64 {
        player.send(step * 1_000_000, step * 1_000_000 + 10, 2_000, step == 1);
    }
    assert_eq!(player.emitted.len(), 10);
}

#[test]
fn a_second_response_in_one_run_of_writes_brings_its_head_and_start() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::At(1), true);
    player.send(20, 21, 2_000, true);
    player.send(22, 23, 2_000, false);
    assert_eq!(player.conn.progress.pending, 1);
    player.send(24, 25, 90, true);
    let [.., rest, second] = &player.emitted[..] else {
        panic!("{:?}", player.emitted)
    };
    assert_eq!((rest.written_bytes, rest.response_len), (4_000, 0));
    assert_eq!((second.written_bytes, second.response_len), (4_090, 90));
    assert_eq!((second.first_write_ns, second.last_write_ns), (24, 25));
}

#[test]
fn the_small_reads_of_a_frame_are_all_copied() {
    let mut player = Player::new();
    player.conn.record.mode = mode::FRAMES;
    player.recv(10, 1, Arrival::At(5), false);
    for step in 0..400_u64 {
        player.recv(20 + step, 4, Arrival::Unseen, false);
    }
    player.recv(1_000, 300_000, Arrival::Unseen, false);
    player.recv(1_001, 17, Arrival::Unseen, false);
    player.recv(1_002, 4, Arrival::Unseen, false);
    player.send(0, 2_000, 150, false);
    let pieces: Vec<(u8, u16, u64)> = player
        .emitted
        .iter()
        .map(|record| (record.kind, record.request_len, record.read_bytes))
        .collect();
    assert_eq!(
        pieces,
        [
            (kind::READ, 1_021, 1_021),
            (kind::READ, 580, 300_580),
            (kind::EXCHANGE, 21, 21),
        ]
    );
    assert_eq!(player.emitted[0].arrival_ns, 5);
    assert_eq!(
        (
            player.emitted[2].last_read_ns,
            player.emitted[2].first_write_ns
        ),
        (1_002, 2_000)
    );
}

#[test]
fn each_write_of_a_framed_response_has_a_record_with_its_beginning() {
    let mut player = Player::new();
    player.conn.record.mode = mode::FRAMES;
    player.recv(10, 1, Arrival::At(5), false);
    for step in 1..=20_u64 {
        player.send(0, 10 + step, 5_000, false);
    }
    assert_eq!(player.emitted.len(), 20);
    assert!(
        player
            .emitted
            .iter()
            .all(|record| record.response_len == 1_024)
    );
    assert_eq!(player.emitted[19].first_write_ns, 30);
}

#[test]
fn each_transfer_of_http2_connections_has_a_record() {
    let mut player = Player::new();
    player.conn.set_mode(mode::STREAMS);
    player.conn.record.cookie = 7;
    let mut responses = Conn::new();
    let read = |player: &mut Player, now_ns, bytes, arrival| {
        player.recv(now_ns, bytes, arrival, false);
        player.conn.on_copied(false, bytes, true);
        player.emit(kind::READ, now_ns);
        player.conn.on_stream_read();
    };
    let mut write = |player: &mut Player, start_ns, now_ns, bytes| {
        player.conn.progress.send_start_ns = start_ns;
        responses.on_stream_send(&mut player.conn, now_ns);
        responses.on_copied(true, bytes, true);
        responses.seal(kind::PROGRESS, now_ns);
        player.emitted.push(responses.record);
        responses.on_emitted();
    };
    read(&mut player, 10, 100, Arrival::At(5));
    write(&mut player, 28, 30, 50);
    read(&mut player, 35, 200, Arrival::At(31));
    write(&mut player, 38, 40, 60);
    let records: Vec<_> = player
        .emitted
        .iter()
        .map(|record| {
            let times = (record.arrival_ns, record.first_write_ns);
            let bytes = (record.read_bytes, record.written_bytes);
            (record.kind, record.seq, times, bytes, record.total_bytes)
        })
        .collect();
    assert_eq!(
        records,
        [
            (kind::READ, 1, (5, 0), (100, 0), 100),
            (kind::PROGRESS, 1, (0, 28), (0, 50), 50),
            (kind::READ, 2, (31, 0), (200, 0), 300),
            (kind::PROGRESS, 2, (0, 38), (0, 110), 110),
        ]
    );
    assert!(
        player
            .emitted
            .iter()
            .all(|record| record.cookie == 7 && record.mode == mode::STREAMS)
    );
    assert_eq!(
        (
            player.emitted[0].request_len,
            player.emitted[1].response_len
        ),
        (100, 50)
    );
    assert_eq!(player.conn.before_close(), None);
}

#[test]
fn a_server_that_speaks_first_is_not_recorded() {
    let mut player = Player::new();
    player.send(1, 2, 50, false);
    assert!(player.emitted.is_empty());
}

#[test]
fn an_unanswered_request_is_emitted_at_the_close() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::At(1), true);
    assert_eq!(player.conn.before_close(), Some(kind::READ));
    player.send(20, 21, 100, true);
    assert_eq!(player.conn.before_close(), None);
}

#[test]
fn an_undone_write_leaves_the_reads_and_moves_to_the_responses() {
    let mut player = Player::new();
    player.conn.record.cookie = 7;
    player.recv(10, 100, Arrival::At(1), true);
    player.conn.progress.send_start_ns = 18;
    let plan = player.conn.on_send(20, 80, WriteHint::default()).unwrap();
    player.conn.on_response_captured(plan.capture, 80);
    player.conn.cursors.responses = FrameCursor::with_frames_after(60);
    player.conn.undo_write(80);
    player.emit(kind::READ, 20);
    player.conn.switch_to_http2();
    let first = player.emitted[0];
    assert_eq!(
        (
            first.mode,
            first.read_bytes,
            first.request_len,
            first.response_len
        ),
        (mode::MESSAGES, 100, 100, 0)
    );
    assert_eq!((first.written_bytes, first.total_bytes), (0, 100));
    assert_eq!(player.conn.frames(false).keeps(), 24);
    let mut responses = Conn::new();
    responses.on_stream_send(&mut player.conn, 20);
    responses.on_copied(true, 80, true);
    let record = responses.record;
    assert_eq!(
        (record.cookie, record.mode, record.flags, record.total_bytes),
        (7, mode::STREAMS, flag::RESPONSES, 80)
    );
    assert_eq!((record.first_write_ns, record.last_write_ns), (18, 20));
    assert_eq!(responses.frames(true).keeps(), 60);
}

#[test]
fn a_connection_joined_midway_skips_writes_that_begin_no_frame() {
    let mut player = Player::new();
    player.conn.join_midway();
    player.recv(10, 100, Arrival::Unseen, false);
    player.conn.on_copied(false, 100, true);
    assert!(player.conn.frames(false).is_before_head());
    player.conn.progress.send_start_ns = 15;
    player.conn.skip_send(1_000);
    assert_eq!(player.conn.record.total_bytes, 1_100);
    let mut responses = Conn::new();
    responses.on_stream_send(&mut player.conn, 30);
    responses.on_copied(true, 9, true);
    assert_eq!(responses.record.first_write_ns, 30);
    assert_eq!(responses.record.total_bytes, 9);
}

#[test]
fn record_in_the_middle_of_a_read_counts_only_bytes_that_were_reported() {
    let mut player = Player::new();
    player.recv(10, 60, Arrival::At(5), true);
    player.send(20, 30, 100, true);
    player.recv(40, 65_536, Arrival::At(35), false);
    player.emit(kind::CLOSE, 50);
    let mut reported = 0;
    for record in &player.emitted {
        match record.kind {
            kind::EXCHANGE => reported += record.read_bytes + record.written_bytes,
            kind::READ => reported += record.read_bytes,
            _ => continue,
        }
        assert_eq!(record.total_bytes, reported, "{record:?}");
    }
    assert!(player.emitted.len() > 3);
}

/// Kind, bytes written so far, and copied bytes of the records of writes.
fn pieces(player: &Player) -> Vec<(u8, u64, u16)> {
    let records = player.emitted.iter();
    records
        .map(|record| (record.kind, record.written_bytes, record.response_len))
        .collect()
}

const JSON_END: u64 = u64::from_be_bytes(*b"\"a\":1}}}");

#[test]
fn start_and_end_of_a_long_json_response_are_copied() {
    let mut player = Player::new();
    player.tail = JSON_END;
    player.recv(10, 100, Arrival::At(5), true);
    player.send(20, 30, 100_000, true);
    assert_eq!(
        pieces(&player),
        [
            (kind::EXCHANGE, 98_976, 1024),
            (kind::PROGRESS, 100_000, 1024)
        ]
    );
    let record = player.emitted[1];
    assert_eq!((record.writes, record.total_bytes), (1, 100_100));
    // The rest is of no interest, unless it may be the end.
    player.send(40, 50, 100_000, false);
    player.send(60, 70, 100_000, false);
    player.send(80, 90, 5_000, false);
    player.emit(kind::PROGRESS, 100);
    assert_eq!(
        pieces(&player)[2..],
        [
            (kind::PROGRESS, 198_976, 0),
            (kind::PROGRESS, 200_000, 1024),
            (kind::PROGRESS, 300_000, 0),
            (kind::PROGRESS, 303_976, 0),
            (kind::PROGRESS, 305_000, 1024),
            (kind::PROGRESS, 305_000, 0),
        ]
    );
}

#[test]
fn a_long_response_that_is_no_json_has_one_record() {
    let mut player = Player::new();
    player.recv(10, 100, Arrival::At(5), true);
    player.send(20, 30, 100_000, true);
    assert_eq!(pieces(&player), [(kind::EXCHANGE, 100_000, 1024)]);
}

/// Returns how many bytes were copied of each write, and forgets the records.
fn copied(player: &mut Player) -> u32 {
    let records = player.emitted.drain(..);
    records.map(|record| u32::from(record.response_len)).sum()
}

const HEAD_END: u64 = u64::from_be_bytes(*b"a: b\r\n\r\n");

#[test]
fn long_head_is_copied_and_1024_bytes_of_the_body_behind_it() {
    let mut player = Player::new();
    player.in_head = true;
    player.tail = HEAD_END;
    player.recv(10, 100, Arrival::At(5), true);
    player.send(20, 30, 10_000, true);
    let kinds: Vec<u8> = player.emitted.iter().map(|record| record.kind).collect();
    assert_eq!((kinds[0], kinds[1]), (kind::EXCHANGE, kind::PROGRESS));
    let record = *player.emitted.last().unwrap();
    assert_eq!((record.written_bytes, record.total_bytes), (10_000, 10_100));
    assert_eq!(copied(&mut player), 10_000);
    player.tail = 0;
    for expected in [1024, 0, 0] {
        player.send(40, 50, 50_000, false);
        assert_eq!(copied(&mut player), expected);
    }
}

#[test]
fn head_in_several_writes_is_copied_up_to_its_limit() {
    let mut player = Player::new();
    player.in_head = true;
    player.recv(10, 100, Arrival::At(5), true);
    for bytes in [700, 700, 700, 3_000, 200] {
        player.send(20, 30, bytes, false);
        assert_eq!(copied(&mut player), bytes);
    }
    player.send(40, 50, 60_000, false);
    let rest = HEAD_CAP - 700 - 3_000;
    assert!((rest..=rest + WRITE_END_CAP).contains(&copied(&mut player)));
    player.send(60, 70, 2_000, false);
    assert_eq!(copied(&mut player), 0);
}

#[test]
fn body_is_not_taken_for_a_head_once_the_head_has_ended() {
    // The head's end is in the first write, or is its last bytes.
    for (bytes, tail) in [(1_400, 0), (300, HEAD_END)] {
        let mut player = Player::new();
        player.recv(10, 100, Arrival::At(5), true);
        player.tail = tail;
        player.send(20, 30, bytes, true);
        player.tail = 0;
        player.in_head = true;
        player.emitted.clear();
        player.send(40, 50, 50_000, false);
        player.send(60, 70, 50_000, false);
        assert_eq!(
            copied(&mut player),
            1024_u32.saturating_sub(bytes),
            "{bytes}"
        );
    }
}

#[test]
fn writes_of_chunks_in_many_buffers_are_copied_piece_by_piece() {
    let mut conn = Conn::new();
    let chunk = WriteHint {
        response_like: false,
        chunk_like: true,
    };
    assert!(conn.is_written_stepwise(500, chunk, 0, true));
    assert!(!conn.is_written_stepwise(500, chunk, 0, false));
    assert!(!conn.is_written_stepwise(500, WriteHint::default(), 0, true));
    conn.progress.phase = phase::READING;
    assert!(conn.may_exceed_head(500, WriteHint::default(), true));
    assert!(!conn.may_exceed_head(500, WriteHint::default(), false));
}

#[test]
fn copied_tail_is_the_end_of_the_payload() {
    let mut conn = Conn::new();
    conn.record.request_len = 5;
    conn.record.response_len = 9;
    conn.payload[..14].copy_from_slice(b"requ.response!");
    assert_eq!(conn.copied_tail(), u64::from_be_bytes(*b"esponse!"));
    conn.cursors.buffer.left = 1;
    assert_eq!(conn.copied_tail(), 0);
    conn.cursors.buffer.left = 0;
    conn.record.response_len = 7;
    assert_eq!(conn.copied_tail(), 0);
}

#[test]
fn events_are_copied_whole_up_to_their_limit() {
    let mut player = Player::new();
    player.tail = u64::from_be_bytes(*b"\":1}\n\n\r\n");
    player.recv(10, 100, Arrival::At(5), true);
    player.send(20, 30, 120, true);
    let chunk = WriteHint {
        response_like: false,
        chunk_like: true,
    };
    player.send_hinted(40, 50, 2_500, chunk);
    assert_eq!(
        pieces(&player)[1..],
        [
            (kind::PROGRESS, 1_144, 1024),
            (kind::PROGRESS, 2_168, 1024),
            (kind::PROGRESS, 2_620, 452),
        ]
    );
    let starts = player.emitted[1..]
        .iter()
        .map(|record| record.first_write_ns);
    assert!(starts.eq([40, 40, 40]));
    player.emitted.clear();
    player.send_hinted(60, 70, 40_000, chunk);
    let copied: u32 = player
        .emitted
        .iter()
        .map(|record| u32::from(record.response_len))
        .sum();
    assert_eq!(copied, EVENTS_CAP + WRITE_END_CAP);
    assert_eq!(player.emitted.last().unwrap().written_bytes, 42_620);
}

#[test]
fn first_bytes_of_a_request_and_frames_other_than_data_are_never_dropped() {
    let most = 3 * COPIED_LEAST;
    let mut conn = Conn::new();
    conn.record.mode = mode::MESSAGES;
    for (copied, expected) in [
        (0, false),
        (COPIED_LEAST - 1, false),
        (COPIED_LEAST, true),
        (most - 1, true),
    ] {
        conn.cursors.requests = FrameCursor::copying(most - copied);
        assert_eq!(conn.may_drop_body(most), expected, "{copied}");
    }
    conn.cursors.requests = FrameCursor::copying(COPIED_LEAST);
    assert!(!conn.may_drop_body(COPIED_LEAST));
    conn.record.mode = mode::STREAMS;
    assert!(!conn.may_drop_body(most));
    conn.drop_body();
    assert_eq!(conn.record.flags, flag::BODY_DROPPED);
    conn.on_emitted();
    assert_eq!(conn.record.flags, 0);
}
