//! Who uses a device.

use std::{
    ffi::{c_int, c_uint, c_ulonglong, c_void},
    time::SystemTime,
};

use nvml_wrapper_sys::bindings::{nvmlProcessInfo_t, nvmlProcessUtilizationSample_t};

use crate::{ERROR_INSUFFICIENT_SIZE, ERROR_NOT_FOUND, ERROR_NOT_SUPPORTED, SUCCESS, begin, mig};

/// What NVML reports in place of an instance's id without MIG.
const NO_INSTANCE: c_uint = c_uint::MAX;

/// The processes that have memory of a device or instance.
///
/// # Safety
/// `infos` is null, or points to a writable array of as many elements as `count`, which is writable, says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: *mut c_void,
    count: *mut c_uint,
    infos: *mut nvmlProcessInfo_t,
) -> c_int {
    let (target, control) = match begin(
        "nvmlDeviceGetComputeRunningProcesses_v3",
        device,
        "processes",
    ) {
        Ok(begun) => begun,
        Err(error) => return error,
    };
    let used: Vec<(c_ulonglong, c_ulonglong)> = match target.slot {
        None => control
            .rows(target.index, "process")
            .filter_map(|row| Some((*row.first()?, *row.get(3)?)))
            .collect(),
        Some(slot) => mig::processes(&control, target.index, slot),
    };
    let rows: Vec<_> = used
        .into_iter()
        .map(|(pid, bytes)| nvmlProcessInfo_t {
            pid: pid as c_uint,
            usedGpuMemory: bytes,
            gpuInstanceId: NO_INSTANCE,
            computeInstanceId: NO_INSTANCE,
        })
        .collect();
    // SAFETY: the caller vouches for the pointers.
    unsafe { copy_rows(&rows, count, infos) }
}

/// None: no process shares a device through MPS.
///
/// # Safety
/// `count` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: *mut c_void,
    count: *mut c_uint,
    _infos: *mut nvmlProcessInfo_t,
) -> c_int {
    match begin(
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        device,
        "mps_processes",
    ) {
        // SAFETY: the caller vouches for the pointer.
        Ok(_) => unsafe { crate::finish(count, Ok(0)) },
        Err(error) => error,
    }
}

/// The processes that ran kernels, each with one sample of now; `NOT_FOUND` if none did. Not supported with MIG.
///
/// # Safety
/// `samples` is null, or points to a writable array of as many elements as `count`, which is writable, says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: *mut c_void,
    samples: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last_seen_us: c_ulonglong,
) -> c_int {
    let begun = begin(
        "nvmlDeviceGetProcessUtilization",
        device,
        "process_utilization",
    );
    let (target, control) = match begun {
        Ok(begun) => begun,
        Err(error) => return error,
    };
    if target.slot.is_some() || mig::is_on(&control, target.index) {
        return ERROR_NOT_SUPPORTED;
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now_us = now.as_micros() as c_ulonglong;
    let rows: Vec<_> = control
        .rows(target.index, "process")
        .filter_map(|row| {
            let [pid, sm, memory, _] = row[..] else {
                return None;
            };
            (sm > 0 && now_us > last_seen_us).then_some(nvmlProcessUtilizationSample_t {
                pid: pid as c_uint,
                timeStamp: now_us,
                smUtil: sm as c_uint,
                memUtil: memory as c_uint,
                encUtil: 0,
                decUtil: 0,
            })
        })
        .collect();
    if rows.is_empty() {
        return ERROR_NOT_FOUND;
    }
    // SAFETY: the caller vouches for the pointers.
    unsafe { copy_rows(&rows, count, samples) }
}

/// Copies rows as NVML does: a null or short array is answered by the number of rows.
///
/// # Safety
/// `out` is null, or points to a writable array of as many elements as `count`, which is writable, says.
unsafe fn copy_rows<T: Copy>(rows: &[T], count: *mut c_uint, out: *mut T) -> c_int {
    // SAFETY: the caller vouches for the pointer.
    let room = unsafe { count.read() } as usize;
    // SAFETY: the caller vouches for the pointer.
    unsafe { count.write(rows.len() as c_uint) };
    if rows.is_empty() {
        return SUCCESS;
    }
    if out.is_null() || room < rows.len() {
        return ERROR_INSUFFICIENT_SIZE;
    }
    // SAFETY: there is room for all rows.
    unsafe { std::ptr::copy_nonoverlapping(rows.as_ptr(), out, rows.len()) };
    SUCCESS
}
