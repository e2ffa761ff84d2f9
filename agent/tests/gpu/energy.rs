//! The parts of a GPU's energy add up to its counter, whoever uses it.

use std::{collections::HashMap, process::Command, thread, time::Duration};

use inferprobe::{
    discovery::roster::{Member, ServedTimes},
    identity::{Identity, Replica},
};

use crate::collector::Collector;

/// Time between readings. A gap of three, which a busy machine must not cause, hides who used the energy.
const REFRESH: Duration = Duration::from_millis(200);

const DEVICE: &str = r#"device="0",uuid="GPU-stub-0",mig="""#;
const TOTAL: &str = "inferprobe_gpu_energy_joules_total";
const PARTS: &str = "inferprobe_gpu_energy_attributed_joules_total";

fn start(control: &str) -> Collector {
    Collector::start_with(control, REFRESH, false)
}

/// Waits until the counter of the GPU stands at this, and its parts add up to it.
fn await_total(collector: &Collector, joules: f64) {
    collector.await_value(TOTAL, DEVICE, |value| {
        value.is_some_and(|value| (value - joules).abs() < 1e-6)
    });
    check_sum(collector);
}

/// Checks one scrape: the parts of each GPU add up to its counter.
fn check_sum(collector: &Collector) {
    let lines = collector.lines(&[TOTAL, PARTS]);
    for device in ["device=\"0\"", "device=\"1\""] {
        let sum = |family: &str| -> f64 {
            let of = lines
                .iter()
                .filter(|line| line.starts_with(family) && line.contains(device));
            of.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
                .sum()
        };
        let (total, parts) = (sum(TOTAL), sum(PARTS));
        assert!(
            (total - parts).abs() < 1e-6,
            "{total} J are not {parts} J: {lines:#?}"
        );
    }
}

/// The part that goes to `to`, J.
fn part(collector: &Collector, to: &str, server: &str, model: &str) -> f64 {
    let labels = format!("{DEVICE},to=\"{to}\",server=\"{server}\",model=\"{model}\"");
    collector.value(PARTS, &labels).unwrap_or(0.0)
}

fn identity(model: &str) -> Identity {
    Identity {
        model: model.into(),
        version: "default".into(),
        server: "vllm".into(),
        replica: Replica::default(),
    }
}

/// Publishes this process as a watched server, which served its models for these times.
fn serve(collector: &Collector, times: &[(&str, u64)]) {
    let member = Member {
        server: "vllm".into(),
        model: "cmdline".into(),
        replica: Replica::default(),
        is_loaded: false,
        recognised: None,
    };
    let own = std::process::id();
    let times = times.iter().map(|(model, ns)| (identity(model), *ns));
    let served: ServedTimes = HashMap::from([(own, times.collect())]);
    collector
        .roster
        .publish(HashMap::from([(own, member)]), served);
}

#[test]
fn the_parts_add_up_to_the_counter_in_every_state() {
    let own = std::process::id();
    let collector = start("device 0 energy 1000000\ndevice 0 busy 0\ndevice 0 power 70000\n");
    await_total(&collector, 1_000.0);
    assert!(
        (part(&collector, "unattributed", "", "") - 1_000.0).abs() < 1e-6,
        "before the agent"
    );

    // Idle: what the GPU draws is nobody's.
    collector.control("device 0 energy 1100000\ndevice 0 busy 0\ndevice 0 power 70000\n");
    await_total(&collector, 1_100.0);
    assert!((part(&collector, "idle", "", "") - 100.0).abs() < 1e-6);

    // A watched server and another process share it, three to one.
    serve(&collector, &[]);
    let users = format!("device 0 process {own} 60 9 100\ndevice 0 process 4000001 20 9 100\n");
    collector.control(&format!(
        "{users}device 0 energy 1500000\ndevice 0 busy 80\n"
    ));
    await_total(&collector, 1_500.0);
    let (model, other) = (
        part(&collector, "model", "vllm", "cmdline"),
        part(&collector, "other", "", ""),
    );
    assert!(
        other > 50.0 && (model - 3.0 * other).abs() < 0.01,
        "{model} J, {other} J"
    );

    // Someone uses it, and NVML does not say who.
    collector.control("device 0 energy 1700000\ndevice 0 busy 80\n");
    await_total(&collector, 1_700.0);
    assert!(part(&collector, "unattributed", "", "") > 1_000.0);

    // The driver starts to count anew: the total goes on.
    collector.control("device 0 energy 50000\ndevice 0 busy 0\ndevice 0 power 70000\n");
    await_total(&collector, 1_750.0);
    let resets = collector.value("inferprobe_gpu_counter_resets_total", DEVICE);
    assert_eq!(resets, Some(1.0));

    // MIG: NVML has no users.
    let before = part(&collector, "model", "vllm", "cmdline") + part(&collector, "other", "", "");
    collector.control("device 0 energy 90000\ndevice 0 mig 0 7 100\n");
    await_total(&collector, 1_790.0);
    let after = part(&collector, "model", "vllm", "cmdline") + part(&collector, "other", "", "");
    assert!((before - after).abs() < 1e-6);
}

#[test]
fn the_energy_of_a_process_is_divided_by_the_time_of_its_models() {
    let own = std::process::id();
    let users = format!("device 0 process {own} 50 9 100\ndevice 0 busy 50\n");
    let collector = start(&format!("device 0 energy 0\n{users}"));
    await_total(&collector, 0.0);
    // One reading must have both, so no reading may be between them.
    collector.control("hang\n");
    thread::sleep(5 * REFRESH / 4);
    serve(&collector, &[("a", 300), ("b", 100)]);
    collector.control(&format!("device 0 energy 800000\n{users}"));
    await_total(&collector, 800.0);
    let (a, b) = (
        part(&collector, "model", "vllm", "a"),
        part(&collector, "model", "vllm", "b"),
    );
    assert!(b > 1.0 && (a - 3.0 * b).abs() < 0.01, "{a} J, {b} J");
    assert!(part(&collector, "other", "", "") < 1e-6);
    let process = format!(
        "{DEVICE},pid=\"{own}\",server=\"vllm\",model=\"\",namespace=\"\",pod=\"\",container=\"\""
    );
    collector.await_value("inferprobe_gpu_process_sm_ratio", &process, |value| {
        value == Some(0.5)
    });
}

#[test]
fn a_process_that_a_server_started_works_for_it() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let collector = start("device 0 energy 0\n");
    await_total(&collector, 0.0);
    serve(&collector, &[]);
    let pid = child.id();
    collector.control(&format!(
        "device 0 energy 500000\ndevice 0 process {pid} 100 9 100\ndevice 0 busy 100\n"
    ));
    await_total(&collector, 500.0);
    child.kill().unwrap();
    child.wait().unwrap();
    let model = part(&collector, "model", "vllm", "cmdline");
    assert!(
        (model - 500.0).abs() < 1e-6,
        "no idle power is known, and it was used all the time: {model} J"
    );
}

#[test]
fn energy_that_a_hang_hides_is_unattributed() {
    let own = std::process::id();
    let users = format!("device 0 process {own} 100 9 100\ndevice 0 busy 100\n");
    let collector = start(&format!("device 0 energy 0\n{users}"));
    serve(&collector, &[]);
    await_total(&collector, 0.0);
    collector.control("hang\n");
    collector.await_value(TOTAL, DEVICE, |value| value.is_none());
    thread::sleep(4 * REFRESH);
    collector.control(&format!("device 0 energy 900000\n{users}"));
    await_total(&collector, 900.0);
    assert!((part(&collector, "unattributed", "", "") - 900.0).abs() < 1e-6);
}

#[test]
fn a_device_without_energy_has_none() {
    let collector = start("device 0 lacks energy\n");
    let second = r#"device="1",uuid="GPU-stub-1",mig="""#;
    collector.await_value(TOTAL, second, |value| value == Some(1_000.0));
    assert_eq!(collector.lines(&[TOTAL]).len(), 1);
    let labels = format!("{DEVICE},value=\"energy\",reason=\"not_supported\"");
    collector.await_value("inferprobe_gpu_unknown_total", &labels, |count| {
        count > Some(0.5)
    });
}
