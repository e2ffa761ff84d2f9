//! Compares the time that a serving thread waited for a CPU with the kernel's own account of that thread.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    check_times::pair,
    client::{Connection, request},
    require_kernel::require_kernel,
    server::{Server, stamps::Stamp},
    stats::Spread,
};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
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

/// Sends requests one by one to a server that shares a CPU with `hogs` threads, and checks the starved time of each.
fn measure(hogs: usize) -> Vec<(Stamp, Logged)> {
    let mut server = Server::start(&[]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let cpu = one_cpu();
    pin(server.pid(), &cpu);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..hogs {
            scope.spawn(|| {
                sched_setaffinity(None, &cpu).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut client = Connection::open(&server.place).unwrap();
        for _ in 0..COUNT {
            let bytes = request("POST", TARGET, &[], b"{}");
            assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
        }
        stop.store(true, Ordering::Relaxed);
    });
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

/// Restricts each thread of a process, and those that they start, to `cpu`.
fn pin(pid: u32, cpu: &CpuSet) {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let name = thread.unwrap().file_name();
        let tid = Pid::from_raw(name.to_str().unwrap().parse().unwrap());
        sched_setaffinity(tid, cpu).unwrap();
    }
}

/// One of the CPUs that this process may use.
fn one_cpu() -> CpuSet {
    let allowed = sched_getaffinity(None).unwrap();
    let mut cpu = CpuSet::new();
    cpu.set(
        (0..CpuSet::MAX_CPU)
            .find(|cpu| allowed.is_set(*cpu))
            .unwrap(),
    );
    cpu
}
