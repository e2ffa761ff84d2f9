//! Reads GPM values: the use of single parts of Hopper GPUs and later, between two samples.
//!
//! Only on request: the samples share counters with other tools.
//! Does not depend on: processes, energy.

use nvml_wrapper::{
    Device, Nvml,
    enums::gpm::GpmMetricId,
    error::NvmlError,
    gpm::{GpmSample, gpm_metrics_get},
};

use crate::{
    collectors::gpu::series::{Gap, Series},
    metrics::families,
};

/// NVML's MiB per second of a GPM rate.
const MIB: f64 = 1_048_576.0;
const SHARES: [(GpmMetricId, &str); 8] = [
    (GpmMetricId::GraphicsUtil, "graphics"),
    (GpmMetricId::SmUtil, "sm"),
    (GpmMetricId::SmOccupancy, "sm_occupancy"),
    (GpmMetricId::AnyTensorUtil, "tensor"),
    (GpmMetricId::DramBwUtil, "dram"),
    (GpmMetricId::Fp64Util, "fp64"),
    (GpmMetricId::Fp32Util, "fp32"),
    (GpmMetricId::Fp16Util, "fp16"),
];
const RATES: [(GpmMetricId, &str); 4] = [
    (GpmMetricId::PcieTxPerSec, "pcie_tx"),
    (GpmMetricId::PcieRxPerSec, "pcie_rx"),
    (GpmMetricId::NvlinkTotalTxPerSec, "nvlink_tx"),
    (GpmMetricId::NvlinkTotalRxPerSec, "nvlink_rx"),
];

/// Takes a sample of a GPU, or of its instance `mig`; returns `None` if it has no GPM.
pub(super) fn sample<'nvml>(
    device: &Device<'nvml>,
    mig: Option<u32>,
    series: &mut Series,
) -> Result<Option<GpmSample<'nvml>>, NvmlError> {
    if series.optional("gpm", device.gpm_support())? != Some(true) {
        series.gap("gpm", Gap::NotSupported);
        return Ok(None);
    }
    let sample = match mig {
        None => device.gpm_sample(),
        Some(id) => device.gpm_mig_sample(id),
    };
    series.optional("gpm", sample)
}

/// Adds the mean of each value between two samples. A value that this GPU lacks is absent.
pub(super) fn read<'nvml>(
    nvml: &'nvml Nvml,
    before: &GpmSample<'nvml>,
    now: &GpmSample<'nvml>,
    series: &mut Series,
) -> Result<(), NvmlError> {
    let wanted = SHARES.iter().chain(&RATES);
    let ids: Vec<GpmMetricId> = wanted.map(|(id, _)| *id).collect();
    let values = series.optional("gpm", gpm_metrics_get(nvml, before, now, &ids))?;
    let mut values = values.into_iter().flatten();
    for (_, name) in SHARES {
        if let Some(Ok(share)) = values.next() {
            series.push(&families::GPU_GPM, &[name], share.value / 100.0);
        }
    }
    for (_, name) in RATES {
        if let Some(Ok(rate)) = values.next() {
            series.push(&families::GPU_GPM_RATE, &[name], rate.value * MIB);
        }
    }
    Ok(())
}
