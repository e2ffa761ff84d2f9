//! Decides on which CPUs the parties of a measurement run, which moves every figure by hundreds of nanoseconds.
//!
//! Does not depend on: what is measured.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs of a server, and of its client and the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// All on one: the figures vary least, because no data travels.
    Together,
    /// The server on one, its client and the agent on another.
    Apart,
}

impl Placement {
    pub(crate) const ALL: [Self; 2] = [Self::Together, Self::Apart];

    /// Says where the parties are.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Together => "all on one CPU",
            Self::Apart => "the server on another CPU",
        }
    }

    /// Runs `start` where servers run. What it starts stays there.
    pub(crate) fn of_server<T>(self, start: impl FnOnce() -> T) -> io::Result<T> {
        on_cpu(0, start)
    }

    /// Runs `act` where clients and the agent run. What it starts stays there.
    pub(crate) fn of_others<T>(self, act: impl FnOnce() -> T) -> io::Result<T> {
        on_cpu(usize::from(self == Self::Apart), act)
    }
}

/// Runs `act` with the present thread on one of its CPUs, by number; on the last if there are fewer.
fn on_cpu<T>(number: usize, act: impl FnOnce() -> T) -> io::Result<T> {
    let before = sched_getaffinity(None)?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu));
    let last = cpus.clone().next_back();
    let cpu = cpus.nth(number).or(last);
    let mut only = CpuSet::new();
    only.set(cpu.ok_or_else(|| io::Error::other("a thread has a CPU"))?);
    sched_setaffinity(None, &only)?;
    let outcome = act();
    sched_setaffinity(None, &before)?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_returns_to_its_cpus() {
        let before = sched_getaffinity(None).unwrap();
        let count = || sched_getaffinity(None).unwrap().count();
        let meanwhile = Placement::Apart.of_others(count).unwrap();
        assert_eq!((meanwhile, count()), (1, before.count()));
    }
}
