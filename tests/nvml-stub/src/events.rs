//! XID errors, which the control file injects.

use std::{
    collections::BTreeMap,
    ffi::{c_int, c_uint, c_ulonglong, c_void},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper_sys::bindings::{nvmlEventData_t, nvmlEventTypeXidCriticalError};

use crate::{DEVICES, ERROR_TIMEOUT, Target, begin, control, finish};

/// The XID errors that were delivered, by device and code.
static DELIVERED: Mutex<BTreeMap<(usize, c_ulonglong), c_ulonglong>> = Mutex::new(BTreeMap::new());

/// Devices that are registered, a bit for each.
static REGISTERED: Mutex<usize> = Mutex::new(0);

/// The events that a device has: XID errors.
///
/// # Safety
/// `types` points to a writable `unsigned long long`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: *mut c_void,
    types: *mut c_ulonglong,
) -> c_int {
    let begun = begin("nvmlDeviceGetSupportedEventTypes", device, "events");
    let xid = c_ulonglong::from(nvmlEventTypeXidCriticalError);
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(types, begun.map(|_| xid)) }
}

/// A set, of which there is one.
///
/// # Safety
/// `set` points to a writable `nvmlEventSet_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut *mut c_void) -> c_int {
    control::obey("nvmlEventSetCreate");
    *REGISTERED.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    let handle = std::ptr::without_provenance_mut(1);
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(set, Ok(handle)) }
}

/// Succeeds.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(_set: *mut c_void) -> c_int {
    0
}

/// Registers a device.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: *mut c_void,
    _types: c_ulonglong,
    _set: *mut c_void,
) -> c_int {
    match begin("nvmlDeviceRegisterEvents", device, "registration") {
        Ok((target, _)) => {
            let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
            *registered |= 1 << target.index;
            0
        }
        Err(error) => error,
    }
}

/// Waits for an XID error of a registered device that was not delivered yet.
///
/// # Safety
/// `data` points to a writable `nvmlEventData_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    _set: *mut c_void,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> c_int {
    let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
    loop {
        if let Some(event) = next_event() {
            // SAFETY: the caller vouches for the pointer.
            return unsafe { finish(data, Ok(event)) };
        }
        if Instant::now() >= deadline {
            return ERROR_TIMEOUT;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn next_event() -> Option<nvmlEventData_t> {
    let control = control::obey("nvmlEventSetWait_v2");
    let registered = *REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut delivered = DELIVERED.lock().unwrap_or_else(PoisonError::into_inner);
    for index in (0..DEVICES.len()).filter(|index| registered & (1 << index) != 0) {
        for row in control.rows(index, "xid") {
            let [code, times] = row[..] else {
                continue;
            };
            let delivered = delivered.entry((index, code)).or_default();
            if *delivered < times {
                *delivered += 1;
                return Some(nvmlEventData_t {
                    device: Target { index, slot: None }.handle().cast(),
                    eventType: nvmlEventTypeXidCriticalError.into(),
                    eventData: code,
                    gpuInstanceId: c_uint::MAX,
                    computeInstanceId: c_uint::MAX,
                });
            }
        }
    }
    None
}
