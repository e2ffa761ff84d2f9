//! Measures the time in the kernel, by the kernel's own statistics: of each hook, and per request.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context, Result};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    server::Server,
};

use crate::{
    Pace,
    bpf_stats::{self, Runs},
    load,
    placement::Placement,
    report::{Row, Section},
    watch,
};

/// Length of each of the two loads.
const LOAD: Duration = Duration::from_secs(3);
/// Connections and processes that come and go.
const SHORT_CONNECTIONS: usize = 300;
const SHORT_PROCESSES: usize = 100;
const HOOK_TARGET_NS: f64 = 150.0;
const REQUEST_TARGET_NS: f64 = 1000.0;
/// Hooks that run once for each request at either end of its connection.
const PER_REQUEST: [&str; 4] = [
    "sk_data_ready",
    "sock_recv_length",
    "tcp_sendmsg_locked",
    "sock_send_length",
];

type ByHook = BTreeMap<String, Runs>;

/// Measures with the parties in each place.
pub(crate) fn measure() -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for placement in Placement::ALL {
        sections.extend(of_placement(placement)?);
    }
    Ok(sections)
}

/// Loads a watched server and another, then lets connections and processes come and go.
fn of_placement(placement: Placement) -> Result<Vec<Section>> {
    let start = || Server::start(&["--echo"]);
    let watched = placement.of_server(start)?;
    let unwatched = placement.of_server(start)?;
    placement.of_others(|| of_servers(&watched, &unwatched, placement))?
}

fn of_servers(watched: &Server, unwatched: &Server, placement: Placement) -> Result<Vec<Section>> {
    let agent = Agent::start_unlogged(&watch(watched));
    let stats = bpf_stats::enable().context("switch BPF statistics on (bpf(2), Linux 5.8)")?;
    let empty_ns = bpf_stats::empty_run_ns(&stats).context("time an empty BPF program")?;
    let (of_unwatched, unwatched_requests) =
        during(&agent, || Ok(load(unwatched, LOAD, Pace::FULL)?.requests))?;
    let (of_watched, watched_requests) =
        during(&agent, || Ok(load(watched, LOAD, Pace::FULL)?.requests))?;
    let (of_lives, ()) = during(&agent, || come_and_go(watched))?;
    drop(stats);
    agent.stop();

    let mut unwatched_rows = Vec::new();
    let mut watched_rows = Vec::new();
    let mut server_end_ns = 0.0;
    for hook in PER_REQUEST {
        let Some(ns) = of_unwatched.get(hook).and_then(mean_ns) else {
            continue;
        };
        unwatched_rows.push(hook_row(hook, ns));
        let all = of_watched.get(hook).copied().unwrap_or_default();
        if let Some(ns) = server_end(all, watched_requests, ns) {
            server_end_ns += ns;
            watched_rows.push(hook_row(hook, ns));
        }
    }
    let life_rows = of_lives
        .iter()
        .filter(|(hook, _)| !PER_REQUEST.contains(&hook.as_str()))
        .filter_map(|(hook, runs)| {
            let row = hook_row(hook, mean_ns(runs)?);
            Some(row.detail(format!("{} runs", runs.count)))
        });
    let net_ns = server_end_ns - empty_ns * watched_rows.len() as f64;
    let per_request = |by_hook: &ByHook, requests: u64| {
        let ns: u64 = by_hook.values().map(|runs| runs.ns).sum();
        format!("{:.0} ns", ns as f64 / requests as f64)
    };
    let title = |what: &str| format!("{what}, {}", placement.name());
    Ok(vec![
        Section {
            title: title(
                "Kernel time per hook run, watched socket (a server's end; the client's is taken off)",
            ),
            rows: watched_rows,
        },
        Section {
            title: title("Kernel time per hook run, any other socket"),
            rows: unwatched_rows,
        },
        Section {
            title: title("Kernel time per hook run, connections and processes that come and go"),
            rows: life_rows.collect(),
        },
        Section {
            title: title("Kernel time per HTTP request, all hooks"),
            rows: vec![
                Row::new(
                    "watched, the server's end",
                    format!("{server_end_ns:.0} ns"),
                )
                .at_most(server_end_ns, REQUEST_TARGET_NS, "ns")
                .detail("what a client elsewhere causes"),
                Row::new(
                    "the same, less what the statistics add",
                    format!("{net_ns:.0} ns"),
                ),
                Row::new(
                    "watched, both ends",
                    per_request(&of_watched, watched_requests),
                )
                .detail("the client is on this machine too"),
                Row::new(
                    "not watched, both ends",
                    per_request(&of_unwatched, unwatched_requests),
                ),
                Row::new("an empty program", format!("{empty_ns:.0} ns"))
                    .detail("what the statistics add to every run above"),
            ],
        },
    ])
}

/// Returns the runs of each hook while `act` ran.
fn during<T>(agent: &Agent, act: impl FnOnce() -> Result<T>) -> Result<(ByHook, T)> {
    let before = bpf_stats::by_tracepoint(agent.pid());
    let outcome = act()?;
    let mut after = bpf_stats::by_tracepoint(agent.pid());
    for (hook, runs) in &mut after {
        *runs = *runs - before.get(hook).copied().unwrap_or_default();
    }
    Ok((after, outcome))
}

/// Returns the mean time of the runs at the server's end, one per request. The other runs found an unwatched socket.
fn server_end(all: Runs, requests: u64, unwatched_ns: f64) -> Option<f64> {
    let others = all.count.saturating_sub(requests);
    let ns = all.ns as f64 - others as f64 * unwatched_ns;
    (requests > 0 && all.count >= requests).then(|| ns / requests as f64)
}

fn mean_ns(runs: &Runs) -> Option<f64> {
    (runs.count > 0).then(|| runs.ns as f64 / runs.count as f64)
}

fn hook_row(hook: &str, ns: f64) -> Row {
    Row::new(hook, format!("{ns:.0} ns")).at_most(ns, HOOK_TARGET_NS, "ns")
}

/// Opens connections for one request each, and starts processes that end at once.
fn come_and_go(server: &Server) -> Result<()> {
    let bytes = request("POST", "/predictions/echo", &["Connection: close"], b"x");
    for _ in 0..SHORT_CONNECTIONS {
        Connection::open_tcp(server.port())?.exchange(&bytes)?;
    }
    for _ in 0..SHORT_PROCESSES {
        Command::new("true").status().context("start `true`")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_end_is_subtracted_at_its_own_cost() {
        let all = Runs {
            count: 250,
            ns: 100 * 400 + 150 * 40,
        };
        assert_eq!(server_end(all, 100, 40.0), Some(400.0));
        assert_eq!(server_end(Runs { count: 9, ns: 9 }, 100, 40.0), None);
    }
}
