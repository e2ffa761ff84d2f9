//! Reads what goes in and out of a GPU: PCIe and NVLink.
//!
//! Does not depend on: processes, energy.

use nvml_wrapper::{
    Device,
    enum_wrappers::{device::PcieUtilCounter, nv_link::ErrorCounter},
    error::NvmlError,
    sys_exports::field_id::{
        NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
        NVML_FI_DEV_PCIE_COUNT_RX_BYTES, NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
    },
};
use nvml_wrapper_sys::bindings::NVML_NVLINK_MAX_LINKS;

use crate::{
    collectors::gpu::{fields, series::Series},
    metrics::families,
};

const KIB: u64 = 1_024;
/// NVML's KB of a PCIe rate.
const KB: f64 = 1_000.0;
const LINK_ERRORS: [(ErrorCounter, &str); 4] = [
    (ErrorCounter::DlReplay, "replay"),
    (ErrorCounter::DlRecovery, "recovery"),
    (ErrorCounter::DlCrcFlit, "crc_flit"),
    (ErrorCounter::DlCrcData, "crc_data"),
];

/// Reads counters and state of the PCIe link; returns whether the device counts bytes.
pub(super) fn read_pcie(device: &Device<'_>, series: &mut Series) -> Result<bool, NvmlError> {
    let fields = [
        (NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 0),
        (NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0),
    ];
    let bytes = series.optional("pcie_bytes", fields::values(device, &fields))?;
    let bytes = bytes.unwrap_or_default();
    for (direction, bytes) in ["tx", "rx"].into_iter().zip(&bytes) {
        series.push_some(&families::GPU_PCIE_BYTES, &[direction], *bytes);
    }
    let replays = series.optional("pcie_replays", device.pcie_replay_counter())?;
    series.push_some(&families::GPU_PCIE_REPLAYS, &[], replays.map(u64::from));
    let generation = series.optional("pcie_link", device.current_pcie_link_gen())?;
    series.push_some(
        &families::GPU_PCIE_GENERATION,
        &[],
        generation.map(u64::from),
    );
    let width = series.optional("pcie_link", device.current_pcie_link_width())?;
    series.push_some(&families::GPU_PCIE_WIDTH, &[], width.map(u64::from));
    Ok(bytes.iter().any(Option::is_some))
}

/// Samples the rate of bytes over PCIe, which takes 40 ms.
pub(super) fn sample_pcie(device: &Device<'_>, series: &mut Series) -> Result<(), NvmlError> {
    for (counter, direction) in [
        (PcieUtilCounter::Send, "tx"),
        (PcieUtilCounter::Receive, "rx"),
    ] {
        let rate = series.optional("pcie_rate", device.pcie_throughput(counter))?;
        let rate = rate.map(|rate| f64::from(rate) * KB);
        series.push_some(&families::GPU_PCIE_RATE, &[direction], rate);
    }
    Ok(())
}

/// Reads the counters of every NVLink that is active.
pub(super) fn read_nvlinks(device: &Device<'_>, series: &mut Series) -> Result<(), NvmlError> {
    for link in 0..NVML_NVLINK_MAX_LINKS {
        let nvlink = device.link_wrapper_for(link);
        match nvlink.is_active() {
            Ok(true) => {}
            // Links that the device does not have come last.
            Err(NvmlError::InvalidArg) => return Ok(()),
            outcome => {
                if series.optional("nvlink", outcome)?.is_none() {
                    return Ok(());
                }
                continue;
            }
        }
        let name = link.to_string();
        let fields = [
            (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, link),
            (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, link),
        ];
        let kib = series.optional("nvlink_bytes", fields::values(device, &fields))?;
        for (direction, kib) in ["tx", "rx"].into_iter().zip(kib.into_iter().flatten()) {
            let bytes = kib.map(|kib| kib.saturating_mul(KIB));
            series.push_some(&families::GPU_NVLINK_BYTES, &[&name, direction], bytes);
        }
        for (counter, error) in LINK_ERRORS {
            let errors = series.optional("nvlink_errors", nvlink.error_counter(counter))?;
            series.push_some(&families::GPU_NVLINK_ERRORS, &[&name, error], errors);
        }
    }
    Ok(())
}
