//! Reads the three GPU values that TorchServe has, by its definitions.
//!
//! Does not depend on: all other values of a GPU.

use nvml_wrapper::{Device, error::NvmlError};

use crate::{
    api::history::GpuReading,
    metrics::{GpuMemory, GpuSample},
};

const BYTES_PER_MIB: u64 = 1 << 20;

/// Reads TorchServe's values of a GPU.
pub(super) fn read(device: &Device<'_>, index: u32) -> Result<GpuSample, NvmlError> {
    let utilization = if_supported(device.utilization_rates())?;
    Ok(GpuSample {
        index,
        busy_pct: utilization.map(|rates| f64::from(rates.gpu)),
        memory: read_memory(device)?,
    })
}

/// Returns the values for the history.
pub(super) fn readings(gpus: &[GpuSample], at_ns: u64) -> impl Iterator<Item = GpuReading> {
    gpus.iter().map(move |gpu| GpuReading {
        at_ns,
        device: gpu.index,
        busy_pct: gpu.busy_pct,
        memory_pct: gpu.memory.map(|memory| memory.used_pct),
        memory_mib: gpu.memory.map(|memory| memory.used_mib),
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
