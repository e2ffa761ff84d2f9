//! Measures how much CPU time the hypervisor took from this machine: meanwhile every process is late, whoever times it.

use std::fs;

/// Share of the CPU time above which a round of timing proves nothing about the agent.
pub const DISTURBING_SHARE: f64 = 0.05;

/// CPU time since the boot, in clock ticks.
#[derive(Debug, Clone, Copy)]
pub struct CpuTime {
    total: u64,
    stolen: u64,
}

impl CpuTime {
    /// Reads the time so far, of all CPUs.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").expect("procfs is mounted");
        Self::parse(&text)
    }

    /// Reads the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal (Linux 2.6.11),
    /// guests.
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|ticks| ticks.parse().ok())
            .collect();
        Self {
            // User and nice include the time of guests.
            total: ticks.iter().take(8).sum(),
            stolen: ticks.get(7).copied().unwrap_or(0),
        }
    }

    /// Returns the share of the time since then that was stolen, 0 to 1.
    pub fn stolen_share(self) -> f64 {
        self.share_until(Self::now())
    }

    fn share_until(self, later: Self) -> f64 {
        let total = later.total.saturating_sub(self.total);
        let stolen = later.stolen.saturating_sub(self.stolen);
        stolen as f64 / total.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_share_is_relative_to_all_time() {
        let before = CpuTime::parse("cpu  10 0 10 70 5 0 5 0 3 0\ncpu0 1 1 1\n");
        let after = CpuTime::parse("cpu  20 0 20 120 5 0 5 30 9 0\n");
        assert_eq!(before.share_until(after), 0.3);
        assert_eq!(before.share_until(before), 0.0);
    }

    #[test]
    fn cpu_time_of_this_machine_is_read() {
        let start = CpuTime::now();
        assert!(start.total > 0);
        assert!((0.0..=1.0).contains(&start.stolen_share()));
    }
}
