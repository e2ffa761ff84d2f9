//! The agent's own process, read from procfs when a scrape asks.

use std::fs;

use procfs::process::{LimitValue, Process};
use rustix::time::{ClockId, clock_gettime};

use crate::metrics::ProcessSample;

/// Reads the figures of this process. Holds what does not change while it lives.
#[derive(Debug)]
pub struct ProcessReader {
    /// Seconds since the Unix epoch; `None` where procfs does not tell.
    start_s: Option<f64>,
}

impl ProcessReader {
    /// A reader for this process.
    pub fn new() -> Self {
        Self { start_s: start_s() }
    }

    /// The figures now; `None` where procfs is not to be read.
    pub fn read(&self) -> Option<ProcessSample> {
        let myself = Process::myself().ok()?;
        let stat = myself.stat().ok()?;
        let max_fds = match myself.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        };
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Some(ProcessSample {
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            max_fds,
            start_s: self.start_s?,
            threads: u64::try_from(stat.num_threads).ok()?,
        })
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
    fn the_running_process_has_plausible_figures() {
        let reader = ProcessReader::new();
        let held = fs::File::open("/proc/self/stat").unwrap();
        let sample = reader.read().unwrap();
        drop(held);
        let now_s = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!(sample.cpu_s > 0.0 && sample.cpu_s < 3600.0, "{sample:?}");
        assert!(sample.resident_bytes > 1 << 20, "{sample:?}");
        assert!(sample.virtual_bytes > sample.resident_bytes, "{sample:?}");
        assert!(sample.open_fds >= 4, "{sample:?}");
        assert!(sample.threads >= 1, "{sample:?}");
        assert!(
            (0.0..3600.0).contains(&(now_s - sample.start_s)),
            "{sample:?}"
        );
    }
}
