//! Reads the agent's own process from procfs, at each scrape.
//!
//! The endpoint publishes these values before it encodes.
//! Does not depend on: the exposition.

use std::fs;

use procfs::process::{LimitValue, Process};
use rustix::time::{ClockId, clock_gettime};

use crate::metrics::{Metrics, Value, families, family::Family};

/// Reads the values of this process, and keeps those that never change.
#[derive(Debug)]
pub struct ProcessReader {
    /// Start, seconds since the Unix epoch; `None` if procfs cannot be read.
    start_s: Option<f64>,
}

impl ProcessReader {
    /// Creates a reader for this process.
    pub fn new() -> Self {
        Self { start_s: start_s() }
    }

    /// Sets the values of this process; leaves the last ones if procfs cannot be read.
    pub fn publish(&self, metrics: &Metrics) {
        for (family, value) in self.read().into_iter().flatten() {
            match value {
                Some(value) => metrics.set(family, &[], value),
                None => metrics.unset(family, &[]),
            }
        }
    }

    /// Reads each family's value, `None` if this process has no such value.
    fn read(&self) -> Option<[(&'static Family, Option<Value>); 7]> {
        let myself = Process::myself().ok()?;
        let stat = myself.stat().ok()?;
        let max_fds = match myself.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(Value::Integer(limit)),
            LimitValue::Unlimited => None,
        };
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_s = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let resident_bytes = stat.rss * procfs::page_size();
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let threads = u64::try_from(stat.num_threads).ok()?;
        Some([
            (&families::PROCESS_CPU, Some(cpu_s.into())),
            (&families::PROCESS_RESIDENT, Some(resident_bytes.into())),
            (&families::PROCESS_VIRTUAL, Some(stat.vsize.into())),
            (&families::PROCESS_OPEN_FDS, Some(open_fds.into())),
            (&families::PROCESS_MAX_FDS, max_fds),
            (&families::PROCESS_START, Some(self.start_s?.into())),
            (&families::PROCESS_THREADS, Some(threads.into())),
        ])
    }
}

impl Default for ProcessReader {
    fn default() -> Self {
        Self::new()
    }
}

fn start_s() -> Option<f64> {
    let stat = Process::myself().ok()?.stat().ok()?;
    let boot_s = procfs::boot_time_secs().ok()?;
    Some(boot_s as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_running_process_has_plausible_values() {
        let reader = ProcessReader::new();
        let held = fs::File::open("/proc/self/stat").unwrap();
        let values = reader.read().unwrap();
        drop(held);
        let now_s = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let value = |family: &Family| {
            let found = values.iter().find(|(other, _)| other.name == family.name);
            found.unwrap().1.unwrap().as_f64()
        };
        let cpu_s = value(&families::PROCESS_CPU);
        assert!(cpu_s > 0.0 && cpu_s < 3600.0, "{values:?}");
        let resident_bytes = value(&families::PROCESS_RESIDENT);
        assert!(resident_bytes > f64::from(1 << 20), "{values:?}");
        assert!(
            value(&families::PROCESS_VIRTUAL) > resident_bytes,
            "{values:?}"
        );
        assert!(value(&families::PROCESS_OPEN_FDS) >= 4.0, "{values:?}");
        assert!(value(&families::PROCESS_THREADS) >= 1.0, "{values:?}");
        let age_s = now_s - value(&families::PROCESS_START);
        assert!((0.0..3600.0).contains(&age_s), "{values:?}");
    }
}
