//! GPUs that fail, hang, or are not there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use inferprobe::{
    collectors::gpu::{self, Options},
    metrics::{Format, Metrics, Selection},
};

use crate::collector::{Collector, REFRESH, await_equal};

const FAMILIES: &[&str] = &[
    "GPUUtilization",
    "GPUMemoryUtilization",
    "GPUMemoryUsed",
    "inferprobe_collector_up",
];
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
const EVENTS: &str = r#"collector="gpu_events""#;

/// Waits for TorchServe's families, and whether the collector works.
fn await_lines(collector: &Collector, expected: &[&str]) {
    let lines = || {
        let mut lines = collector.lines(FAMILIES);
        lines.retain(|line| !line.contains(EVENTS));
        lines
    };
    await_equal(lines, expected);
}

fn errors_of(collector: &Collector, device: &str) -> f64 {
    let labels = format!("device=\"{device}\"");
    let errors = collector.value("inferprobe_gpu_errors_total", &labels);
    errors.unwrap_or(0.0)
}

#[test]
fn a_device_that_fails_midway_vanishes_and_may_come_back() {
    let collector = Collector::start("device 1 fails after 1000\n");
    await_lines(&collector, BOTH);
    assert!(errors_of(&collector, "1") < 0.5);
    await_lines(&collector, FIRST);
    assert!(errors_of(&collector, "1") > 0.5);
    assert!(errors_of(&collector, "0") < 0.5);
    let of_second = || {
        let lines = collector.lines(&["inferprobe_gpu_power_watts"]);
        lines.iter().any(|line| line.contains("device=\"1\""))
    };
    assert!(!of_second());
    collector.control("");
    await_lines(&collector, BOTH);
    assert!(of_second());
}

#[test]
fn values_of_a_hung_library_expire_and_scrapes_do_not_wait() {
    let collector = Collector::start("device 0 process 7 30 5 100\n");
    await_lines(&collector, BOTH);
    collector.control("hang\n");
    await_lines(&collector, DOWN);
    for family in [
        "inferprobe_gpu_utilization_ratio",
        "inferprobe_gpu_process_sm_ratio",
        "inferprobe_gpu_energy_joules_total",
    ] {
        assert!(collector.lines(&[family]).is_empty(), "{family}");
    }
    let started = Instant::now();
    collector.metrics.encode(&Selection::all(), Format::Text);
    assert!(started.elapsed() < Duration::from_secs(1));
    collector.control("");
    await_lines(&collector, BOTH);
}

#[test]
fn a_hanging_sample_of_pcie_makes_all_values_expire() {
    let collector = Collector::start("");
    await_lines(&collector, BOTH);
    collector.control("hang nvmlDeviceGetPcieThroughput\n");
    await_lines(&collector, DOWN);
    collector.control("");
    await_lines(&collector, BOTH);
}

#[test]
fn hanging_events_do_not_stop_the_readings() {
    let collector = Collector::start("hang nvmlEventSetWait_v2\n");
    await_lines(&collector, BOTH);
    collector.control("hang nvmlEventSetWait_v2\ndevice 0 temperature 50\n");
    let first = "device=\"0\",uuid=\"GPU-stub-0\",mig=\"\"";
    let is = |expected| move |found: Option<f64>| found == Some(expected);
    collector.await_value("inferprobe_gpu_temperature_celsius", first, is(50.0));
    collector.await_value("inferprobe_collector_up", EVENTS, is(0.0));
    collector.control("");
    collector.await_value("inferprobe_collector_up", EVENTS, is(1.0));
}

#[test]
fn a_library_that_hangs_at_start_exports_no_gpu() {
    let collector = Collector::start("hang\n");
    await_lines(&collector, DOWN);
    collector.control("");
    await_lines(&collector, BOTH);
}

#[test]
fn a_driver_that_is_loaded_later_is_found() {
    let collector = Collector::start("init fails\n");
    await_lines(&collector, DOWN);
    collector.control("");
    await_lines(&collector, BOTH);
}

#[test]
fn a_library_that_counts_no_devices_any_more_is_loaded_again() {
    let collector = Collector::start("");
    await_lines(&collector, BOTH);
    collector.control("count fails\n");
    await_lines(&collector, DOWN);
    collector.control("");
    await_lines(&collector, BOTH);
}

#[test]
fn a_device_without_utilization_keeps_its_memory() {
    let collector = Collector::start("device 0 lacks utilization\ndevice 1 fails\n");
    await_lines(&collector, &FIRST[1..]);
    assert!(errors_of(&collector, "0") < 0.5);
}

#[test]
fn one_value_that_fails_costs_no_other() {
    let values = [
        "power",
        "energy",
        "processes",
        "process_utilization",
        "violation",
        "throttle",
        "clock",
        "temperature",
        "ecc",
        "fields",
        "pcie_replays",
        "mig",
        "limit",
        "uuid",
        "events",
    ];
    let control: String = values
        .iter()
        .map(|value| format!("device 1 errs {value}\n"))
        .collect();
    let collector = Collector::start(&control);
    await_lines(&collector, BOTH);
    let of_second = |lines: Vec<String>| {
        let mut lines = lines.into_iter();
        lines.any(|line| line.contains("device=\"1\""))
    };
    assert!(!of_second(collector.lines(&["inferprobe_gpu_power_watts"])));
    assert!(of_second(
        collector.lines(&["inferprobe_gpu_memory_used_bytes"])
    ));
    let labels = r#"device="1",uuid="",mig="",value="power",reason="failed""#;
    collector.await_value("inferprobe_gpu_unknown_total", labels, |count| {
        count > Some(0.5)
    });
}

#[test]
fn a_missing_library_exports_no_gpu() {
    let metrics = Arc::new(Metrics::new("vm"));
    let options = Options {
        refresh: REFRESH,
        library: Some("/nonexistent/libnvidia-ml.so.1".into()),
        gpm: false,
        host_root: "/".into(),
    };
    gpu::spawn(&metrics, Arc::default(), options, Arc::default()).unwrap();
    let text = metrics.encode(&Selection::all(), Format::Text);
    assert!(text.contains(DOWN[0]));
    assert!(!text.contains("GPUUtilization{"));
}
