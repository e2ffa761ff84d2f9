//! Reads the clock that servers, clients and the agent's log share, and waits with a deadline.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Returns CLOCK_MONOTONIC in nanoseconds: the clock of every `_ns` in the agent's request log.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("CLOCK_MONOTONIC is never negative");
    let nanos = u64::try_from(now.tv_nsec).expect("CLOCK_MONOTONIC is never negative");
    seconds * 1_000_000_000 + nanos
}

/// Calls `probe` until it returns a value, for at most `limit`; panics with `what` after that.
pub fn wait_for<T>(what: &str, limit: Duration, probe: impl FnMut() -> Option<T>) -> T {
    wait_within(limit, probe).unwrap_or_else(|| panic!("{what}: not within {limit:?}"))
}

/// Calls `probe` until it returns a value, for at most `limit`.
pub fn wait_within<T>(limit: Duration, probe: impl FnMut() -> Option<T>) -> Option<T> {
    wait_every(Duration::from_millis(5), limit, probe)
}

/// As [`wait_within`], with `pause` between two calls, for a `probe` that uses CPU time.
pub fn wait_every<T>(
    pause: Duration,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if start.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(pause);
    }
}
