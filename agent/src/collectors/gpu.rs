//! Reads the GPUs through NVML, on a thread of its own: loading the library, and every call into it, may hang.
//!
//! Values expire if a reading hangs; `doctor` reads the GPUs once.
//! Does not depend on: the exposition.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper::{Device, Nvml, error::NvmlError};
use tracing::{info, warn};

use crate::metrics::{GpuMemory, GpuSample, Metrics, families};

/// Label `collector`.
const COLLECTOR: &str = "gpu";
/// Refresh intervals after which a value that was not read again expires.
const STALE_AFTER: u32 = 3;
/// Refresh intervals between attempts to find a driver.
const RETRY_AFTER: u32 = 12;
/// Most devices to read: a faulty driver must not create series without limit.
const MAX_DEVICES: u32 = 64;
const BYTES_PER_MIB: u64 = 1 << 20;

/// Reads every GPU each `refresh`, for as long as `metrics` is in use elsewhere; `library` replaces the system's NVML.
pub fn spawn(
    metrics: &Arc<Metrics>,
    refresh: Duration,
    library: Option<PathBuf>,
) -> io::Result<()> {
    metrics.collector_up(COLLECTOR, false);
    let metrics = Arc::downgrade(metrics);
    thread::Builder::new()
        .name(COLLECTOR.into())
        .spawn(move || watch(&metrics, refresh, library.as_deref()))?;
    Ok(())
}

fn watch(metrics: &Weak<Metrics>, refresh: Duration, library: Option<&Path>) {
    let mut logged = false;
    while metrics.strong_count() > 0 {
        match open(library) {
            Ok(nvml) => {
                info!("NVML loaded; GPU metrics are exported");
                logged = false;
                watch_devices(metrics, &nvml, refresh);
            }
            Err(err) => {
                if !std::mem::replace(&mut logged, true) {
                    info!(%err, "NVML not loaded; GPU metrics appear once an NVIDIA driver is installed");
                }
                thread::sleep(refresh * RETRY_AFTER);
            }
        }
    }
}

/// Result of reading the GPUs once.
#[derive(Debug)]
pub struct Seen {
    /// Number of GPUs that were read.
    pub read: u32,
    /// NVML's error for each GPU that could not be read.
    pub refused: Vec<String>,
}

/// Reads every GPU once; `library` replaces the system's NVML. It may never return.
pub fn look(library: Option<&Path>) -> Result<Seen, NvmlError> {
    let nvml = open(library)?;
    let count = nvml.device_count()?.min(MAX_DEVICES);
    let refused: Vec<String> = (0..count)
        .filter_map(|index| {
            let err = read_device(&nvml, index).err()?;
            Some(format!("device {index}: {err}"))
        })
        .collect();
    Ok(Seen {
        read: count - refused.len() as u32,
        refused,
    })
}

fn open(library: Option<&Path>) -> Result<Nvml, NvmlError> {
    match library {
        Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
        // Driver packages install this name; the one without the 1 comes with development files.
        None => Nvml::builder()
            .lib_path("libnvidia-ml.so.1".as_ref())
            .init(),
    }
}

/// Reads until NVML cannot count devices any more; a single device that fails does not end it.
fn watch_devices(metrics: &Weak<Metrics>, nvml: &Nvml, refresh: Duration) {
    let mut failing = BTreeSet::new();
    while let Some(metrics) = metrics.upgrade() {
        let count = match nvml.device_count() {
            Ok(count) => count.min(MAX_DEVICES),
            Err(err) => {
                warn!(%err, "GPUs not counted; GPU metrics are missing until NVML works again");
                metrics.set_gpus(Vec::new(), Instant::now());
                metrics.collector_up(COLLECTOR, false);
                drop(metrics);
                thread::sleep(refresh);
                return;
            }
        };
        let mut gpus = Vec::new();
        for index in 0..count {
            match read_device(nvml, index) {
                Ok(gpu) => {
                    gpus.push(gpu);
                    if failing.remove(&index) {
                        info!(device = index, "GPU read again");
                    }
                }
                Err(err) => {
                    metrics.add(&families::GPU_ERRORS, &[&index.to_string()], 1);
                    if failing.insert(index) {
                        warn!(device = index, %err, "GPU not read");
                    }
                }
            }
        }
        let valid_until = Instant::now() + refresh * STALE_AFTER;
        metrics.set_gpus(gpus, valid_until);
        metrics.collector_up_until(COLLECTOR, valid_until);
        drop(metrics);
        thread::sleep(refresh);
    }
}

fn read_device(nvml: &Nvml, index: u32) -> Result<GpuSample, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let utilization = if_supported(device.utilization_rates())?;
    Ok(GpuSample {
        index,
        busy_pct: utilization.map(|rates| f64::from(rates.gpu)),
        memory: read_memory(&device)?,
    })
}

fn read_memory(device: &Device<'_>) -> Result<Option<GpuMemory>, NvmlError> {
    let memory = if_supported(device.memory_info())?;
    Ok(memory.map(|memory| gpu_memory(memory.used, memory.total)))
}

/// Returns `None` if the device or the driver version does not have this value: no error, and no series.
fn if_supported<T>(outcome: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => Ok(None),
        Err(err) => Err(err),
    }
}

/// Returns memory in TorchServe's units: whole MiB, as nvidia-smi prints them, and their share of the total in whole
/// MiB.
fn gpu_memory(used_bytes: u64, total_bytes: u64) -> GpuMemory {
    let used_mib = (used_bytes / BYTES_PER_MIB) as f64;
    let total_mib = (total_bytes / BYTES_PER_MIB) as f64;
    GpuMemory {
        used_mib,
        used_pct: if total_mib > 0.0 {
            100.0 * used_mib / total_mib
        } else {
            0.0
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_whole_mib_and_percent_of_the_total() {
        const MIB: u64 = BYTES_PER_MIB;
        for (used, total, used_mib, used_pct) in [
            (1024 * MIB, 81920 * MIB, 1024.0, 1.25),
            (1024 * MIB + 7, 81920 * MIB + 9, 1024.0, 1.25),
            (0, 81920 * MIB, 0.0, 0.0),
            (0, 0, 0.0, 0.0),
        ] {
            let expected = GpuMemory { used_mib, used_pct };
            assert_eq!(gpu_memory(used, total), expected);
        }
    }

    #[test]
    fn a_value_that_a_device_lacks_is_no_error() {
        assert!(matches!(
            if_supported::<u8>(Err(NvmlError::NotSupported)),
            Ok(None)
        ));
        assert!(matches!(if_supported(Ok(3)), Ok(Some(3))));
        assert!(matches!(
            if_supported::<u8>(Err(NvmlError::GpuLost)),
            Err(NvmlError::GpuLost)
        ));
    }
}
