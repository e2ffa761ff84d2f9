//! Counts the instructions that a request takes with and without the agent: in a machine whose clock advances with every
//! instruction, time is their number.
//!
//! One client sends one request after the other, so that the machine is never idle. The count is of the whole machine:
//! server, client, kernel, programs and agent. `cargo xtask kernel-test` compares it with the expected one.

use std::{
    fmt, fs, thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Connection, request},
    clock::{monotonic_ns, wait_within},
    server::Place,
};

/// Requests before those that are counted, so that caches and maps are filled.
const WARM_UP: usize = 100;
/// Requests of a round: many, because the agent handles records of a hundred requests at once.
const REQUESTS: u64 = 1_000;
/// Rounds, of which the median counts: work of others falls into some of them.
const ROUNDS: usize = 3;
/// The machine counts as idle if it was for this share of a pause.
const IDLE_SHARE: f64 = 0.98;
const IDLE_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for an idle machine.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

/// Instructions of a request, on average of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instructions {
    /// Of the whole machine.
    all: u64,
    /// Of the agent's threads, in user space and in the kernel.
    agent: u64,
}

/// What a request costs in an attach mode.
pub(super) struct Cost {
    pub(super) mode: &'static str,
    /// Without the agent.
    pub(super) without: Instructions,
    /// With it.
    pub(super) with: Instructions,
}

impl Instructions {
    /// Counts those of a request to `place`, beside the agent's process if there is one; the clock advances by
    /// `instruction_ns` with each.
    pub(super) fn of_request(place: &Place, instruction_ns: u64, agent: Option<u32>) -> Self {
        await_idle();
        let mut client = Connection::open(place).expect("the server listens");
        let bytes = request("POST", "/predictions/counted", &[], &[b'x'; 64]);
        let mut ask = || {
            client.send(&bytes).expect("the server reads");
            client.receive(false).expect("the server answers");
        };
        (0..WARM_UP).for_each(|_| ask());
        let mut rounds = [(); ROUNDS].map(|()| {
            let (start_ns, agent_ns) = (monotonic_ns(), agent.map_or(0, cpu_ns));
            (0..REQUESTS).for_each(|_| ask());
            let (end_ns, agent_end_ns) = (monotonic_ns(), agent.map_or(0, cpu_ns));
            Self {
                all: (end_ns - start_ns) / instruction_ns / REQUESTS,
                agent: (agent_end_ns - agent_ns) / instruction_ns / REQUESTS,
            }
        });
        rounds.sort_unstable_by_key(|round| round.all.saturating_sub(round.agent));
        rounds[ROUNDS / 2]
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode,
            without: Instructions { all: without, .. },
            with,
        } = self;
        let kernel = with.all.saturating_sub(without + with.agent);
        write!(f, "{mode} {without} {kernel} {}", with.agent)
    }
}

/// Waits until the machine has nothing to do: after its start, and when other servers have started.
fn await_idle() {
    // One that is never idle costs more.
    let _ = wait_within(IDLE_LIMIT, || {
        let (idle_s, start) = (idle_s(), Instant::now());
        thread::sleep(IDLE_PAUSE);
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let all_s = start.elapsed().as_secs_f64() * processors as f64;
        ((self::idle_s() - idle_s) / all_s > IDLE_SHARE).then_some(())
    });
}

/// Returns how long the processors were idle, all together.
fn idle_s() -> f64 {
    let text = fs::read_to_string("/proc/uptime").expect("the kernel keeps its uptime");
    let idle = text
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok());
    idle.expect("the second number is the idle time")
}

/// Returns the CPU time of a process's threads.
fn cpu_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs");
    let of_thread = |thread: fs::DirEntry| {
        let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        times.split(' ').next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(of_thread).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_of_the_agent_or_of_the_kernel() {
        let cost = Cost {
            mode: "fentry",
            without: Instructions { all: 100, agent: 0 },
            with: Instructions {
                all: 150,
                agent: 20,
            },
        };
        assert_eq!(cost.to_string(), "fentry 100 30 20");
    }
}
