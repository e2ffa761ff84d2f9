//! PCIe and NVLink.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use nvml_wrapper_sys::bindings::{
    NVML_NVLINK_MAX_LINKS,
    field_id::{
        NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
        NVML_FI_DEV_PCIE_COUNT_RX_BYTES, NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
    },
    nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};

use crate::{
    ERROR_INVALID_ARGUMENT, ERROR_NOT_SUPPORTED, SUCCESS, Target, begin, control::Control, finish,
};

/// Values of single fields: bytes over PCIe and NVLink, if the control file has them.
///
/// # Safety
/// `values` points to a writable array of `count` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: *mut c_void,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> c_int {
    let (target, control) = match begin("nvmlDeviceGetFieldValues", device, "fields") {
        Ok(begun) => begun,
        Err(error) => return error,
    };
    // SAFETY: the caller vouches for the array.
    let values = unsafe { std::slice::from_raw_parts_mut(values, count as usize) };
    for value in values {
        match field(target, &control, value.fieldId, value.scopeId) {
            Some(number) => {
                value.nvmlReturn = SUCCESS as c_uint;
                value.valueType = UNSIGNED_LONG_LONG;
                value.value.ullVal = number;
            }
            None => value.nvmlReturn = ERROR_NOT_SUPPORTED as c_uint,
        }
    }
    SUCCESS
}

fn field(target: Target, control: &Control, field: c_uint, scope: c_uint) -> Option<c_ulonglong> {
    let pcie = || control.rows(target.index, "pcie_bytes").next();
    let link = || control.keyed(target.index, "nvlink", &[scope.into()]);
    let (row, column) = match field {
        NVML_FI_DEV_PCIE_COUNT_TX_BYTES => (pcie()?, 0),
        NVML_FI_DEV_PCIE_COUNT_RX_BYTES => (pcie()?, 1),
        NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX => (link()?, 0),
        NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX => (link()?, 1),
        _ => return None,
    };
    row.get(column).copied()
}

/// A rate over PCIe, KB/s.
///
/// # Safety
/// `rate` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPcieThroughput(
    device: *mut c_void,
    counter: c_uint,
    rate: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetPcieThroughput", device, "pcie_rate");
    let value = begun.map(|(target, control)| {
        let row = control.rows(target.index, "pcie_rate").next();
        let rate = row.and_then(|row| row.get(counter as usize).copied());
        rate.unwrap_or(1_000) as c_uint
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(rate, value) }
}

/// Replayed packets: 3.
///
/// # Safety
/// `count` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPcieReplayCounter(
    device: *mut c_void,
    count: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetPcieReplayCounter", device, "pcie_replays");
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(count, begun.map(|_| 3)) }
}

/// Generation 5.
///
/// # Safety
/// `generation` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrPcieLinkGeneration(
    device: *mut c_void,
    generation: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetCurrPcieLinkGeneration", device, "pcie_link");
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(generation, begun.map(|_| 5)) }
}

/// 16 lanes.
///
/// # Safety
/// `width` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrPcieLinkWidth(
    device: *mut c_void,
    width: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetCurrPcieLinkWidth", device, "pcie_link");
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(width, begun.map(|_| 16)) }
}

/// Whether an NVLink is active: those that the control file has are. A device without any has no NVLink.
///
/// # Safety
/// `active` points to a writable `nvmlEnableState_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: *mut c_void,
    link: c_uint,
    active: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetNvLinkState", device, "nvlink");
    let state = begun.and_then(|(target, control)| {
        if control.rows(target.index, "nvlink").next().is_none() {
            return Err(ERROR_NOT_SUPPORTED);
        }
        if link >= NVML_NVLINK_MAX_LINKS {
            return Err(ERROR_INVALID_ARGUMENT);
        }
        let row = control.keyed(target.index, "nvlink", &[link.into()]);
        Ok(c_uint::from(row.is_some()))
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(active, state) }
}

/// Errors of an NVLink.
///
/// # Safety
/// `count` points to a writable `unsigned long long`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: *mut c_void,
    link: c_uint,
    counter: c_uint,
    count: *mut c_ulonglong,
) -> c_int {
    let begun = begin("nvmlDeviceGetNvLinkErrorCounter", device, "nvlink_errors");
    let errors = begun.map(|(target, control)| {
        let keys = [link.into(), counter.into()];
        let row = control.keyed(target.index, "nvlink_errors", &keys);
        row.and_then(|row| row.first().copied()).unwrap_or(0)
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(count, errors) }
}
