//! Loads a server on few processors, beside threads that never wait, so that tasks lose their CPU anywhere; then compares
//! every request with what was sent.
//!
//! If the machine has several processors, packets are delivered by interrupts of another one, which stop programs midway.

use std::{
    collections::BTreeMap,
    fmt, fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    agent::{Agent, request_log::Logged},
    client::{Connection, request},
    clock::wait_every,
    kernel_matrix::{SKIPPED, preemption, rows::Row},
    loss_counters::{LOST, UNFINISHED},
    server::{Place, Server},
};

/// Connections that are in use at the same time.
const CONNECTIONS: usize = 64;
/// Threads of the client, each with its share of the connections.
const CLIENTS: usize = 4;
/// Threads that never wait.
const HOGS: usize = 2;
/// What is asked, in turn.
const TARGETS: [(&str, usize); 5] = [
    ("/predictions/a", 200),
    ("/predictions/b?body=3000&split=1", 900),
    ("/v2/models/c/infer?chunks=3&body=500", 0),
    ("/v1/models/d:predict?status=503", 500),
    ("/predictions/e?write_size=700&body=4000", 40),
];
/// Longest wait for the last requests to be counted.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
const COUNTED: &str = "inferprobe_requests_total";
/// By which processors packets of the loopback interface are received; a mask.
const RECEIVERS: &str = "/sys/class/net/lo/queues/rx-0/rps_cpus";

/// A request and its response, without times.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Facts {
    model: String,
    status: u16,
    request_bytes: u64,
    response_bytes: u64,
    chunks: Option<u32>,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            model,
            status,
            request_bytes,
            response_bytes,
            chunks,
        } = self;
        write!(
            f,
            "{model} {status}, {request_bytes} B in, {response_bytes} B out, {chunks:?} chunks"
        )
    }
}

/// How often each request was sent, or logged.
type Counts = BTreeMap<Facts, usize>;

/// Sends `requests` requests, and compares what the agent has logged and counted with them.
///
/// If `changes`, the preemption model changes meanwhile.
pub(super) fn hold(
    mode: &'static str,
    agent: &Agent,
    server: &Server,
    requests: usize,
    changes: bool,
) -> Row {
    deliver_by_interrupt();
    let before = agent.metrics();
    let of = |family: &str| {
        let metrics = agent.metrics();
        let grown = metrics.samples(family, &[]).map(|sample| {
            let label = |name| sample.label(name).unwrap_or_default().to_owned();
            let (reason, program) = (label("reason"), label("program"));
            let labels = [("reason", reason.as_str()), ("program", program.as_str())];
            let labels: Vec<_> = labels
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect();
            let by = sample.value - before.sum(family, &labels);
            (format!("{family} {reason}{program}"), by)
        });
        grown.filter(|(_, by)| *by > 0.0).collect::<Vec<_>>()
    };
    let drive_all = || beside_hogs(|| drive(&server.place, requests));
    let sent = if changes {
        let (sent, times) = preemption::changing(drive_all);
        println!("the preemption model changed {times} times");
        sent
    } else {
        drive_all()
    };
    let mut counted = 0.0;
    let mut rows = Vec::new();
    let _ = wait_every(PAUSE, LIMIT, || {
        counted = agent.metrics().sum(COUNTED, &[]) - before.sum(COUNTED, &[]);
        let flagged: f64 = of(UNFINISHED).iter().map(|(_, by)| by).sum();
        rows = agent.log();
        rows.retain(|row| row.local_port == Some(server.port()));
        (counted + flagged >= requests as f64 && rows.len() as f64 >= counted).then_some(())
    });
    let mut faults = Vec::new();
    let logged = count(rows.iter().map(facts));
    for (facts, times) in &logged {
        let wanted = sent.get(facts).copied().unwrap_or(0);
        if *times > wanted {
            faults.push(format!("{} too many: {facts}", times - wanted));
        }
    }
    let losses: Vec<_> = of(UNFINISHED).into_iter().chain(of(LOST)).collect();
    if counted != requests as f64 {
        faults.push(format!("{counted} counted of {requests}"));
    }
    faults.extend(losses.iter().map(|(reason, by)| format!("{reason}: {by}")));
    for (program, by) in of(SKIPPED) {
        println!("{program}: {by}");
    }
    for fault in &faults {
        println!("{fault}");
    }
    Row::loaded(mode, requests, counted, &faults)
}

/// Runs `act` beside threads that never wait.
fn beside_hogs<T>(act: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..HOGS {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let outcome = act();
        ended.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Has every processor receive packets, so that most arrive in an interrupt.
fn deliver_by_interrupt() {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    if processors > 1 {
        let mask = format!("{:x}", (1_u64 << processors) - 1);
        fs::write(RECEIVERS, mask).expect("the kernel has receive packet steering");
    }
}

/// Sends the requests, one at a time on each connection; returns what was sent and received.
fn drive(place: &Place, requests: usize) -> Counts {
    let each = requests / CLIENTS;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let place = place.clone();
            thread::spawn(move || drive_some(&place, number, each))
        })
        .collect();
    let facts = clients.into_iter().flat_map(|client| {
        let facts = client.join();
        facts.expect("every request is answered")
    });
    count(facts)
}

fn drive_some(place: &Place, number: usize, requests: usize) -> Vec<Facts> {
    let mut connections: Vec<Connection> = (0..CONNECTIONS / CLIENTS)
        .map(|_| Connection::open(place).expect("the server listens"))
        .collect();
    let mut turns = TARGETS.iter().cycle().skip(number);
    let mut all = Vec::with_capacity(requests);
    while all.len() < requests {
        let mut open = Vec::new();
        for client in connections.iter_mut().take(requests - all.len()) {
            let (target, body_bytes) = turns.next().expect("they never end");
            let bytes = request("POST", target, &[], &vec![b'x'; *body_bytes]);
            client.send(&bytes).expect("the server reads");
            open.push((client, target, bytes.len()));
        }
        for (client, target, request_bytes) in open {
            let response = client.receive(false).expect("the server answers");
            let path = target.split(['?', ':']).next().unwrap_or_default();
            let model = path.trim_end_matches("/infer").rsplit('/').next();
            let chunks = target.contains("chunks=3").then_some(3);
            all.push(Facts {
                model: model.unwrap_or_default().to_owned(),
                status: response.status,
                request_bytes: request_bytes as u64,
                response_bytes: response.bytes,
                chunks,
            });
        }
    }
    all
}

fn facts(row: &Logged) -> Facts {
    Facts {
        model: row.model.clone(),
        status: row.status,
        request_bytes: row.request_bytes,
        response_bytes: row.response_bytes,
        chunks: row.stream.as_ref().and_then(|stream| stream.chunks),
    }
}

fn count(all: impl Iterator<Item = Facts>) -> Counts {
    let mut counts = Counts::new();
    for facts in all {
        *counts.entry(facts).or_default() += 1;
    }
    counts
}
