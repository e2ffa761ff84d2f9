//! Calls the few NVML functions that its Rust library lacks, or calls with fewer arguments.
//!
//! Does not depend on: what the values mean.

use std::ffi::c_int;

use nvml_wrapper::{
    Device,
    error::{NvmlError, nvml_sym, nvml_try},
};
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};

/// Returns whole numbers, one for each `(field, scope)`; `None` for one that the device does not have.
pub(super) fn values(
    device: &Device<'_>,
    fields: &[(u32, u32)],
) -> Result<Vec<Option<u64>>, NvmlError> {
    let get = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let mut values: Vec<nvmlFieldValue_t> = fields.iter().map(|field| asked(*field)).collect();
    // SAFETY: the handle is valid as long as `device`; the array has as many elements as the count says.
    let code = unsafe { get(device.handle(), values.len() as c_int, values.as_mut_ptr()) };
    nvml_try(code)?;
    Ok(values.iter().map(whole).collect())
}

fn asked((field, scope): (u32, u32)) -> nvmlFieldValue_t {
    // SAFETY: all-zero is valid for this struct of numbers.
    let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    value.fieldId = field;
    value.scopeId = scope;
    value
}

fn whole(value: &nvmlFieldValue_t) -> Option<u64> {
    nvml_try(value.nvmlReturn).ok()?;
    match value.valueType {
        // SAFETY: NVML wrote this member, as the type says.
        UNSIGNED_INT => Some(u64::from(unsafe { value.value.uiVal })),
        // SAFETY: NVML wrote this member, as the type says.
        UNSIGNED_LONG => Some(unsafe { value.value.ulVal }),
        // SAFETY: NVML wrote this member, as the type says.
        UNSIGNED_LONG_LONG => Some(unsafe { value.value.ullVal }),
        _ => None,
    }
}

/// Returns the id of the GPU instance that a MIG device is part of.
pub(super) fn gpu_instance_id(device: &Device<'_>) -> Result<u32, NvmlError> {
    let get = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: the handle is valid as long as `device`, and `id` is writable.
    nvml_try(unsafe { get(device.handle(), &raw mut id) })?;
    Ok(id)
}
