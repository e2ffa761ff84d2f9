//! GPM values.

use std::{
    ffi::{c_int, c_uint, c_void},
    sync::atomic::{AtomicUsize, Ordering},
};

use nvml_wrapper_sys::bindings::{nvmlGpmMetricsGet_t, nvmlGpmSupport_t};

use crate::{ERROR_INVALID_ARGUMENT, ERROR_NOT_SUPPORTED, SUCCESS, Target, begin, control, finish};

/// A sample: the handle of the device that it was taken of, 0 before.
type Sample = AtomicUsize;

/// Whether a device has GPM: if the control file has values.
///
/// # Safety
/// `support` points to a writable `nvmlGpmSupport_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmQueryDeviceSupport(
    device: *mut c_void,
    support: *mut nvmlGpmSupport_t,
) -> c_int {
    let begun = begin("nvmlGpmQueryDeviceSupport", device, "gpm");
    let supported = begun.map(|(target, control)| nvmlGpmSupport_t {
        version: 1,
        isSupportedDevice: control.rows(target.index, "gpm").next().is_some().into(),
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(support, supported) }
}

/// An empty sample.
///
/// # Safety
/// `sample` points to a writable `nvmlGpmSample_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut *mut c_void) -> c_int {
    let allocated = Box::into_raw(Box::new(Sample::new(0)));
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(sample, Ok(allocated.cast())) }
}

/// Frees a sample.
///
/// # Safety
/// `sample` comes from `nvmlGpmSampleAlloc`, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleFree(sample: *mut c_void) -> c_int {
    // SAFETY: the caller vouches for the pointer.
    drop(unsafe { Box::from_raw(sample.cast::<Sample>()) });
    SUCCESS
}

/// Takes a sample of a device.
///
/// # Safety
/// `sample` comes from `nvmlGpmSampleAlloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleGet(device: *mut c_void, sample: *mut c_void) -> c_int {
    match begin("nvmlGpmSampleGet", device, "gpm") {
        Ok(_) => {
            // SAFETY: the caller vouches for the pointer.
            let sample = unsafe { &*sample.cast::<Sample>() };
            sample.store(device.addr(), Ordering::Relaxed);
            SUCCESS
        }
        Err(error) => error,
    }
}

/// Takes a sample of a GPU instance; the values are those of its device.
///
/// # Safety
/// `sample` comes from `nvmlGpmSampleAlloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMigSampleGet(
    device: *mut c_void,
    _instance: c_uint,
    sample: *mut c_void,
) -> c_int {
    // SAFETY: the caller vouches for the pointer.
    unsafe { nvmlGpmSampleGet(device, sample) }
}

/// The values between two samples: those of the control file, in thousandths. The others are not supported.
///
/// # Safety
/// `request` points to a writable `nvmlGpmMetricsGet_t` with two samples.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> c_int {
    // SAFETY: the caller vouches for the pointer.
    let request = unsafe { &mut *request };
    // SAFETY: the caller vouches for the sample.
    let handle = unsafe { &*request.sample2.cast::<Sample>() }.load(Ordering::Relaxed);
    let Some(target) = Target::of(std::ptr::without_provenance_mut(handle)) else {
        return ERROR_INVALID_ARGUMENT;
    };
    let control = control::obey("nvmlGpmMetricsGet");
    for metric in request.metrics.iter_mut().take(request.numMetrics as usize) {
        let row = control.keyed(target.index, "gpm", &[metric.metricId.into()]);
        match row.and_then(|row| row.first().copied()) {
            Some(thousandths) => {
                metric.nvmlReturn = SUCCESS as c_uint;
                metric.value = thousandths as f64 / 1e3;
            }
            None => metric.nvmlReturn = ERROR_NOT_SUPPORTED as c_uint,
        }
    }
    SUCCESS
}
