//! Power, energy, temperature, clocks, throttling and memory errors.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use nvml_wrapper_sys::bindings::nvmlViolationTime_t;

use crate::{ERROR_NOT_SUPPORTED, begin, finish};

const LIMIT_MW: c_ulonglong = 700_000;
const ENERGY_MJ: c_ulonglong = 1_000_000;

/// Power now, mW.
///
/// # Safety
/// `power` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(device: *mut c_void, power: *mut c_uint) -> c_int {
    let begun = begin("nvmlDeviceGetPowerUsage", device, "power");
    let value = begun.map(|(target, control)| {
        let power_mw = control.value(target.index, "power");
        power_mw.unwrap_or(target.device().power_mw) as c_uint
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(power, value) }
}

/// Power limit, mW.
///
/// # Safety
/// `limit` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(
    device: *mut c_void,
    limit: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetEnforcedPowerLimit", device, "limit");
    let value = begun.map(|(target, control)| {
        control.value(target.index, "limit").unwrap_or(LIMIT_MW) as c_uint
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(limit, value) }
}

/// Energy since the driver was loaded, mJ.
///
/// # Safety
/// `energy` points to a writable `unsigned long long`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEnergyConsumption(
    device: *mut c_void,
    energy: *mut c_ulonglong,
) -> c_int {
    let begun = begin("nvmlDeviceGetTotalEnergyConsumption", device, "energy");
    let value =
        begun.map(|(target, control)| control.value(target.index, "energy").unwrap_or(ENERGY_MJ));
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(energy, value) }
}

/// Temperature, degrees Celsius.
///
/// # Safety
/// `temperature` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: *mut c_void,
    _sensor: c_uint,
    temperature: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetTemperature", device, "temperature");
    let value = begun.map(|(target, control)| {
        control.value(target.index, "temperature").unwrap_or(45) as c_uint
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(temperature, value) }
}

/// A clock, MHz.
///
/// # Safety
/// `clock` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    device: *mut c_void,
    domain: c_uint,
    clock: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetClockInfo", device, "clock");
    let value = begun.map(|(target, control)| {
        let set = control.keyed(target.index, "clock", &[domain.into()]);
        set.and_then(|row| row.first().copied()).unwrap_or(1_500) as c_uint
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(clock, value) }
}

/// Time lost to a policy. Policies 4 and 5 are not supported.
///
/// # Safety
/// `time` points to a writable `nvmlViolationTime_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetViolationStatus(
    device: *mut c_void,
    policy: c_uint,
    time: *mut nvmlViolationTime_t,
) -> c_int {
    let begun = begin("nvmlDeviceGetViolationStatus", device, "violation");
    let value = begun.and_then(|(target, control)| {
        if matches!(policy, 4 | 5) {
            return Err(ERROR_NOT_SUPPORTED);
        }
        let set = control.keyed(target.index, "violation", &[policy.into()]);
        Ok(nvmlViolationTime_t {
            referenceTime: 1,
            violationTime: set.and_then(|row| row.first().copied()).unwrap_or(0),
        })
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(time, value) }
}

/// Mask of the reasons that limit the clocks.
///
/// # Safety
/// `reasons` points to a writable `unsigned long long`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: *mut c_void,
    reasons: *mut c_ulonglong,
) -> c_int {
    let begun = begin(
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        device,
        "throttle",
    );
    let value = begun.map(|(target, control)| control.value(target.index, "throttle").unwrap_or(0));
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(reasons, value) }
}

/// Memory errors of a type.
///
/// # Safety
/// `count` points to a writable `unsigned long long`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: *mut c_void,
    kind: c_uint,
    _counter: c_uint,
    count: *mut c_ulonglong,
) -> c_int {
    let begun = begin("nvmlDeviceGetTotalEccErrors", device, "ecc");
    let value = begun.map(|(target, control)| {
        let set = control.keyed(target.index, "ecc", &[kind.into()]);
        set.and_then(|row| row.first().copied()).unwrap_or(0)
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(count, value) }
}
