//! Parses what `/proc/stat` says of a CPU, or of all together.
//!
//! Does not depend on: which CPU it is.

/// Time that CPUs have spent, in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTimes {
    /// Not idle; stolen ticks are among them.
    pub(super) busy_ticks: u64,
    pub(super) total_ticks: u64,
    /// Taken by the hypervisor.
    pub(super) steal_ticks: u64,
}

impl CpuTimes {
    /// Parses the fields behind a name: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest nice.
    ///
    /// The sum excludes guest time: `account_guest_time` (kernel/sched/cputime.c, 2.6.24 and later) adds it to user
    /// or nice time as well.
    pub(super) fn parse(fields: &str) -> Option<Self> {
        let mut ticks = [0; 8];
        let mut fields = fields.split_ascii_whitespace();
        for (index, slot) in ticks.iter_mut().enumerate() {
            match fields.next() {
                Some(field) => *slot = field.parse::<u64>().ok()?,
                // Every kernel has the first four.
                None if index < 4 => return None,
                None => break,
            }
        }
        let total_ticks = ticks
            .iter()
            .fold(0, |sum: u64, field| sum.saturating_add(*field));
        let [_, _, _, idle, iowait, _, _, steal_ticks] = ticks;
        Some(Self {
            busy_ticks: total_ticks.saturating_sub(idle).saturating_sub(iowait),
            total_ticks,
            steal_ticks,
        })
    }
}
