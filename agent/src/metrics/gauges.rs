//! Keeps the values of the host and the GPUs. Each reading of a source replaces the one before as a whole.
//!
//! Collectors set them; values of a source that may hang expire.
//! Does not depend on: how a value is read.

use std::time::Instant;

use crate::metrics::{
    encode::{Samples, Value},
    families,
};

/// Memory of the host, in TorchServe's terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemorySample {
    /// Used, MiB.
    pub used_mib: f64,
    /// Available without swapping, MiB.
    pub available_mib: f64,
    /// Share that is not available, percent.
    pub used_pct: f64,
}

/// A mounted file system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiskSample {
    /// Used, GiB.
    pub used_gib: f64,
    /// Available to unprivileged users, GiB.
    pub available_gib: f64,
    /// Used share of used and available, percent.
    pub used_pct: f64,
}

/// One GPU. `None`: the device does not have this value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuSample {
    /// NVML's index of the device.
    pub index: u32,
    /// Share of time in which a GPU kernel ran, percent.
    pub busy_pct: Option<f64>,
    /// Memory.
    pub memory: Option<GpuMemory>,
}

/// Memory of one GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuMemory {
    /// Used, whole MiB.
    pub used_mib: f64,
    /// Used share of the total, percent.
    pub used_pct: f64,
}

/// A value that expires: its source may hang, and a stale value is worse than none.
#[derive(Debug)]
pub(crate) struct Expiring<T> {
    pub(crate) value: T,
    pub(crate) valid_until: Instant,
}

impl<T> Expiring<T> {
    /// Returns the value unless it has expired at `now`.
    pub(crate) fn at(&self, now: Instant) -> Option<&T> {
        (now <= self.valid_until).then_some(&self.value)
    }
}

/// The latest values.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) cpu_pct: Option<f64>,
    pub(crate) memory: Option<MemorySample>,
    pub(crate) disk: Option<Expiring<DiskSample>>,
    pub(crate) gpus: Option<Expiring<Vec<GpuSample>>>,
}

impl Gauges {
    /// Adds every series that has not expired at `now` to `samples`.
    pub(crate) fn collect(&self, hostname: &str, now: Instant, samples: &mut Samples) {
        let host = ["Host", hostname];
        let mut push_host = |family, value| samples.push(family, &host, Value::Float(value));
        if let Some(cpu_pct) = self.cpu_pct {
            push_host(&families::CPU_UTILIZATION, cpu_pct);
        }
        if let Some(memory) = self.memory {
            push_host(&families::MEMORY_USED, memory.used_mib);
            push_host(&families::MEMORY_AVAILABLE, memory.available_mib);
            push_host(&families::MEMORY_UTILIZATION, memory.used_pct);
        }
        if let Some(disk) = self.disk.as_ref().and_then(|disk| disk.at(now)) {
            push_host(&families::DISK_USAGE, disk.used_gib);
            push_host(&families::DISK_AVAILABLE, disk.available_gib);
            push_host(&families::DISK_UTILIZATION, disk.used_pct);
        }
        let gpus = self.gpus.as_ref().and_then(|gpus| gpus.at(now));
        for gpu in gpus.into_iter().flatten() {
            let device = gpu.index.to_string();
            for (family, value) in [
                (&families::GPU_UTILIZATION, gpu.busy_pct),
                (
                    &families::GPU_MEMORY_UTILIZATION,
                    gpu.memory.map(|memory| memory.used_pct),
                ),
                (
                    &families::GPU_MEMORY_USED,
                    gpu.memory.map(|memory| memory.used_mib),
                ),
            ] {
                if let Some(value) = value {
                    samples.push(family, &["Host", &device, hostname], Value::Float(value));
                }
            }
        }
    }
}
