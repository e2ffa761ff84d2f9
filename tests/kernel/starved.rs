//! Compares the time that a serving thread waited for a CPU with the kernel's own account of that thread.

use std::{path::Path, thread, time::Duration};

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    check_times::pair,
    client::{Connection, request},
    clock::wait_for,
    require_kernel::require_kernel,
    server::{Server, stamps::Stamp},
    server_cases::hosts::{self, Host, Kind},
    slowness::{Hogs, Quota, one_cpu, pin},
    stats::Spread,
};

const COUNT: usize = 60;
/// The work is longer than a CPU slice, so that hogs interrupt it.
const TARGET: &str = "/predictions/starved?burn_us=15000";

#[test]
fn starved_time_is_what_schedstat_counts_of_the_serving_thread() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let quiet = measure(0);
    let busy = measure(2);
    let starved = |pairs: &[(Stamp, Logged)]| -> f64 {
        pairs.iter().filter_map(|(_, row)| row.starved_ms).sum()
    };
    println!(
        "starved in all, ms: {} quiet, {} with hogs",
        starved(&quiet),
        starved(&busy)
    );
    assert!(
        starved(&busy) > 2.0 * starved(&quiet) + 20.0,
        "the hogs took no CPU"
    );
    // What is left of the handler's time is the work, whoever else runs.
    let [quiet, busy] = [quiet, busy].map(|pairs| {
        let worked_ns = |(_, row): &(Stamp, Logged)| {
            let starved_ns = row.starved_ms.unwrap() * 1e6;
            row.handler_ns().unwrap() - starved_ns as u64
        };
        Spread::of(pairs.iter().map(worked_ns).collect()).unwrap()
    });
    println!("handler minus starved, ns: quiet {quiet:?}, with hogs {busy:?}");
    assert!(busy.p50 < quiet.p50 + quiet.p50 / 5);
}

/// What takes CPU time from a server: threads that spin on its CPU, and its limit in percent of a CPU.
const CONTENTION: [(usize, Option<u32>); 5] =
    [(0, None), (1, None), (2, None), (4, None), (0, Some(30))];
/// Runs of each, of which the one with the least p99 counts: other programs run on the same machine.
const RUNS: usize = 3;

#[test]
#[ignore = "takes four minutes: run `cargo xtask test uvicorn_under -- -- --ignored --nocapture`"]
fn uvicorn_under_hogs_and_a_quota_works_as_long_as_without() {
    let (Some(_kernel), Some(installed)) = (require_kernel(), hosts::installed()) else {
        return;
    };
    println!(
        "| Contention | handler p50 / p99, ms | starved p50 / p99, ms | **handler - starved p50 / p99, ms** |"
    );
    println!("|---|---|---|---|");
    let mut worked = Vec::new();
    for (hogs, limit) in CONTENTION {
        let runs = (0..RUNS).map(|_| measure_uvicorn(&installed, hogs, limit));
        let best = runs.min_by_key(|run| run[2].p99).unwrap();
        let ms = |spread: &Spread| {
            format!(
                "{:.2} / {:.2}",
                spread.p50 as f64 / 1e6,
                spread.p99 as f64 / 1e6
            )
        };
        let name = match limit {
            Some(percent) => format!("limit of {percent} %"),
            None => format!("{hogs} hogs"),
        };
        println!(
            "| {name} | {} | {} | **{}** |",
            ms(&best[0]),
            ms(&best[1]),
            ms(&best[2])
        );
        worked.push((name, best[2].p99));
    }
    let quiet = worked[0].1 as f64;
    for (name, p99) in worked {
        let ratio = p99 as f64 / quiet;
        assert!(
            (0.9..=1.1).contains(&ratio),
            "{name}: {ratio} of the quiet run"
        );
    }
}

/// Returns handler, starved, and handler minus starved time of a uvicorn's requests, ns.
fn measure_uvicorn(installed: &Path, hogs: usize, limit: Option<u32>) -> [Spread; 3] {
    const REQUESTS: usize = 400;
    let uvicorn = Host::start(Kind::UvicornAsyncio, installed);
    let agent = Agent::start(&["--watch-port", &uvicorn.port.to_string()]);
    let mut client = Connection::open_tcp(uvicorn.port).unwrap();
    let pid = ask_uvicorn(&mut client, &agent, 1, "/predictions/first");
    let quota = limit.map(Quota::of_percent);
    if let Some(quota) = &quota {
        std::fs::write(quota.folder().join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let cpu = one_cpu();
    pin(pid, &cpu);
    let hogs = Hogs::start(hogs, &cpu);
    ask_uvicorn(&mut client, &agent, REQUESTS, "/predictions/u?burn_us=2650");
    drop(hogs);
    let rows = agent.rows(REQUESTS, |row| row.model == "u");
    agent.stop();
    drop(uvicorn);
    let times = rows.iter().map(|row| {
        let starved_ns = (row.starved_ms.unwrap() * 1e6) as u64;
        let handler_ns = row.handler_ns().unwrap();
        [
            handler_ns,
            starved_ns,
            handler_ns.saturating_sub(starved_ns),
        ]
    });
    let times: Vec<[u64; 3]> = times.collect();
    [0, 1, 2].map(|at| Spread::of(times.iter().map(|times| times[at]).collect()).unwrap())
}

#[test]
#[ignore = "other tests take its CPUs: run `cargo xtask test pool_of_threads_waits -- -- --ignored --nocapture`"]
fn what_a_pool_of_threads_waits_is_in_the_total_of_its_server() {
    let (Some(_kernel), Some(installed)) = (require_kernel(), hosts::installed()) else {
        return;
    };
    let uvicorn = Host::start(Kind::UvicornAsyncio, &installed);
    let agent = Agent::start(&["--watch-port", &uvicorn.port.to_string()]);
    let mut client = Connection::open_tcp(uvicorn.port).unwrap();
    let pid = ask_uvicorn(&mut client, &agent, 1, POOL);
    let cpu = one_cpu();
    pin(pid, &cpu);
    agent.wait_sum(TOTAL, &[], 0.0);
    let before = settled(&agent, pid);
    let hogs = Hogs::start(2, &cpu);
    ask_uvicorn(&mut client, &agent, 60, POOL);
    drop(hogs);
    let after = settled(&agent, pid);
    let (by_agent, by_kernel) = (after.0 - before.0, after.1 - before.1);
    println!("starved by the agent {by_agent} s, by schedstat {by_kernel} s");
    assert!(by_kernel > 0.5, "the hogs took no CPU");
    let ratio = by_agent / by_kernel;
    assert!(
        (0.95..=1.05).contains(&ratio),
        "{by_agent} s of {by_kernel} s"
    );
}

/// Its handlers run in a pool of threads.
const POOL: &str = "/predictions/pool?burn_us=15000&pool=1";
/// Family of the total of a server.
const TOTAL: &str = "inferprobe_server_starved_seconds_total";

/// Returns the total of the agent and that of the kernel, s, once the agent has read an idle server.
fn settled(agent: &Agent, pid: u32) -> (f64, f64) {
    wait_for(
        "the same total in two readings",
        Duration::from_secs(20),
        || {
            let total = agent.metrics().sum(TOTAL, &[]);
            thread::sleep(Duration::from_millis(2_200));
            let same = (agent.metrics().sum(TOTAL, &[]) - total).abs() < 0.002;
            same.then(|| (total, schedstat_s(pid)))
        },
    )
}

/// Sums the time that the threads of a process waited for a CPU, s.
fn schedstat_s(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let waits = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        text.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    });
    waits.sum::<u64>() as f64 / 1e9
}

/// Sends requests to a uvicorn, each as long as the last was answered; returns its process.
fn ask_uvicorn(client: &mut Connection, agent: &Agent, count: usize, target: &str) -> u32 {
    for _ in 0..count {
        let bytes = request("POST", target, &[], b"{}");
        assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
    }
    agent.rows(1, |row| row.purpose == "inference")[0].pid
}

/// Sends requests one by one to a server that shares a CPU with `hogs` threads, and checks the starved time of each.
fn measure(hogs: usize) -> Vec<(Stamp, Logged)> {
    let mut server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let cpu = one_cpu();
    pin(server.pid(), &cpu);
    let hogs = Hogs::start(hogs, &cpu);
    let mut client = Connection::open(&server.place).unwrap();
    for _ in 0..COUNT {
        let bytes = request("POST", TARGET, &[], b"{}");
        assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
    }
    drop(hogs);
    let rows = agent.rows(COUNT, |row| row.model == "starved");
    let pairs = pair(&server.stamps(COUNT), &rows);
    for (stamp, row) in &pairs {
        // The server takes its two readings between the agent's.
        let shortest_ms = stamp.starved_ns.unwrap() as f64 / 1e6;
        let longest_ms = row.handler_ns().unwrap() as f64 / 1e6;
        let starved_ms = row.starved_ms.unwrap();
        assert!(
            (shortest_ms..=longest_ms).contains(&starved_ms),
            "{shortest_ms} to {longest_ms} ms: {row:?}"
        );
    }
    let sum = |of: fn(&(Stamp, Logged)) -> f64| pairs.iter().map(of).sum::<f64>();
    let by_agent = sum(|(_, row)| row.starved_ms.unwrap());
    let by_server = sum(|(stamp, _)| stamp.starved_ns.unwrap() as f64 / 1e6);
    // Between the readings of agent and server a few CPU slices may pass, of a few milliseconds each.
    assert!(
        by_agent <= by_server * 1.05 + 20.0,
        "{by_agent} ms, not {by_server} ms"
    );
    agent.stop();
    pairs
}
