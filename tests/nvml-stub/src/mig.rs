//! MIG instances.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use crate::{ERROR_NOT_FOUND, Target, begin, control::Control, finish};

/// Slots of a device: instances may be in any of them.
const SLOTS: c_uint = 7;

/// Whether the device is in MIG mode.
pub(crate) fn is_on(control: &Control, index: usize) -> bool {
    control.rows(index, "mig").next().is_some()
}

/// Memory that an instance uses, bytes.
pub(crate) fn used_bytes(control: &Control, index: usize, slot: usize) -> Option<c_ulonglong> {
    instance(control, index, slot)?.get(1).copied()
}

/// The processes of an instance, and the memory of each, bytes.
pub(crate) fn processes(
    control: &Control,
    index: usize,
    slot: usize,
) -> Vec<(c_ulonglong, c_ulonglong)> {
    let rows = control.rows(index, "mig_process");
    rows.filter_map(|row| match row[..] {
        [of, pid, bytes] if of == slot as c_ulonglong => Some((pid, bytes)),
        _ => None,
    })
    .collect()
}

fn instance(control: &Control, index: usize, slot: usize) -> Option<Vec<c_ulonglong>> {
    control.keyed(index, "mig", &[slot as c_ulonglong])
}

/// Whether the device has MIG mode.
///
/// # Safety
/// `current` and `pending` point to writable `unsigned int`s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: *mut c_void,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetMigMode", device, "mig");
    let mode = begun.map(|(target, control)| c_uint::from(is_on(&control, target.index)));
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(pending, mode) };
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(current, mode) }
}

/// The number of slots.
///
/// # Safety
/// `count` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    device: *mut c_void,
    count: *mut c_uint,
) -> c_int {
    let begun = begin("nvmlDeviceGetMaxMigDeviceCount", device, "mig");
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(count, begun.map(|_| SLOTS)) }
}

/// The handle of the instance in a slot.
///
/// # Safety
/// `instance_handle` points to a writable `nvmlDevice_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: *mut c_void,
    slot: c_uint,
    instance_handle: *mut *mut c_void,
) -> c_int {
    let begun = begin("nvmlDeviceGetMigDeviceHandleByIndex", device, "mig");
    let handle = begun.and_then(|(target, control)| {
        let slot = slot as usize;
        instance(&control, target.index, slot).ok_or(ERROR_NOT_FOUND)?;
        let target = Target {
            slot: Some(slot),
            ..target
        };
        Ok(target.handle())
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(instance_handle, handle) }
}

/// The id of the GPU instance that a MIG device is part of.
///
/// # Safety
/// `id` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: *mut c_void, id: *mut c_uint) -> c_int {
    let begun = begin("nvmlDeviceGetGpuInstanceId", device, "mig");
    let found = begun.and_then(|(target, control)| {
        let slot = target.slot.ok_or(ERROR_NOT_FOUND)?;
        let row = instance(&control, target.index, slot).ok_or(ERROR_NOT_FOUND)?;
        row.first().map(|id| *id as c_uint).ok_or(ERROR_NOT_FOUND)
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(id, found) }
}
