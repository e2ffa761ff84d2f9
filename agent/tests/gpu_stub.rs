//! Tests the GPU collector with a stub of NVML that this test builds: real symbols, two invented devices.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics; the helpers here are not test functions to clippy"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use inferprobe::{
    collectors::gpu,
    metrics::{Format, Metrics, Selection},
};
use tempfile::TempDir;

const REFRESH: Duration = Duration::from_millis(20);
/// Longest wait.
const DEADLINE: Duration = Duration::from_secs(20);

/// The stub, built once, in a target folder of its own.
static STUB: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvml-stub");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "nvml-stub", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .unwrap();
    assert!(built.success(), "cargo build --package nvml-stub");
    target.join("debug/libnvml_stub.so")
});

/// A collector with a copy of the stub that only this test controls.
struct Collector {
    folder: TempDir,
    metrics: Arc<Metrics>,
}

impl Collector {
    fn start(control: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let library = folder.path().join("libnvml_stub.so");
        fs::copy(&*STUB, &library).unwrap();
        let metrics = Arc::new(Metrics::new("vm"));
        let collector = Self { folder, metrics };
        collector.control(control);
        gpu::spawn(&collector.metrics, REFRESH, Some(library)).unwrap();
        collector
    }

    /// Replaces the control file atomically, so that the stub never reads half of it.
    fn control(&self, control: &str) {
        let new = self.folder.path().join("new.control");
        fs::write(&new, control).unwrap();
        let path = self.folder.path().join("libnvml_stub.so.control");
        fs::rename(new, path).unwrap();
    }

    /// The samples of the GPU families.
    fn lines(&self) -> Vec<String> {
        let selection = Selection::named([
            "GPUUtilization",
            "GPUMemoryUtilization",
            "GPUMemoryUsed",
            "inferprobe_collector_up",
            "inferprobe_gpu_errors_total",
        ]);
        let text = self.metrics.encode(&selection, Format::Text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    /// Waits until the samples, without the error counts, are `expected`.
    fn await_lines(&self, expected: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut lines = self.lines();
            lines.retain(|line| !line.starts_with("inferprobe_gpu_errors_total"));
            if lines == expected {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{lines:#?} are not {expected:#?}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn errors_of(&self, device: &str) -> u64 {
        let prefix = format!("inferprobe_gpu_errors_total{{device=\"{device}\"}} ");
        let lines = self.lines();
        let count = lines.iter().find_map(|line| line.strip_prefix(&prefix));
        count.map_or(0, |count| count.parse().unwrap())
    }
}

const BOTH: &[&str] = &[
    r#"GPUUtilization{Level="Host",DeviceId="0",Hostname="vm"} 37.0"#,
    r#"GPUUtilization{Level="Host",DeviceId="1",Hostname="vm"} 0.0"#,
    r#"GPUMemoryUtilization{Level="Host",DeviceId="0",Hostname="vm"} 1.25"#,
    r#"GPUMemoryUtilization{Level="Host",DeviceId="1",Hostname="vm"} 0.0"#,
    r#"GPUMemoryUsed{Level="Host",DeviceId="0",Hostname="vm"} 1024.0"#,
    r#"GPUMemoryUsed{Level="Host",DeviceId="1",Hostname="vm"} 0.0"#,
    UP,
];
const FIRST: &[&str] = &[
    r#"GPUUtilization{Level="Host",DeviceId="0",Hostname="vm"} 37.0"#,
    r#"GPUMemoryUtilization{Level="Host",DeviceId="0",Hostname="vm"} 1.25"#,
    r#"GPUMemoryUsed{Level="Host",DeviceId="0",Hostname="vm"} 1024.0"#,
    UP,
];
const UP: &str = r#"inferprobe_collector_up{collector="gpu"} 1"#;
const DOWN: &[&str] = &[r#"inferprobe_collector_up{collector="gpu"} 0"#];

#[test]
fn a_device_that_fails_vanishes_and_may_come_back() {
    let collector = Collector::start("device 1 fails after 200\n");
    collector.await_lines(BOTH);
    assert_eq!(collector.errors_of("1"), 0);
    collector.await_lines(FIRST);
    assert!(collector.errors_of("1") > 0);
    assert_eq!(collector.errors_of("0"), 0);
    collector.control("");
    collector.await_lines(BOTH);
}

#[test]
fn values_of_a_hung_library_expire_and_scrapes_do_not_wait() {
    let collector = Collector::start("");
    collector.await_lines(BOTH);
    collector.control("hang\n");
    collector.await_lines(DOWN);
    let started = Instant::now();
    collector.lines();
    assert!(started.elapsed() < Duration::from_secs(1));
    collector.control("");
    collector.await_lines(BOTH);
}

#[test]
fn a_library_that_hangs_at_start_exports_no_gpu() {
    let collector = Collector::start("hang\n");
    collector.await_lines(DOWN);
    collector.control("");
    collector.await_lines(BOTH);
}

#[test]
fn a_driver_that_is_loaded_later_is_found() {
    let collector = Collector::start("init fails\n");
    collector.await_lines(DOWN);
    collector.control("");
    collector.await_lines(BOTH);
}

#[test]
fn a_library_that_counts_no_devices_any_more_is_loaded_again() {
    let collector = Collector::start("");
    collector.await_lines(BOTH);
    collector.control("count fails\n");
    collector.await_lines(DOWN);
    collector.control("");
    collector.await_lines(BOTH);
}

#[test]
fn a_device_without_utilization_keeps_its_memory() {
    let collector = Collector::start("device 0 lacks utilization\ndevice 1 fails\n");
    collector.await_lines(&FIRST[1..]);
    assert_eq!(collector.errors_of("0"), 0);
}

#[test]
fn a_missing_library_exports_no_gpu() {
    let metrics = Arc::new(Metrics::new("vm"));
    let library = "/nonexistent/libnvidia-ml.so.1".into();
    gpu::spawn(&metrics, REFRESH, Some(library)).unwrap();
    let text = metrics.encode(&Selection::all(), Format::Text);
    assert!(text.contains(DOWN[0]));
    assert!(!text.contains("GPUUtilization{"));
}
