//! Plays one list of cases against real servers of every kind, and checks the agent against the servers' own marks.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    clock::{monotonic_ns, wait_within},
    loss_counters::LossCounters,
    require_kernel::require_kernel,
    server_cases::{
        cases::CASES,
        expected::{Ending, Lenient},
        hosts::{self, Host, Kind},
        judge,
        play::Play,
        streams::STREAMS,
    },
};

/// Longest wait of a case for its rows before the next one; late rows count as well.
const ROWS_LIMIT: Duration = Duration::from_secs(2);
const COUNTED: &str = "inferprobe_requests_total";

/// Returns the fewest and the most requests of the play that may be unfinished.
fn unfinished(play: &Play) -> (u32, u32) {
    let (mut fewest, mut most) = (0, 0);
    for one in &play.expected {
        fewest += u32::from(one.ending == Ending::Unanswered);
        most += u32::from(one.ending != Ending::Answered);
    }
    (fewest, most)
}

fn of_play<'a>(rows: &'a [Logged], play: &'a Play, port: u16) -> impl Iterator<Item = &'a Logged> {
    let ports = (Some(port), Some(play.local_port));
    rows.iter().filter(move |row| {
        (row.local_port, row.peer_port) == ports && play.time_ns.contains(&row.first_read_ns)
    })
}

/// The counters at the end of a play, and how many requests of earlier plays may still become unfinished.
struct Counted {
    counters: LossCounters,
    late: u32,
}

/// Waits until the agent has logged the requests of the play. Returns what it counted wrongly meanwhile.
fn settle(agent: &Agent, play: &Play, port: u16, counted: &mut Counted) -> Vec<String> {
    let answered = play.expected.iter();
    let answered = answered
        .filter(|one| one.ending == Ending::Answered)
        .count();
    let (fewest, most) = unfinished(play);
    let before = &counted.counters;
    let mut now = LossCounters::of(agent);
    let _ = wait_within(ROWS_LIMIT, || {
        now = LossCounters::of(agent);
        let rows = of_play(&agent.log(), play, port).count();
        (rows >= answered && now.unfinished(before) >= fewest).then_some(())
    });
    let most = most + counted.late;
    let faults = now.faults(before, fewest, most);
    let late = most.saturating_sub(now.unfinished(before));
    *counted = Counted {
        counters: now,
        late,
    };
    faults
}

/// Plays every case that applies to the server, and fails with a line for each fault.
fn play_all(kind: Kind) {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let Some(installed) = hosts::installed() else {
        return;
    };
    let mut host = Host::start(kind, &installed);
    let agent = Agent::start(&["--watch-port", &host.port.to_string()]);
    let mut plays = Vec::new();
    let mut faults: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut counted = Counted {
        counters: LossCounters::of(&agent),
        late: 0,
    };
    for case in CASES.iter().chain(STREAMS).filter(|case| (case.on)(kind)) {
        let mut play = Play::open(case.name, kind, host.port);
        let played = catch_unwind(AssertUnwindSafe(|| (case.act)(&mut play)));
        play.client = None;
        if played.is_err() {
            let fault = "cannot be played: see the panic above".to_owned();
            faults.entry(case.name).or_default().push(fault);
            continue;
        }
        let found = settle(&agent, &play, host.port, &mut counted);
        play.time_ns.end = monotonic_ns();
        faults.entry(case.name).or_default().extend(found);
        plays.push((case.name, play));
    }
    let miscounted = miscounted(&agent, &plays);
    faults.entry("all together").or_default().extend(miscounted);
    let errors = agent.errors();
    let rows = agent.stop_for_log();
    for (name, play) in &plays {
        let known: Vec<&str> = play
            .expected
            .iter()
            .filter(|one| one.ending == Ending::Answered && one.lenient != Lenient::Refused)
            .map(|one| one.case.as_str())
            .collect();
        let marks = host.marks(play, &known);
        let own: Vec<Logged> = of_play(&rows, play, host.port).cloned().collect();
        let found = judge::faults(&play.expected, &play.sends, &own, |case| {
            let at = known.iter().position(|known| *known == case)?;
            marks[at].clone()
        });
        faults.entry(name).or_default().extend(found);
    }
    report(kind, &faults, &host, &errors);
}

/// Returns the codes whose counts differ from the number of requests with them.
fn miscounted(agent: &Agent, plays: &[(&str, Play)]) -> Vec<String> {
    let mut bounds: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let all = plays.iter().flat_map(|(_, play)| &play.expected);
    for one in all.filter(|one| one.purpose == "inference") {
        let (least, most) = match one.ending {
            Ending::Answered => (1.0, 1.0),
            Ending::Either => (0.0, 1.0),
            Ending::Unanswered | Ending::Unserved => continue,
        };
        let bounds = bounds.entry(one.code.to_string()).or_default();
        *bounds = (bounds.0 + least, bounds.1 + most);
    }
    let metrics = agent.metrics();
    for sample in metrics.samples(COUNTED, &[]) {
        bounds
            .entry(sample.label("code").unwrap().to_owned())
            .or_default();
    }
    let mut faults = Vec::new();
    for (code, (least, most)) in bounds {
        let counted = metrics.sum(COUNTED, &[("code", &code)]);
        if !(least..=most).contains(&counted) {
            faults.push(format!("{counted} of code {code}, not {least} to {most}"));
        }
    }
    faults
}

fn report(kind: Kind, faults: &BTreeMap<&str, Vec<String>>, host: &Host, errors: &str) {
    let failed: Vec<_> = faults
        .iter()
        .filter(|(_, found)| !found.is_empty())
        .collect();
    for (case, found) in &failed {
        println!("| {kind:?} | {case} | {} |", found.join("; "));
    }
    assert!(
        failed.is_empty(),
        "{kind:?}: {} of {} cases; {}; {errors}",
        failed.len(),
        faults.len(),
        host.console()
    );
}

#[test]
fn uvicorn_on_asyncio() {
    play_all(Kind::UvicornAsyncio);
}

#[test]
fn uvicorn_on_uvloop() {
    play_all(Kind::UvicornUvloop);
}

#[test]
fn gunicorn_with_threads() {
    play_all(Kind::Gunicorn);
}

#[test]
fn hypercorn() {
    play_all(Kind::Hypercorn);
}

#[test]
fn grpc_with_blocking_handlers() {
    play_all(Kind::Grpcio);
}

#[test]
fn reference_with_large_reads() {
    play_all(Kind::Reference(&[]));
}

#[test]
fn reference_with_one_byte_reads() {
    play_all(Kind::Reference(&["--read-sizes", "1"]));
}

#[test]
fn reference_with_a_first_read_of_24_bytes() {
    play_all(Kind::Reference(&[
        "--io",
        "vectored",
        "--read-sizes",
        "24,16360",
    ]));
}
