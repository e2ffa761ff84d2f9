//! Records as the kernel half sends them up, and as it never would: through every kind of connection.

use inferprobe::{
    exchange::event::{Event, Sink},
    pipeline::connections::ConnectionTable,
    torchserve::{connection::WorkerSink, exchange::WorkerExchange},
};
use inferprobe_ebpf::abi::{ArrivalStep, PAYLOAD_CAP, ProgressSlot, Record, flag, kind};

/// Bytes that describe a step; the payload of a record follows them.
const STEP_LEN: usize = 8;
/// Bytes of an entry that is taken as it is.
const RAW_LEN: usize = size_of::<Record>() + 24;
/// Connections, and processes, that records speak of.
const COOKIES: usize = 4;
/// Length of a step of the clock, ns: 1 ms or so.
const TIME_SHIFT: u32 = 20;

/// Processes records in any order, with ticks between them. No request may have more bytes than the records carry.
pub fn records(data: &[u8]) {
    for reads_payload in [true, false] {
        let mut run = Run::new(reads_payload);
        let mut rest = data;
        while let Some((step, after)) = rest.split_first_chunk() {
            rest = run.step(*step, after);
        }
        run.finish();
    }
    let mut table = ConnectionTable::new(true);
    for entry in data.chunks(RAW_LEN) {
        table.on_record(entry, &mut Events::default());
    }
}

/// What came of the records; exchanges of workers are not kept.
#[derive(Default)]
struct Events(Vec<Event>);

impl Sink for Events {
    fn event(&mut self, event: Event) {
        self.0.push(event);
    }
}

impl WorkerSink for Events {
    fn worked(&mut self, _: WorkerExchange) {}
}

/// Records up to now.
struct Run {
    table: ConnectionTable,
    out: Events,
    now_ns: u64,
    /// Number of the latest record, and bytes of the present run of writes: of records without and with
    /// `flag::RESPONSES`.
    seqs: [[u32; 2]; COOKIES],
    written_bytes: [[u64; 2]; COOKIES],
}

impl Run {
    fn new(reads_payload: bool) -> Self {
        Self {
            table: ConnectionTable::new(reads_payload),
            out: Events::default(),
            now_ns: 1 << 32,
            seqs: [[0; 2]; COOKIES],
            written_bytes: [[0; 2]; COOKIES],
        }
    }

    /// Executes a step, and returns what follows its payload.
    fn step<'a>(&mut self, step: [u8; STEP_LEN], rest: &'a [u8]) -> &'a [u8] {
        let [
            what,
            flags,
            order,
            request_len,
            response_len,
            reads,
            writes,
            wait,
        ] = step;
        self.now_ns += u64::from(wait) << TIME_SHIFT;
        let (index, scale) = (
            usize::from(what >> 3 & 3),
            if what & 0x80 == 0 { 1 } else { 8 },
        );
        match what & 7 {
            5 => {
                self.tick(writes);
                return rest;
            }
            6 => {
                self.table.on_process_exit(index as u32);
                return rest;
            }
            _ => {}
        }
        let record_kind = match what & 7 {
            0 => kind::READ,
            1 => kind::EXCHANGE,
            2 => kind::PROGRESS,
            3 => kind::CLOSE,
            4 => kind::REPLY_READ,
            _ => order,
        };
        let (request, rest) = take(rest, usize::from(request_len) * scale);
        let (answer, rest) = take(rest, usize::from(response_len) * scale);
        let side = usize::from(flags & flag::RESPONSES != 0);
        let seq = &mut self.seqs[index][side];
        if record_kind != kind::REPLY_READ {
            *seq = match order {
                0xfe => *seq,
                0xff => seq.wrapping_add(7),
                _ => seq.wrapping_add(1),
            };
        }
        let reported = answer.len() as u64 + unseen(writes);
        let written_bytes = &mut self.written_bytes[index][side];
        *written_bytes = match record_kind {
            kind::PROGRESS if order != 0xfd => *written_bytes + reported,
            _ => reported,
        };
        let record = Record {
            cookie: index as u64 + 1,
            arrival_ns: self.now_ns - 3,
            first_read_ns: self.now_ns - 2,
            last_read_ns: self.now_ns - 1,
            read_bytes: request.len() as u64 + unseen(reads),
            first_write_ns: self.now_ns,
            last_write_ns: self.now_ns + u64::from(reads),
            written_bytes: *written_bytes,
            tail: tail_of(answer),
            total_bytes: self.now_ns,
            seq: *seq,
            tgid: index as u32,
            request_len: request.len() as u16,
            response_len: answer.len() as u16,
            local_port: 80,
            peer_port: 1024 + index as u16,
            kind: record_kind,
            flags,
            mode: what >> 5 & 3,
            writes: u32::from(writes),
            steps: std::array::from_fn(|step| ArrivalStep {
                end: u32::from(reads) * step as u32,
                later_ns: u32::from(wait) << step,
            }),
            read_offset: u32::from(wait),
            ..Record::NONE
        };
        let entry = [bytemuck::bytes_of(&record), request, answer].concat();
        self.table.on_record(&entry, &mut self.out);
        rest
    }

    /// Lets the agent look after its connections, of which the kernel holds something back if there are `writes`.
    fn tick(&mut self, writes: u8) {
        let (now_ns, written_bytes) = (self.now_ns, self.written_bytes);
        let progress = |cookie: u64, seq: u32| {
            (writes > 0).then(|| ProgressSlot {
                cookie,
                last_write_ns: now_ns,
                written_bytes: written_bytes[cookie as usize - 1][0] + unseen(writes),
                tail: u64::from(writes),
                writes: writes.into(),
                undrained_us: writes.into(),
                total_bytes: now_ns,
                seq: seq.into(),
                check: 0,
            })
        };
        self.table.tick(now_ns, progress, &mut self.out);
        self.table.coverage.drain().for_each(drop);
    }

    /// Ends every connection, and looks at what came out.
    fn finish(mut self) {
        self.now_ns += 1 << 50;
        self.tick(0);
        for index in 0..COOKIES {
            let mut end = [0; STEP_LEN];
            end[0] = 3 | (index as u8) << 3;
            self.step(end, &[]);
        }
        for outcome in &self.out.0 {
            if let Event::Finished(exchange) = outcome {
                assert!(exchange.response.status != 0 || exchange.request.method.is_empty());
                assert!(exchange.request.target.len() <= 3 * 1024);
            }
        }
    }
}

/// Bytes that were not carried: mostly none, some, or very many.
fn unseen(code: u8) -> u64 {
    match code >> 6 {
        0 | 1 => 0,
        2 => u64::from(code & 63),
        _ => 1 << (code & 63).min(44),
    }
}

fn take(bytes: &[u8], len: usize) -> (&[u8], &[u8]) {
    bytes.split_at(len.min(bytes.len()).min(PAYLOAD_CAP))
}

/// The last bytes, the newest in the low byte.
fn tail_of(bytes: &[u8]) -> u64 {
    let last = bytes.iter().rev().take(8).rev();
    last.fold(0, |tail, byte| tail << 8 | u64::from(*byte))
}
