//! Reads CPU, memory and disk of the host, by TorchServe's definitions.
//!
//! One thread reads CPU and memory from procfs, another the disk: `statvfs` hangs on a dead network mount.
//! Does not depend on: the exposition.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tracing::{info, warn};

use crate::{
    collectors::{
        cpu_times::CpuTimes,
        servers::pressure::{self, Pressure, RESOURCES},
    },
    metrics::{DiskSample, MemorySample, Metrics, Reading, families},
};

/// Time between the first two readings of the CPU times, so that the first value appears soon.
const FIRST_CPU_INTERVAL: Duration = Duration::from_millis(200);
/// Refresh intervals after which a value that was not read again expires.
const STALE_AFTER: u32 = 3;
/// The host's root folder for a process that sees the host's processes, and may inspect them: in a container `/` is
/// another one.
const HOST_ROOT: &str = "/proc/1/root/";
const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

/// Reads the host every `refresh`, for as long as `metrics` is in use elsewhere.
pub fn spawn(metrics: &Arc<Metrics>, refresh: Duration, disk_mount: PathBuf) -> io::Result<()> {
    for collector in ["cpu", "memory", "disk"] {
        metrics.collector_up(collector, false);
    }
    let for_procfs = Arc::downgrade(metrics);
    let for_disk = Arc::downgrade(metrics);
    thread::Builder::new()
        .name("host".into())
        .spawn(move || watch_procfs(&for_procfs, refresh))?;
    thread::Builder::new()
        .name("disk".into())
        .spawn(move || watch_disk(&for_disk, refresh, &disk_mount))?;
    Ok(())
}

fn watch_procfs(metrics: &Weak<Metrics>, refresh: Duration) {
    let mut cpu_source = Source::new("cpu");
    let mut memory_source = Source::new("memory");
    let mut before = cpu_source.check(read_cpu());
    thread::sleep(FIRST_CPU_INTERVAL.min(refresh));
    while let Some(metrics) = metrics.upgrade() {
        let now = cpu_source.check(read_cpu());
        metrics.collector_up("cpu", now.is_some());
        let pair = before.zip(now);
        metrics.set_cpu_pct(pair.and_then(|(before, now)| cpu_pct(before, now)));
        if let Some(now) = now {
            let steal_s = now.steal_ticks as f64 / procfs::ticks_per_second() as f64;
            metrics.set(&families::HOST_STEAL, &[], steal_s);
        }
        before = now;
        let valid_until = Instant::now() + refresh * STALE_AFTER;
        metrics.set_readings("pressure", read_pressure(), valid_until);
        let memory = memory_source.check(read_memory());
        metrics.collector_up("memory", memory.is_some());
        metrics.set_memory(memory);
        drop(metrics);
        thread::sleep(refresh);
    }
}

fn watch_disk(metrics: &Weak<Metrics>, refresh: Duration, mount: &Path) {
    let mut source = Source::new("disk");
    while let Some(metrics) = metrics.upgrade() {
        let disk = source.check(read_disk(mount));
        let valid_until = Instant::now() + refresh * STALE_AFTER;
        metrics.set_disk(disk, valid_until);
        match disk {
            Some(_) => metrics.collector_up_until("disk", valid_until),
            None => metrics.collector_up("disk", false),
        }
        drop(metrics);
        thread::sleep(refresh);
    }
}

/// A source that logs once when it stops working, and once when it works again.
struct Source {
    collector: &'static str,
    failing: bool,
}

impl Source {
    const fn new(collector: &'static str) -> Self {
        Self {
            collector,
            failing: false,
        }
    }

    fn check<T>(&mut self, outcome: Result<T>) -> Option<T> {
        let collector = self.collector;
        match outcome {
            Ok(value) => {
                if std::mem::replace(&mut self.failing, false) {
                    info!(collector, "collector works again");
                }
                Some(value)
            }
            Err(err) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        collector,
                        err = format!("{err:#}"),
                        "collector failed; its metrics are missing"
                    );
                }
                None
            }
        }
    }
}

fn read_cpu() -> Result<CpuTimes> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    parse_cpu(&text).context("read the cpu line of /proc/stat")
}

/// Reads the pressure of the host; empty if the kernel does not count it.
fn read_pressure() -> Vec<Reading> {
    let mut readings = Vec::new();
    for resource in RESOURCES {
        let pressure = pressure::read(&Path::new("/proc/pressure").join(resource));
        let kinds = pressure.into_iter().flat_map(Pressure::kinds);
        readings.extend(kinds.map(|(kind, seconds)| {
            Reading::new(&families::HOST_PRESSURE, &[resource, kind], seconds)
        }));
    }
    readings
}

fn read_memory() -> Result<MemorySample> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    parse_memory(&text).context("find the totals in /proc/meminfo")
}

fn read_disk(mount: &Path) -> Result<DiskSample> {
    let of_host = (mount == Path::new("/"))
        .then(|| rustix::fs::statvfs(HOST_ROOT).ok())
        .flatten();
    let stat = match of_host {
        Some(stat) => stat,
        None => rustix::fs::statvfs(mount)
            .with_context(|| format!("statvfs --disk-mount {}", mount.display()))?,
    };
    let blocks = Blocks {
        bytes: stat.f_frsize,
        total: stat.f_blocks,
        free: stat.f_bfree,
        available: stat.f_bavail,
    };
    Ok(disk_sample(blocks))
}

/// Parses the line of all CPUs of `/proc/stat`.
fn parse_cpu(text: &str) -> Option<CpuTimes> {
    let fields = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    CpuTimes::parse(fields)
}

/// Returns the busy share between two readings, percent with one decimal; `None` if no time has passed.
fn cpu_pct(before: CpuTimes, now: CpuTimes) -> Option<f64> {
    let total_ticks = now.total_ticks.checked_sub(before.total_ticks)?;
    // The kernel's iowait may fall; the busy time then seems to rise by more than the time that passed.
    let busy_ticks = now.busy_ticks.saturating_sub(before.busy_ticks);
    (total_ticks > 0).then(|| one_decimal_pct(busy_ticks.min(total_ticks), total_ticks))
}

/// Returns memory as psutil 5.9.8 counts it, which TorchServe 0.12.0 uses.
fn parse_memory(text: &str) -> Option<MemorySample> {
    let kib = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let total_kib = kib("MemTotal")?;
    let free_kib = kib("MemFree")?;
    // In a container, more may be reported as available than there is in total.
    let available_kib = match kib("MemAvailable")? {
        available_kib if available_kib > total_kib => free_kib,
        available_kib => available_kib,
    };
    let caches_kib = ["Cached", "SReclaimable", "Buffers"]
        .iter()
        .filter_map(|name| kib(name))
        .fold(0, u64::saturating_add);
    let taken_kib = total_kib.saturating_sub(free_kib);
    let used_kib = taken_kib.checked_sub(caches_kib).unwrap_or(taken_kib);
    Some(MemorySample {
        used_mib: kib_to_mib_f64(used_kib),
        available_mib: kib_to_mib_f64(available_kib),
        used_pct: one_decimal_pct(total_kib.saturating_sub(available_kib), total_kib),
    })
}

/// What `statvfs` reports of a file system.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    /// Size of a block, bytes.
    bytes: u64,
    total: u64,
    free: u64,
    available: u64,
}

fn disk_sample(blocks: Blocks) -> DiskSample {
    let used = blocks.total.saturating_sub(blocks.free);
    let to_gib = |count: u64| count as f64 * blocks.bytes as f64 / GIB;
    DiskSample {
        used_gib: to_gib(used),
        available_gib: to_gib(blocks.available),
        used_pct: one_decimal_pct(used, used.saturating_add(blocks.available)),
    }
}

fn kib_to_mib_f64(kib: u64) -> f64 {
    kib as f64 * 1024.0 / MIB
}

fn one_decimal_pct(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 / whole as f64 * 1000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Format, Selection};

    #[test]
    fn cpu_time_counts_guests_once_and_waiting_as_idle() {
        for (text, expected) in [
            (
                "cpu  100 20 30 400 50 6 7 8 90 10\ncpu0 1 2 3 4\n",
                Some((171, 621, 8)),
            ),
            ("intr 5\ncpu  1 2 3 4\n", Some((6, 10, 0))),
            ("cpu  1 2 3\n", None),
            ("cpu  1 2 3 x\n", None),
            ("cpu0 1 2 3 4\n", None),
            ("", None),
        ] {
            let parsed = parse_cpu(text);
            let parsed =
                parsed.map(|times| (times.busy_ticks, times.total_ticks, times.steal_ticks));
            assert_eq!(parsed, expected, "{text:?}");
        }
    }

    #[test]
    fn cpu_share_is_of_the_interval_and_within_0_to_100() {
        for (before, now, expected) in [
            ((100, 1000), (150, 1100), Some(50.0)),
            ((100, 1000), (101, 1300), Some(0.3)),
            ((100, 1000), (100, 1000), None),
            ((100, 1000), (90, 1100), Some(0.0)),
            ((100, 1000), (300, 1100), Some(100.0)),
            ((100, 1000), (10, 100), None),
        ] {
            let times = |(busy_ticks, total_ticks)| CpuTimes {
                busy_ticks,
                total_ticks,
                steal_ticks: 0,
            };
            let share = cpu_pct(times(before), times(now));
            assert_eq!(share, expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn memory_is_counted_as_psutil_does() {
        let text = "MemTotal:        8192 kB\nMemFree:         1024 kB\nMemAvailable:    4096 kB\n\
                    Buffers:          512 kB\nCached:          2048 kB\nSwapCached:       999 kB\n\
                    SReclaimable:     256 kB\nHugePages_Total:    0\n";
        let sample = parse_memory(text).unwrap();
        assert_eq!(sample.used_mib, 4.25);
        assert_eq!(sample.available_mib, 4.0);
        assert_eq!(sample.used_pct, 50.0);
    }

    #[test]
    fn memory_of_a_container_stays_within_the_total() {
        let text = "MemTotal: 1024 kB\nMemFree: 256 kB\nMemAvailable: 4096 kB\nCached: 2048 kB\n";
        let sample = parse_memory(text).unwrap();
        assert_eq!(sample.used_mib, 0.75);
        assert_eq!(sample.available_mib, 0.25);
        assert_eq!(sample.used_pct, 75.0);
    }

    #[test]
    fn memory_without_its_totals_is_refused() {
        for text in [
            "",
            "MemTotal: 1024 kB\nMemFree: 1 kB\n",
            "MemTotal: 1024\nMemFree: 1 kB\nMemAvailable: 1 kB\n",
            "MemTotal: x kB\nMemFree: 1 kB\nMemAvailable: 1 kB\n",
        ] {
            assert_eq!(parse_memory(text), None, "{text:?}");
        }
    }

    #[test]
    fn disk_share_excludes_blocks_reserved_for_root() {
        let blocks = Blocks {
            bytes: 1 << 30,
            total: 100,
            free: 60,
            available: 55,
        };
        let sample = disk_sample(blocks);
        assert_eq!(sample.used_gib, 40.0);
        assert_eq!(sample.available_gib, 55.0);
        assert_eq!(sample.used_pct, 42.1);
        let empty = Blocks {
            bytes: 4096,
            total: 0,
            free: 0,
            available: 0,
        };
        assert_eq!(disk_sample(empty).used_pct, 0.0);
    }

    #[test]
    fn values_of_this_host_appear_soon() {
        let metrics = Arc::new(Metrics::new("vm"));
        spawn(&metrics, Duration::from_millis(20), "/".into()).unwrap();
        let names = ["CPUUtilization", "MemoryUsed", "DiskUtilization"];
        await_text(&metrics, |text| {
            names.iter().all(|name| text.contains(name))
        });
    }

    #[test]
    fn a_missing_mount_removes_only_the_disk() {
        let metrics = Arc::new(Metrics::new("vm"));
        let mount = "/nonexistent/mount".into();
        spawn(&metrics, Duration::from_millis(20), mount).unwrap();
        let text = await_text(&metrics, |text| text.contains("MemoryUsed{"));
        assert!(text.contains(r#"inferprobe_collector_up{collector="disk"} 0"#));
        assert!(!text.contains("DiskUsage{"));
    }

    /// The samples of the families under test, as soon as `is_ready`.
    fn await_text(metrics: &Metrics, is_ready: impl Fn(&str) -> bool) -> String {
        let selection = Selection::named([
            "CPUUtilization",
            "MemoryUsed",
            "DiskUsage",
            "DiskUtilization",
            "inferprobe_collector_up",
        ]);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = metrics.encode(&selection, Format::Text);
            if is_ready(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "not ready:\n{text}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}
