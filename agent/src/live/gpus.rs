//! Describes the GPUs, from their series.
//!
//! Does not depend on: NVML.

use std::collections::BTreeMap;

use crate::{
    api::live::{Gpu, GpuProcess, Gpus},
    live::values::{Values, label},
    metrics::{families, family::Family, page::Sample},
};

/// Value of label `collector` of the GPUs.
const COLLECTOR: &str = "gpu";

/// Device, UUID and MIG instance.
type Key = (String, String, String);

/// Returns the GPUs as they were read last.
pub(super) fn read(values: &Values) -> Gpus {
    let mut up = values.of(&families::COLLECTOR_UP).iter();
    let readable = up.any(|sample| sample.has("collector", COLLECTOR) && sample.value > 0.0);
    let mut devices: BTreeMap<Key, Gpu> = BTreeMap::new();
    let mut each = |family: &Family, set: &dyn Fn(&mut Gpu, &Sample)| {
        for sample in values.of(family) {
            let key = ["device", "uuid", "mig"].map(|name| label(sample, name).to_owned());
            set(devices.entry(key.into()).or_default(), sample);
        }
    };
    each(&families::GPU_BUSY, &|gpu, sample| {
        gpu.busy_ratio = Some(sample.value);
    });
    each(&families::GPU_MEMORY_USED_BYTES, &|gpu, sample| {
        gpu.memory_used_bytes = Some(sample.value as u64);
    });
    each(&families::GPU_MEMORY_TOTAL_BYTES, &|gpu, sample| {
        gpu.memory_total_bytes = Some(sample.value as u64);
    });
    each(&families::GPU_POWER, &|gpu, sample| {
        gpu.power_watts = Some(sample.value);
    });
    each(&families::GPU_POWER_LIMIT, &|gpu, sample| {
        gpu.power_limit_watts = Some(sample.value);
    });
    each(&families::GPU_TEMPERATURE, &|gpu, sample| {
        gpu.temperature_celsius = Some(sample.value);
    });
    each(&families::GPU_THROTTLE_REASON, &|gpu, sample| {
        if sample.value > 0.0 {
            gpu.throttled_by.push(label(sample, "reason").into());
        }
    });
    each(&families::GPU_PROCESS_BUSY, &|gpu, sample| {
        process(gpu, sample).busy_ratio = Some(sample.value);
    });
    each(&families::GPU_PROCESS_MEMORY, &|gpu, sample| {
        process(gpu, sample).memory_bytes = Some(sample.value as u64);
    });
    let named = devices.into_iter().map(|((device, uuid, mig), gpu)| Gpu {
        device,
        uuid,
        mig,
        ..gpu
    });
    Gpus {
        readable,
        devices: named.collect(),
    }
}

fn process<'a>(gpu: &'a mut Gpu, sample: &Sample) -> &'a mut GpuProcess {
    let pid = label(sample, "pid").parse().unwrap_or_default();
    let (server, model) = (label(sample, "server"), label(sample, "model"));
    let is_it = |process: &GpuProcess| {
        process.pid == pid && process.server == server && process.model == model
    };
    let at = gpu.processes.iter().position(is_it).unwrap_or_else(|| {
        gpu.processes.push(GpuProcess {
            pid,
            server: server.into(),
            model: model.into(),
            ..GpuProcess::default()
        });
        gpu.processes.len() - 1
    });
    &mut gpu.processes[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_device_become_one_gpu() {
        let text = "inferprobe_collector_up{collector=\"gpu\"} 1\n\
            inferprobe_gpu_utilization_ratio{device=\"0\",uuid=\"GPU-1\",mig=\"\"} 0.31\n\
            inferprobe_gpu_memory_used_bytes{device=\"0\",uuid=\"GPU-1\",mig=\"\"} 1024\n\
            inferprobe_gpu_memory_used_bytes{device=\"1\",uuid=\"GPU-2\",mig=\"\"} 2048\n\
            inferprobe_gpu_throttle_active{device=\"0\",uuid=\"GPU-1\",mig=\"\",reason=\"power\"} 1\n\
            inferprobe_gpu_throttle_active{device=\"0\",uuid=\"GPU-1\",mig=\"\",reason=\"heat\"} 0\n\
            inferprobe_gpu_process_sm_ratio{device=\"0\",uuid=\"GPU-1\",mig=\"\",pid=\"7\",server=\"vllm\",model=\"m\"} 0.3\n\
            inferprobe_gpu_process_memory_bytes{device=\"0\",uuid=\"GPU-1\",mig=\"\",pid=\"7\",server=\"vllm\",model=\"m\"} 512\n";
        let gpus = read(&Values::parse(text));
        assert!(gpus.readable);
        let [first, second] = gpus.devices.as_slice() else {
            panic!("{gpus:?}");
        };
        let expected = GpuProcess {
            pid: 7,
            server: "vllm".into(),
            model: "m".into(),
            busy_ratio: Some(0.3),
            memory_bytes: Some(512),
        };
        assert_eq!(first.processes, [expected]);
        assert_eq!(first.throttled_by, ["power"]);
        assert_eq!(first.busy_ratio, Some(0.31));
        assert_eq!((&*second.uuid, second.busy_ratio), ("GPU-2", None));
        assert!(!read(&Values::default()).readable);
    }
}
