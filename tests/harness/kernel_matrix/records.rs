//! Sends the same requests on every kernel and in every attach mode, and compares all but the times of the records.
//!
//! The expected records are in a golden file; `UPDATE_GOLDEN=1` on a host rewrites it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::Duration,
};

use crate::{
    agent::{Agent, LOG_LIMIT, request_log::Logged},
    clock::{monotonic_ns, wait_every},
    grpc::client::GrpcClient,
    kernel_matrix::{
        plain,
        stage::{Hosted, Stage, port_of},
        tls,
    },
    scripted_server::{cases::CASES as SCRIPTS, play::play},
    server_cases::{
        cases::{CASES, Case},
        expected::{Ending, Lenient},
        play::Play,
    },
};

/// Expected lines, each after its count.
const GOLDEN: &str = include_str!("../../golden/kernel_records.txt");
/// Path of the golden file.
const GOLDEN_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/kernel_records.txt");
/// If set to `1`, the golden file is rewritten.
const UPDATE: &str = "UPDATE_GOLDEN";
/// Longest wait for missing rows.
const ROWS_LIMIT: Duration = Duration::from_secs(10);
/// gRPC calls.
const CALLS: usize = 10;

/// Cases whose outcome depends on the scheduler: a reset may overtake a response.
const RACES: [&str; 3] = ["reset", "reset-in-the-body", "probes"];
/// Cases of many parts, each of which waits until the one before is read; the scripts cover others like them.
const LONG: [&str; 4] = [
    "byte-by-byte",
    "chunked-in-parts",
    "cut-anywhere",
    "two-cut-anywhere",
];
/// Cases for servers that differ from the first only in their system calls.
const BRIEF: [&str; 16] = [
    "one-after-another",
    "codes",
    "bodiless",
    "big-head",
    "http-1.0",
    "close",
    "early",
    "pipelined",
    "pipelined-bodies",
    "pipelined-big-answers",
    "second-while-first-runs",
    "big-body",
    "continue",
    "chunked-pipelined",
    "chunked-answer",
    "big-chunks",
];

/// Lines and their counts.
type Lines = BTreeMap<String, usize>;

/// Which values of a request are certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certain {
    All,
    /// All but how much of it was read.
    ButRequestBytes,
    /// All but the sizes.
    NoBytes,
    /// Not even whether there is a row.
    Nothing,
}

/// The rows of one case.
pub(super) struct Window {
    name: String,
    /// The server's port, or 0 on a unix socket, and the client's.
    ports: (u16, Option<u16>),
    time_ns: Range<u64>,
    /// Models whose values are not all certain.
    certain: HashMap<String, Certain>,
}

/// Outcome of the comparison.
pub(super) struct Compared {
    /// Rows of the log.
    pub(super) rows: usize,
    /// Lines that the agent logged without reason (`+`), or did not log (`-`).
    pub(super) differences: Vec<String>,
}

/// Plays every case on the stage, and compares the agent's records.
pub(super) fn compare(stage: &Stage, agent: &Agent) -> Compared {
    // Cases mostly wait, so all servers are used at the same time.
    let mut windows = thread::scope(|scope| {
        let hosts = stage.hosts.iter();
        let played: Vec<_> = hosts
            .map(|hosted| scope.spawn(move || play_all(hosted)))
            .collect();
        let mut windows = scripted(stage);
        for played in played {
            windows.extend(played.join().expect("a case that fails is caught"));
        }
        windows
    });
    let first = &stage.hosts[0].host;
    windows.push(Window::during("idle threads", first.port, || {
        plain::idle_threads(first.port);
    }));
    windows.push(Window::during("unix", 0, || plain::unix(&stage.unix.place)));
    windows.push(Window::during("grpc", stage.calls.port, || {
        GrpcClient::connect(stage.calls.port).call(0, CALLS, 1);
    }));
    let has_tls = tls::is_in_kernel();
    let encrypted = tls::CASES
        .iter()
        .filter(|case| has_tls || !case.needs_kernel());
    windows.extend(encrypted.map(|case| {
        Window::during(case.name, port_of(&stage.encrypted), || {
            case.play(&stage.encrypted);
        })
    }));
    let (in_kernel, mut expected): (Lines, Lines) = read(GOLDEN)
        .into_iter()
        .partition(|(line, _)| line.contains(tls::IN_KERNEL));
    if has_tls {
        expected.extend(in_kernel.clone());
    }
    let update = std::env::var(UPDATE).as_deref() == Ok("1") && Path::new(GOLDEN_PATH).exists();
    let count = if update {
        usize::MAX
    } else {
        expected.values().sum()
    };
    let rows = settled(agent, stage, count);
    let found = lines(&rows, &windows);
    if update {
        let mut all = in_kernel;
        all.extend(found.clone());
        std::fs::write(GOLDEN_PATH, write(&all)).expect("the file of records can be written");
    }
    Compared {
        rows: rows.len(),
        differences: differences(&expected, &found),
    }
}

/// Plays every case that applies to a server.
fn play_all(Hosted { name, host, brief }: &Hosted) -> Vec<Window> {
    let wanted = |case: &&Case| {
        let is_left_out = RACES.contains(&case.name) || LONG.contains(&case.name);
        let is_asked = !brief || BRIEF.contains(&case.name);
        (case.on)(host.kind) && is_asked && !is_left_out
    };
    CASES
        .iter()
        .filter(wanted)
        .map(|case| {
            let mut play = Play::open(case.name, host.kind, host.port);
            // A case that fails lacks rows.
            let _ = catch_unwind(AssertUnwindSafe(|| (case.act)(&mut play)));
            play.client = None;
            Window::of_play(&format!("{name}/{}", case.name), &play, host.port)
        })
        .collect()
}

fn scripted(stage: &Stage) -> Vec<Window> {
    let port = port_of(&stage.scripted);
    let mut windows = Vec::new();
    for case in SCRIPTS.iter().filter(|case| !RACES.contains(&case.name)) {
        let script = (case.script)();
        let opened_ns = monotonic_ns();
        let Ok(played) = catch_unwind(AssertUnwindSafe(|| play(&stage.scripted, &script))) else {
            println!("{} cannot be played", case.name);
            continue;
        };
        let early = script.asked.iter().filter(|asked| asked.early);
        windows.push(Window {
            name: format!("scripted/{}", case.name),
            ports: (port, Some(played.peer_port)),
            time_ns: opened_ns..played.time_ns.end,
            certain: early
                .map(|asked| (asked.model.clone(), Certain::ButRequestBytes))
                .collect(),
        });
    }
    windows
}

impl Window {
    fn of_play(name: &str, play: &Play, port: u16) -> Self {
        let certain = play.expected.iter().map(|one| {
            let certain = match (one.ending, one.lenient) {
                (Ending::Either, _) => Certain::Nothing,
                (_, Lenient::No) => Certain::All,
                (_, Lenient::Early) => Certain::ButRequestBytes,
                (_, Lenient::Refused | Lenient::Shared) => Certain::NoBytes,
            };
            (one.model.clone(), certain)
        });
        Self {
            name: name.to_owned(),
            ports: (port, Some(play.local_port)),
            time_ns: play.time_ns.start..monotonic_ns(),
            certain: certain.collect(),
        }
    }

    /// Returns the window of a server while `act` runs.
    fn during(name: &str, port: u16, act: impl FnOnce()) -> Self {
        let opened_ns = monotonic_ns();
        let done = catch_unwind(AssertUnwindSafe(act));
        if done.is_err() {
            println!("{name} cannot be played");
        }
        Self {
            name: name.to_owned(),
            ports: (port, None),
            time_ns: opened_ns..monotonic_ns(),
            certain: HashMap::new(),
        }
    }

    fn is_of(&self, row: &Logged) -> bool {
        let (port, peer) = self.ports;
        row.local_port.unwrap_or(0) == port
            && (peer.is_none() || row.peer_port == peer)
            && self.time_ns.contains(&row.first_read_ns)
    }

    /// Returns the row without what differs between runs; `None` for an optional row.
    fn line(&self, number: usize, row: &Logged) -> Option<String> {
        let certain = self.certain.get(&row.model).unwrap_or(&Certain::All);
        let (request, response) = match certain {
            Certain::All => (
                row.request_bytes.to_string(),
                row.response_bytes.to_string(),
            ),
            Certain::ButRequestBytes => ("-".to_owned(), row.response_bytes.to_string()),
            Certain::NoBytes => ("-".to_owned(), "-".to_owned()),
            Certain::Nothing => return None,
        };
        let chunks = row.stream.as_ref().map_or_else(
            || "no stream".to_owned(),
            |stream| match stream.chunks {
                Some(chunks) => format!("{chunks} chunks"),
                None => "unknown chunks".to_owned(),
            },
        );
        Some(format!(
            "{} #{number}: {} {} {} {} {}, {request} B in, {response} B out, {chunks}",
            self.name, row.method, row.model, row.version, row.purpose, row.status
        ))
    }
}

/// Returns the rows of all servers but the timed one, once there are `count` or no more come.
fn settled(agent: &Agent, stage: &Stage, count: usize) -> Vec<Logged> {
    let mut rows = Vec::new();
    let _ = wait_every(LOG_LIMIT, ROWS_LIMIT, || {
        rows = agent.log();
        rows.retain(|row| stage.has(row));
        (rows.len() >= count).then_some(())
    });
    // Surplus rows may come later.
    thread::sleep(LOG_LIMIT);
    rows = agent.log();
    rows.retain(|row| stage.has(row));
    rows
}

fn lines(rows: &[Logged], windows: &[Window]) -> Lines {
    let mut lines = Lines::new();
    let mut by_window: BTreeMap<(usize, u64), Vec<&Logged>> = BTreeMap::new();
    for row in rows {
        match windows.iter().position(|window| window.is_of(row)) {
            Some(window) => by_window.entry((window, row.conn)).or_default().push(row),
            None => {
                let line = format!("of no case: {} {} {}", row.method, row.model, row.status);
                *lines.entry(line).or_default() += 1;
            }
        }
    }
    for ((window, _), mut rows) in by_window {
        rows.sort_by_key(|row| row.seq);
        let said = rows.iter().enumerate();
        for line in said.filter_map(|(number, row)| windows[window].line(number, row)) {
            *lines.entry(line).or_default() += 1;
        }
    }
    lines
}

/// Returns each line whose counts differ.
fn differences(expected: &Lines, found: &Lines) -> Vec<String> {
    let mut differences = Vec::new();
    let all: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for line in all {
        let times = |lines: &Lines| lines.get(line).copied().unwrap_or(0);
        let (wanted, said) = (times(expected), times(found));
        if wanted > said {
            differences.push(format!("- {} × {line}", wanted - said));
        }
        if said > wanted {
            differences.push(format!("+ {} × {line}", said - wanted));
        }
    }
    differences
}

fn read(text: &str) -> Lines {
    let line = |line: &str| {
        let (times, line) = line.split_once(" × ").expect("a line has its number");
        (line.to_owned(), times.parse().expect("it is a number"))
    };
    text.lines().map(line).collect()
}

fn write(lines: &Lines) -> String {
    lines
        .iter()
        .map(|(line, times)| format!("{times} × {line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_by_count() {
        let expected = read("2 × a\n1 × b\n");
        assert_eq!(write(&expected), "2 × a\n1 × b\n");
        let found = read("1 × a\n1 × b\n1 × c\n");
        assert_eq!(differences(&expected, &found), ["- 1 × a", "+ 1 × c"]);
        assert!(differences(&found, &found).is_empty());
    }
}
