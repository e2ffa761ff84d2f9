//! Compares the agent's times with the reference server's own stamps, on a machine that may be emulated.
//!
//! Each time must be inside its system call, and each stage within a limit of what the stamps say.

use std::{collections::HashMap, thread, time::Duration};

use crate::{
    agent::{Agent, request_log::Logged},
    check_times::{Key, mismatches, pair},
    client::{Connection, request},
    clock::{monotonic_ns, wait_every},
    exposition::Exposition,
    loss_counters::{LOST, UNFINISHED},
    server::{
        Place, Server,
        stamps::{Call, Stamp},
    },
    stats::Spread,
};

const CONNECTIONS: usize = 2;
/// Rounds, of which one must hold the limits: the hypervisor may stop the machine between a system call and its stamp.
const ROUNDS: usize = 3;
/// Limit of an error, or a tenth of the time itself.
const BOUND_NS: u64 = 1_000_000;
const BOUND_SHARE: u64 = 10;
/// One error in this many may be larger.
const OUTLIERS: usize = 100;
/// Longest wait for the last rows.
const ROWS_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two reads of the log, which uses CPU time beside what is measured.
const ROWS_PAUSE: Duration = Duration::from_millis(200);
const COUNTED: &str = "inferprobe_requests_total";
const UNKNOWN: &str = "inferprobe_request_stage_unknown_total";

/// A kind of request: its target, the bytes of its body, and where the client cuts it in two.
struct Ask {
    target: &'static str,
    body_bytes: usize,
    cut: Option<usize>,
}

const ASKS: [Ask; 6] = [
    ask("/predictions/a", 200),
    ask("/predictions/a?sleep_us=500&body=3000", 20_000),
    ask("/v2/models/c/infer?chunks=3&body=500", 0),
    Ask {
        cut: Some(150),
        ..ask("/v1/models/b:predict?sleep_ms=2", 3_000)
    },
    ask("/v2/models/c/versions/3/infer?split=1&sleep_ms=10", 200),
    Ask {
        cut: Some(20),
        ..ask("/predictions/a?status=503&write_size=50&body=400", 200)
    },
];

const fn ask(target: &'static str, body_bytes: usize) -> Ask {
    Ask {
        target,
        body_bytes,
        cut: None,
    }
}

/// The client's first and last send of a request.
type Sends = HashMap<Key, (Call, Call)>;

/// Outcome of a round.
pub(super) struct Accuracy {
    /// Requests that were answered.
    pub(super) requests: usize,
    /// Requests that the agent has counted.
    pub(super) counted: f64,
    /// Errors of the handler stage, in nanoseconds.
    pub(super) handler: Option<Spread>,
    /// Errors of the queue stage; `None` if it must be unknown, and is.
    pub(super) queue: Option<Spread>,
    /// What is wrong.
    pub(super) faults: Vec<String>,
    /// Whether the stamps are too far apart to judge the tail of the errors.
    pub(super) vague: bool,
    before: Exposition,
}

impl Accuracy {
    /// Returns the first round within the limits, or the last. The agent watches the server, which has no other
    /// clients.
    pub(super) fn hold(
        agent: &Agent,
        server: &mut Server,
        knows_arrival: bool,
        count: usize,
    ) -> Self {
        let mut round = Self::round(agent, server, knows_arrival, count);
        for number in 1..ROUNDS {
            // One more round if the first could not be judged.
            if round.faults.is_empty() && (!round.vague || number > 1) {
                break;
            }
            for fault in &round.faults {
                println!("a round failed: {fault}");
            }
            round = Self::round(agent, server, knows_arrival, count);
        }
        round
    }

    fn round(agent: &Agent, server: &mut Server, knows_arrival: bool, count: usize) -> Self {
        let before = agent.metrics();
        let began_ns = monotonic_ns();
        let known = server.stamps(0).len();
        let sends = drive(&server.place, count);
        let requests = sends.len();
        let stamps = server.stamps(known + requests).split_off(known);
        let of_round =
            |row: &Logged| row.local_port == Some(server.port()) && row.first_read_ns >= began_ns;
        let mut rows = Vec::new();
        let mut counted = 0.0;
        let _ = wait_every(ROWS_PAUSE, ROWS_LIMIT, || {
            counted = agent.metrics().sum(COUNTED, &[]) - before.sum(COUNTED, &[]);
            if counted < requests as f64 {
                return None;
            }
            rows = agent.log();
            rows.retain(of_round);
            (rows.len() >= requests).then_some(())
        });
        let mut round = Self {
            requests,
            counted,
            handler: None,
            queue: None,
            faults: Vec::new(),
            vague: false,
            before,
        };
        if rows.len() != requests || counted != requests as f64 {
            let rows = rows.len();
            let lost = round.losses(agent);
            round.fault(format!(
                "{rows} rows, {counted} counted, of {requests}; {lost}"
            ));
            return round;
        }
        let pairs = pair(&stamps, &rows);
        round.hold_moments(&pairs, &sends, knows_arrival);
        round.hold_handler(&pairs, &sends);
        round.hold_queue(&pairs, &sends, knows_arrival);
        round.hold_sums(agent, &rows, knows_arrival);
        round
    }

    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Checks that each time is inside its call, that times are in order, and that what cannot be known is unknown.
    fn hold_moments(&mut self, pairs: &[(Stamp, Logged)], sends: &Sends, knows_arrival: bool) {
        let mut wrong = Vec::new();
        for (stamp, row) in pairs {
            let mut found = mismatches(stamp, &sends[&(row.peer_port, row.seq)].0, row);
            if !knows_arrival {
                found.retain(|fault| fault != "arrival is unknown");
                if row.arrival_ns.is_some() {
                    found.push("arrival is known, and cannot be".to_owned());
                }
            }
            let moments = [
                row.arrival_ns,
                Some(row.first_read_ns),
                Some(row.last_read_ns),
                row.first_write_ns,
                row.last_write_ns,
            ];
            if !moments.iter().flatten().is_sorted() {
                found.push(format!("stages overlap: {moments:?}"));
            }
            if !found.is_empty() {
                wrong.push(format!("{}: {}", stamp.target, found.join(", ")));
            }
        }
        if let Some(first) = wrong.first() {
            self.fault(format!("{} requests do not fit: {first}", wrong.len()));
            for one in wrong.iter().skip(1).take(10) {
                println!("does not fit: {one}");
            }
        }
    }

    fn hold_handler(&mut self, pairs: &[(Stamp, Logged)], sends: &Sends) {
        let errors = pairs.iter().filter_map(|(stamp, row)| {
            let (_, sent) = sends[&(row.peer_port, row.seq)];
            let expected_ns = stamp.handler_ns();
            let read_from_ns = stamp.last_read.call_ns.max(sent.call_ns);
            let read_ns = stamp.last_read.return_ns.saturating_sub(read_from_ns);
            let write_ns = stamp.first_write.return_ns - stamp.first_write.call_ns;
            Some(Error {
                error_ns: row.handler_ns()?.abs_diff(expected_ns),
                time_ns: expected_ns,
                vague_ns: read_ns.max(write_ns),
            })
        });
        self.handler = self.hold_errors("handler", &errors.collect::<Vec<_>>());
    }

    /// The server cannot observe the arrival: the request became readable during the client's send.
    fn hold_queue(&mut self, pairs: &[(Stamp, Logged)], sends: &Sends, knows_arrival: bool) {
        if !knows_arrival {
            return;
        }
        let errors = pairs.iter().filter_map(|(stamp, row)| {
            let (sent, _) = sends[&(row.peer_port, row.seq)];
            let read_ns = stamp.first_read.return_ns;
            let shortest_ns = read_ns.saturating_sub(sent.return_ns);
            let longest_ns = read_ns.saturating_sub(sent.call_ns);
            let queue_ns = row.queue_ns()?;
            let below_ns = shortest_ns.saturating_sub(queue_ns);
            Some(Error {
                error_ns: below_ns.max(queue_ns.saturating_sub(longest_ns)),
                time_ns: longest_ns,
                vague_ns: read_ns - stamp.first_read.call_ns.max(sent.call_ns),
            })
        });
        self.queue = self.hold_errors("queue", &errors.collect::<Vec<_>>());
    }

    /// Compares the median and the p99 of errors with the limit. If the stamps are further apart than the limit, the
    /// p99 cannot be judged.
    fn hold_errors(&mut self, stage: &str, errors: &[Error]) -> Option<Spread> {
        let spread = Spread::of(errors.iter().map(|error| error.error_ns).collect());
        let beyond = errors.iter().filter(|error| error.is_beyond()).count();
        let vague = errors
            .iter()
            .filter(|error| error.vague_ns > BOUND_NS)
            .count();
        for one_in in [2, OUTLIERS] {
            let is_over = beyond * one_in > errors.len();
            if is_over && vague * one_in > errors.len() {
                self.vague = true;
            } else if is_over {
                self.fault(format!(
                    "{beyond} errors of {stage} time are beyond the bound: {spread:?}"
                ));
            }
        }
        if errors.len() != self.requests {
            let known = errors.len();
            self.fault(format!("{stage} time is known of {known} requests"));
        }
        spread
    }

    /// Checks that the exported sums are those of the rows, and that unknown stages are counted.
    fn hold_sums(&mut self, agent: &Agent, rows: &[Logged], knows_arrival: bool) {
        let metrics = agent.metrics();
        let sum_s = |times_ns: Vec<Option<u64>>| {
            let total_ns: u64 = times_ns.into_iter().flatten().sum();
            total_ns as f64 / 1e9
        };
        let count = rows.len() as f64;
        let known = if knows_arrival { count } else { 0.0 };
        let duration_ns = |row: &Logged| Some(row.last_write_ns? - row.arrival_ns?);
        for (name, expected) in [
            (
                "inferprobe_request_queue_seconds_sum",
                sum_s(rows.iter().map(Logged::queue_ns).collect()),
            ),
            (
                "inferprobe_request_handler_seconds_sum",
                sum_s(rows.iter().map(Logged::handler_ns).collect()),
            ),
            (
                "inferprobe_request_duration_seconds_sum",
                sum_s(rows.iter().map(duration_ns).collect()),
            ),
            ("inferprobe_request_queue_seconds_count", known),
            ("inferprobe_request_handler_seconds_count", count),
            ("inferprobe_request_duration_seconds_count", known),
        ] {
            let found = metrics.sum(name, &[]) - self.before.sum(name, &[]);
            if (found - expected).abs() >= 1e-6 {
                self.fault(format!("{name} is {found}, not {expected}"));
            }
        }
        for (stage, expected) in [("queue", count - known), ("handler", 0.0)] {
            let labels = [("stage", stage)];
            let found = metrics.sum(UNKNOWN, &labels) - self.before.sum(UNKNOWN, &labels);
            if found != expected {
                self.fault(format!(
                    "{found} unknown times of stage {stage}, not {expected}"
                ));
            }
        }
        let lost = self.losses(agent);
        if !lost.is_empty() {
            self.fault(lost);
        }
    }

    /// Checks that the agent has lost nothing and left nothing unfinished.
    fn losses(&self, agent: &Agent) -> String {
        let metrics = agent.metrics();
        let mut losses = Vec::new();
        for family in [LOST, UNFINISHED] {
            for sample in metrics.samples(family, &[]) {
                let reason = sample.label("reason").unwrap_or_default();
                let server = sample.label("server").unwrap_or_default();
                let labels = [("server", server), ("reason", reason)];
                let before = self.before.sum(family, &labels);
                if sample.value > before {
                    losses.push(format!("{family} {reason}: {}", sample.value - before));
                }
            }
        }
        losses.join(", ")
    }
}

/// The error of a time.
struct Error {
    error_ns: u64,
    /// The time itself, by the stamps.
    time_ns: u64,
    /// How long the stamped calls took.
    vague_ns: u64,
}

impl Error {
    fn is_beyond(&self) -> bool {
        self.error_ns > BOUND_NS.max(self.time_ns / BOUND_SHARE)
    }
}

/// Sends about `count` requests over concurrent keep-alive connections, and returns the client's sends of each.
fn drive(place: &Place, count: usize) -> Sends {
    let each = count.div_ceil(CONNECTIONS);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let mut client = Connection::open(place).expect("the server listens");
            thread::spawn(move || {
                // Each connection starts with another kind, so that different requests run together.
                let asks = ASKS.iter().cycle().skip(number).take(each);
                let sends = (0..).zip(asks).map(|(seq, ask)| {
                    let sent = send(&mut client, ask);
                    ((client.local_port(), seq), sent)
                });
                sends.collect::<Vec<_>>()
            })
        })
        .collect();
    let sends = clients.into_iter().flat_map(|client| {
        let sends = client.join();
        sends.expect("every request is answered")
    });
    sends.collect()
}

/// Sends one request and reads its response. Returns the client's first send, and its last.
fn send(client: &mut Connection, ask: &Ask) -> (Call, Call) {
    let bytes = request("POST", ask.target, &[], &vec![b'x'; ask.body_bytes]);
    let (first, rest) = bytes.split_at(ask.cut.unwrap_or(bytes.len()));
    let sent = client.send(first).expect("the server reads");
    let mut last = sent;
    if !rest.is_empty() {
        thread::sleep(Duration::from_millis(1));
        last = client.send(rest).expect("the server reads");
    }
    client.receive(false).expect("the server answers");
    (sent, last)
}
