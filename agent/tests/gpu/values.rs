//! What NVML reports arrives under the right name, in base units.

use crate::collector::{Collector, REFRESH};

const FIRST: &str = r#"device="0",uuid="GPU-stub-0",mig="""#;

/// Waits for one sample of the first device; `labels` are those after the first three.
fn await_first(collector: &Collector, family: &str, labels: &str, expected: f64) {
    let labels = match labels {
        "" => FIRST.to_owned(),
        labels => format!("{FIRST},{labels}"),
    };
    collector.await_value(family, &labels, |value| {
        value.is_some_and(|value| (value - expected).abs() < 1e-9)
    });
}

#[test]
fn every_value_is_in_base_units() {
    let collector = Collector::start_with(
        "device 0 busy 62\ndevice 0 memory_busy 21\ndevice 0 used 4096\n\
         device 0 power 312500\ndevice 0 limit 650000\ndevice 0 energy 123456\ndevice 0 temperature 71\n\
         device 0 clock 1 1755\ndevice 0 violation 0 1500000000\ndevice 0 violation 1 250000000\n\
         device 0 throttle 12\ndevice 0 ecc 0 4\ndevice 0 ecc 1 1\ndevice 0 pcie_bytes 7000 9000\n\
         device 0 nvlink 2 10 20\ndevice 0 nvlink_errors 2 0 5\ndevice 0 gpm 2 55500\ndevice 0 gpm 20 2000\n",
        REFRESH,
        true,
    );
    for (family, labels, expected) in [
        ("inferprobe_gpu_utilization_ratio", "", 0.62),
        ("inferprobe_gpu_memory_utilization_ratio", "", 0.21),
        ("inferprobe_gpu_memory_used_bytes", "", 4096.0),
        ("inferprobe_gpu_memory_total_bytes", "", 85_899_345_920.0),
        ("inferprobe_gpu_power_watts", "", 312.5),
        ("inferprobe_gpu_power_limit_watts", "", 650.0),
        ("inferprobe_gpu_energy_joules_total", "", 123.456),
        ("inferprobe_gpu_temperature_celsius", "", 71.0),
        ("inferprobe_gpu_clock_hertz", r#"clock="sm""#, 1.755e9),
        (
            "inferprobe_gpu_throttled_seconds_total",
            r#"policy="power""#,
            1.5,
        ),
        (
            "inferprobe_gpu_throttled_seconds_total",
            r#"policy="thermal""#,
            0.25,
        ),
        (
            "inferprobe_gpu_throttle_active",
            r#"reason="sw_power_cap""#,
            1.0,
        ),
        (
            "inferprobe_gpu_throttle_active",
            r#"reason="hw_slowdown""#,
            1.0,
        ),
        ("inferprobe_gpu_throttle_active", r#"reason="idle""#, 0.0),
        ("inferprobe_gpu_throttle_active", r#"reason="other""#, 0.0),
        (
            "inferprobe_gpu_ecc_errors_total",
            r#"error="corrected""#,
            4.0,
        ),
        (
            "inferprobe_gpu_ecc_errors_total",
            r#"error="uncorrected""#,
            1.0,
        ),
        (
            "inferprobe_gpu_pcie_bytes_total",
            r#"direction="tx""#,
            7000.0,
        ),
        (
            "inferprobe_gpu_pcie_bytes_total",
            r#"direction="rx""#,
            9000.0,
        ),
        ("inferprobe_gpu_pcie_replays_total", "", 3.0),
        ("inferprobe_gpu_pcie_link_generation", "", 5.0),
        ("inferprobe_gpu_pcie_link_width", "", 16.0),
        (
            "inferprobe_gpu_nvlink_bytes_total",
            r#"link="2",direction="tx""#,
            10_240.0,
        ),
        (
            "inferprobe_gpu_nvlink_bytes_total",
            r#"link="2",direction="rx""#,
            20_480.0,
        ),
        (
            "inferprobe_gpu_nvlink_errors_total",
            r#"link="2",error="replay""#,
            5.0,
        ),
        ("inferprobe_gpu_gpm_ratio", r#"figure="sm""#, 0.555),
        (
            "inferprobe_gpu_gpm_bytes_per_second",
            r#"figure="pcie_tx""#,
            2_097_152.0,
        ),
    ] {
        await_first(&collector, family, labels, expected);
    }
    let lines = collector.lines(&["inferprobe_gpu_pcie_bytes_per_second"]);
    assert!(
        !lines.iter().any(|line| line.contains("device=\"0\"")),
        "it counts bytes"
    );
    let lines = collector.lines(&["inferprobe_gpu_nvlink_bytes_total"]);
    assert_eq!(
        lines.len(),
        2,
        "one link of one device is active: {lines:#?}"
    );
    let lines = collector.lines(&["inferprobe_gpu_throttled_seconds_total"]);
    assert_eq!(
        lines.len(),
        12,
        "two policies are not supported: {lines:#?}"
    );
}

#[test]
fn a_device_that_counts_no_pcie_bytes_has_a_rate() {
    let collector = Collector::start("device 0 pcie_rate 40 50\n");
    let family = "inferprobe_gpu_pcie_bytes_per_second";
    await_first(&collector, family, r#"direction="tx""#, 40_000.0);
    await_first(&collector, family, r#"direction="rx""#, 50_000.0);
    assert!(
        collector
            .lines(&["inferprobe_gpu_pcie_bytes_total"])
            .is_empty()
    );
}

#[test]
fn gpm_is_read_only_on_request() {
    let collector = Collector::start("device 0 gpm 2 55500\n");
    let temperature = "inferprobe_gpu_temperature_celsius";
    await_first(&collector, temperature, "", 45.0);
    collector.control("device 0 gpm 2 55500\ndevice 0 temperature 46\n");
    await_first(&collector, temperature, "", 46.0);
    assert!(collector.lines(&["inferprobe_gpu_gpm_ratio"]).is_empty());
}

#[test]
fn an_unknown_throttle_reason_shows_as_other() {
    let collector = Collector::start(&format!("device 0 throttle {}\n", 1_u64 << 40 | 4));
    let family = "inferprobe_gpu_throttle_active";
    await_first(&collector, family, r#"reason="other""#, 1.0);
    await_first(&collector, family, r#"reason="sw_power_cap""#, 1.0);
}

#[test]
fn zero_at_high_power_is_unknown_and_torchserves_value_stays() {
    let collector = Collector::start("device 1 power 70000\n");
    let (family, second) = (
        "inferprobe_gpu_utilization_ratio",
        r#"device="1",uuid="GPU-stub-1",mig="""#,
    );
    collector.await_value(family, second, |value| value == Some(0.0));
    collector.control("device 1 power 400000\n");
    collector.await_value(family, second, |value| value.is_none());
    let reason = format!("{second},value=\"utilization\",reason=\"zero_while_busy\"");
    collector.await_value("inferprobe_gpu_unknown_total", &reason, |count| {
        count > Some(0.5)
    });
    let torchserve = r#"GPUUtilization{Level="Host",DeviceId="1",Hostname="vm"} 0.0"#;
    assert!(
        collector
            .lines(&["GPUUtilization"])
            .contains(&torchserve.to_owned())
    );
    collector.control("");
    collector.await_value(family, second, |value| value == Some(0.0));
}

#[test]
fn processes_are_named_only_if_they_are_watched() {
    let collector = Collector::start(
        "device 0 process 4000001 30 5 1048576\ndevice 0 process 4000002 0 0 2097152\n",
    );
    collector.await_lines(
        &["inferprobe_gpu_process_sm_ratio", "inferprobe_gpu_process_memory_bytes"],
        &[
            r#"inferprobe_gpu_process_sm_ratio{device="0",uuid="GPU-stub-0",mig="",pid="4000001",server="",model="",namespace="",pod="",container=""} 0.3"#,
            r#"inferprobe_gpu_process_memory_bytes{device="0",uuid="GPU-stub-0",mig="",pid="4000001",server="",model="",namespace="",pod="",container=""} 1048576"#,
            r#"inferprobe_gpu_process_memory_bytes{device="0",uuid="GPU-stub-0",mig="",pid="4000002",server="",model="",namespace="",pod="",container=""} 2097152"#,
        ],
    );
}

#[test]
fn mig_instances_have_memory_and_honest_gaps() {
    let collector = Collector::start(
        "device 0 mig 1 9 1048576\ndevice 0 mig 4 11 4096\ndevice 0 mig_process 4 4000001 512\n",
    );
    collector.await_lines(
        &["inferprobe_gpu_process_memory_bytes"],
        &[r#"inferprobe_gpu_process_memory_bytes{device="0",uuid="MIG-stub-0-4",mig="11",pid="4000001",server="",model="",namespace="",pod="",container=""} 512"#],
    );
    let of_first = |family: &str| {
        let mut lines = collector.lines(&[family]);
        lines.retain(|line| line.contains("device=\"0\""));
        lines
    };
    assert_eq!(
        of_first("inferprobe_gpu_memory_used_bytes"),
        [
            r#"inferprobe_gpu_memory_used_bytes{device="0",uuid="GPU-stub-0",mig=""} 1073741824"#,
            r#"inferprobe_gpu_memory_used_bytes{device="0",uuid="MIG-stub-0-1",mig="9"} 1048576"#,
            r#"inferprobe_gpu_memory_used_bytes{device="0",uuid="MIG-stub-0-4",mig="11"} 4096"#,
        ]
    );
    for family in [
        "inferprobe_gpu_utilization_ratio",
        "inferprobe_gpu_process_sm_ratio",
    ] {
        assert!(of_first(family).is_empty(), "{family}");
    }
    for (uuid, mig) in [
        ("GPU-stub-0", ""),
        ("MIG-stub-0-1", "9"),
        ("MIG-stub-0-4", "11"),
    ] {
        let labels = format!(
            "device=\"0\",uuid=\"{uuid}\",mig=\"{mig}\",value=\"utilization\",reason=\"mig\""
        );
        collector.await_value("inferprobe_gpu_unknown_total", &labels, |count| {
            count > Some(0.5)
        });
    }
    collector.control("");
    collector.await_value("inferprobe_gpu_utilization_ratio", FIRST, |value| {
        value.is_some()
    });
    assert_eq!(of_first("inferprobe_gpu_memory_used_bytes").len(), 1);
}

#[test]
fn xid_errors_are_counted_by_code() {
    let collector = Collector::start("");
    let family = "inferprobe_gpu_xid_errors_total";
    let up = r#"collector="gpu_events""#;
    collector.await_value("inferprobe_collector_up", up, |value| value == Some(1.0));
    assert!(collector.lines(&[family]).is_empty());
    collector.control("device 0 xid 79 1\ndevice 1 xid 31 2\n");
    await_first(&collector, family, r#"xid="79""#, 1.0);
    let second = r#"device="1",uuid="GPU-stub-1",mig="",xid="31""#;
    collector.await_value(family, second, |value| value == Some(2.0));
    collector.control("device 0 xid 79 3\ndevice 1 xid 31 2\n");
    await_first(&collector, family, r#"xid="79""#, 3.0);
    assert_eq!(collector.value(family, second), Some(2.0));
}

#[test]
fn a_device_that_refuses_events_does_not_hide_those_of_others() {
    let collector = Collector::start("device 0 errs registration\ndevice 1 xid 48 1\n");
    let second = r#"device="1",uuid="GPU-stub-1",mig="",xid="48""#;
    collector.await_value("inferprobe_gpu_xid_errors_total", second, |value| {
        value == Some(1.0)
    });
    collector.control("device 0 xid 79 1\ndevice 1 xid 48 1\n");
    await_first(
        &collector,
        "inferprobe_gpu_xid_errors_total",
        r#"xid="79""#,
        1.0,
    );
}
