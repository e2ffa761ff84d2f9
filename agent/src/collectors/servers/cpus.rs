//! Computes which share of the busy time of its CPUs a server took itself, from reading to reading.
//!
//! The kernel counts both in ticks: of a process with the threads that have ended (`/proc/PID/stat`), and of each CPU
//! (`/proc/stat`). Does not depend on: servers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
};

use procfs::process::{Process, Stat};

use crate::collectors::cpu_times::CpuTimes;

/// Busy ticks of each CPU since boot, by its number; stolen ones are among them, because another machine took them.
type Busy = BTreeMap<u32, u64>;

/// Ticks of all CPUs, and of processes.
#[derive(Debug, Default)]
pub(super) struct Cpus {
    /// At the last reading, and since the one before.
    busy: Busy,
    grown: Busy,
    /// Of each process at the last reading.
    ran: HashMap<u32, u64>,
}

/// What the processes of one server took since the reading before.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    ticks: u64,
    /// The CPUs that they may use.
    cpus: BTreeSet<u32>,
    /// Whether the ticks of one of them are unknown.
    is_partial: bool,
}

impl Cpus {
    /// Reads all CPUs, and forgets the processes for which `is_watched` is false.
    pub(super) fn read(&mut self, is_watched: impl Fn(u32) -> bool) {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let now = parse(&text);
        let before = std::mem::replace(&mut self.busy, now);
        let grown = self.busy.iter().filter_map(|(cpu, now)| {
            let before = before.get(cpu)?;
            Some((*cpu, now.saturating_sub(*before)))
        });
        self.grown = grown.collect();
        self.ran.retain(|pid, _| is_watched(*pid));
    }

    /// Adds a process to what its server took. `is_new`: it was started after the readings began.
    pub(super) fn add(&mut self, process: &Process, stat: &Stat, is_new: bool, taken: &mut Taken) {
        let ran = stat.utime + stat.stime;
        match self.ran.insert(stat.pid.cast_unsigned(), ran) {
            Some(before) => taken.ticks += ran.saturating_sub(before),
            None if is_new => taken.ticks += ran,
            None => taken.is_partial = true,
        }
        let allowed = process.status().ok();
        match allowed.and_then(|status| status.cpus_allowed_list) {
            Some(ranges) => {
                let cpus = ranges.into_iter().flat_map(|(first, last)| first..=last);
                taken.cpus.extend(cpus);
            }
            None => taken.is_partial = true,
        }
    }

    /// Returns the share of the busy time of its CPUs that a server took since the reading before, 0 to 1; `None` if it is
    /// unknown.
    pub(super) fn share_of(&self, taken: &Taken) -> Option<f64> {
        let grown = taken.cpus.iter().filter_map(|cpu| self.grown.get(cpu));
        let busy: u64 = grown.sum();
        (busy > 0 && !taken.is_partial).then(|| (taken.ticks as f64 / busy as f64).min(1.0))
    }
}

/// Parses the lines of the single CPUs.
fn parse(text: &str) -> Busy {
    let lines = text.lines().filter_map(|line| {
        let (cpu, fields) = line.strip_prefix("cpu")?.split_once(' ')?;
        Some((cpu.parse().ok()?, CpuTimes::parse(fields)?.busy_ticks))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "cpu  9 9 9 9 9 9 9 9 0 0\n\
                        cpu0 10 1 5 900 7 2 3 4 0 0\n\
                        cpu2 20 0 0 900 0 0 0 0 0 0\n\
                        intr 123 4\ncpu3 1 2\n";

    #[test]
    fn busy_ticks_are_those_that_are_not_idle() {
        assert_eq!(parse(TEXT), Busy::from([(0, 25), (2, 20)]));
        assert_eq!(parse(""), Busy::new());
    }

    #[test]
    fn share_is_of_the_cpus_that_a_server_may_use() {
        let cpus = Cpus {
            grown: Busy::from([(0, 100), (2, 60)]),
            ..Cpus::default()
        };
        let taken = Taken {
            ticks: 80,
            cpus: BTreeSet::from([0, 1]),
            is_partial: false,
        };
        assert_eq!(cpus.share_of(&taken), Some(0.8));
        let both = Taken {
            cpus: BTreeSet::from([0, 2]),
            ..taken
        };
        assert_eq!(cpus.share_of(&both), Some(0.5));
        let more = Taken {
            ticks: 101,
            ..taken.clone()
        };
        assert_eq!(cpus.share_of(&more), Some(1.0));
        let idle = Taken {
            cpus: BTreeSet::from([1]),
            ..taken
        };
        let partial = Taken {
            is_partial: true,
            ..taken
        };
        assert_eq!(
            (cpus.share_of(&idle), cpus.share_of(&partial)),
            (None, None)
        );
    }

    #[test]
    fn a_busy_process_takes_most_of_what_it_may_use_alone() {
        let own = Process::myself().unwrap();
        let mut cpus = Cpus::default();
        cpus.read(|_| true);
        let mut first = Taken::default();
        cpus.add(&own, &own.stat().unwrap(), false, &mut first);
        assert!(first.is_partial && !first.cpus.is_empty());
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 100 {
            std::hint::black_box(start);
        }
        cpus.read(|_| true);
        let mut taken = Taken::default();
        cpus.add(&own, &own.stat().unwrap(), false, &mut taken);
        assert!(cpus.share_of(&taken).is_some_and(|share| share > 0.0));
        cpus.read(|_| false);
        assert!(cpus.ran.is_empty());
    }
}
