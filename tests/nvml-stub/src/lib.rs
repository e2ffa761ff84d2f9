//! A mock of `libnvidia-ml.so.1`: the symbols that the agent's GPU collector calls, and two invented devices.
//!
//! A file beside the library, named as the library with `.control` added, controls it; `control` lists what its lines
//! mean. Every call reads it, so a test may change it while the agent runs. No file, or an empty one: both devices work.
//! Does not depend on: the agent.

mod control;
pub mod events;
pub mod gpm;
pub mod limits;
pub mod links;
pub mod mig;
pub mod processes;

use std::{
    ffi::{c_char, c_int, c_uint, c_ulonglong, c_void},
    sync::atomic::{AtomicU32, Ordering},
};

use nvml_wrapper_sys::bindings::{nvmlMemory_v2_t, nvmlUtilization_t};

use crate::control::Control;

const SUCCESS: c_int = 0;
const ERROR_INVALID_ARGUMENT: c_int = 2;
const ERROR_NOT_SUPPORTED: c_int = 3;
const ERROR_NOT_FOUND: c_int = 6;
const ERROR_INSUFFICIENT_SIZE: c_int = 7;
const ERROR_DRIVER_NOT_LOADED: c_int = 9;
const ERROR_TIMEOUT: c_int = 10;
const ERROR_GPU_IS_LOST: c_int = 15;
const ERROR_UNKNOWN: c_int = 999;

const MIB: c_ulonglong = 1 << 20;

struct StubDevice {
    busy_pct: c_ulonglong,
    used_bytes: c_ulonglong,
    power_mw: c_ulonglong,
    calls: AtomicU32,
}

/// Both have 80 GiB.
static DEVICES: [StubDevice; 2] = [
    StubDevice {
        busy_pct: 37,
        used_bytes: 1024 * MIB,
        power_mw: 250_000,
        calls: AtomicU32::new(0),
    },
    StubDevice {
        busy_pct: 0,
        used_bytes: 0,
        power_mw: 70_000,
        calls: AtomicU32::new(0),
    },
];
const TOTAL_BYTES: c_ulonglong = 81_920 * MIB;

/// A GPU, or a MIG instance of it, as its handle says: the index plus one, and the slot plus one 16 bits higher.
#[derive(Clone, Copy)]
struct Target {
    index: usize,
    slot: Option<usize>,
}

impl Target {
    const SLOT_SHIFT: u32 = 16;

    fn handle(self) -> *mut c_void {
        let slot = self.slot.map_or(0, |slot| slot + 1);
        std::ptr::without_provenance_mut((self.index + 1) | slot << Self::SLOT_SHIFT)
    }

    fn of(handle: *mut c_void) -> Option<Self> {
        let address = handle.addr();
        let index = (address & ((1 << Self::SLOT_SHIFT) - 1)).checked_sub(1)?;
        let slot = (address >> Self::SLOT_SHIFT).checked_sub(1);
        (index < DEVICES.len()).then_some(Self { index, slot })
    }

    fn device(self) -> &'static StubDevice {
        &DEVICES[self.index]
    }
}

/// Begins a call on a device: counts it, and fails it if the control file says so. `value` is what the call is for.
fn begin(symbol: &str, handle: *mut c_void, value: &str) -> Result<(Target, Control), c_int> {
    let target = Target::of(handle).ok_or(ERROR_INVALID_ARGUMENT)?;
    let calls_before = target.device().calls.fetch_add(1, Ordering::Relaxed);
    let control = control::obey(symbol);
    if control.device_fails(target.index, calls_before) {
        return Err(ERROR_GPU_IS_LOST);
    }
    if control.says(target.index, "lacks", value) {
        return Err(ERROR_NOT_SUPPORTED);
    }
    if control.says(target.index, "errs", value) {
        return Err(ERROR_UNKNOWN);
    }
    Ok((target, control))
}

/// Writes a call's result to `out`, or returns its error.
///
/// # Safety
/// `out` points to a writable `T`.
unsafe fn finish<T>(out: *mut T, outcome: Result<T, c_int>) -> c_int {
    match outcome {
        Ok(value) => {
            // SAFETY: the caller vouches for the pointer.
            unsafe { out.write(value) };
            SUCCESS
        }
        Err(error) => error,
    }
}

/// Succeeds unless the control file says otherwise.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    if control::obey("nvmlInit_v2").contains_line("init fails") {
        return ERROR_DRIVER_NOT_LOADED;
    }
    SUCCESS
}

/// Succeeds.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

/// One text for every error.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_result: c_int) -> *const c_char {
    c"stub error".as_ptr()
}

/// Two.
///
/// # Safety
/// `count` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    if control::obey("nvmlDeviceGetCount_v2").contains_line("count fails") {
        return ERROR_UNKNOWN;
    }
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(count, Ok(DEVICES.len() as c_uint)) }
}

/// The handle of a device.
///
/// # Safety
/// `device` points to a writable `nvmlDevice_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut *mut c_void,
) -> c_int {
    let target = Target {
        index: index as usize,
        slot: None,
    };
    let known = (target.index < DEVICES.len()).then(|| target.handle());
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(device, known.ok_or(ERROR_INVALID_ARGUMENT)) }
}

/// The index of a device.
///
/// # Safety
/// `index` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: *mut c_void, index: *mut c_uint) -> c_int {
    let target = Target::of(device).ok_or(ERROR_INVALID_ARGUMENT);
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(index, target.map(|target| target.index as c_uint)) }
}

/// `GPU-stub-0`, or `MIG-stub-0-2` of an instance in slot 2.
///
/// # Safety
/// `uuid` points to a writable array of `length` characters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: *mut c_void,
    uuid: *mut c_char,
    length: c_uint,
) -> c_int {
    let target = match begin("nvmlDeviceGetUUID", device, "uuid") {
        Ok((target, _)) => target,
        Err(error) => return error,
    };
    let text = match target.slot {
        None => format!("GPU-stub-{}\0", target.index),
        Some(slot) => format!("MIG-stub-{}-{slot}\0", target.index),
    };
    if text.len() > length as usize {
        return ERROR_INSUFFICIENT_SIZE;
    }
    // SAFETY: the array is long enough.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), uuid, text.len()) };
    SUCCESS
}

/// The utilization of a device. A MIG instance has none.
///
/// # Safety
/// `utilization` points to a writable `nvmlUtilization_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: *mut c_void,
    utilization: *mut nvmlUtilization_t,
) -> c_int {
    let begun = begin("nvmlDeviceGetUtilizationRates", device, "utilization");
    let rates = begun.and_then(|(target, control)| {
        if target.slot.is_some() || mig::is_on(&control, target.index) {
            return Err(ERROR_NOT_SUPPORTED);
        }
        let value = |name: &str, default| control.value(target.index, name).unwrap_or(default);
        Ok(nvmlUtilization_t {
            gpu: value("busy", target.device().busy_pct) as c_uint,
            memory: value("memory_busy", 1) as c_uint,
        })
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(utilization, rates) }
}

/// The memory of a device or instance.
///
/// # Safety
/// `memory` points to a writable `nvmlMemory_v2_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: *mut c_void,
    memory: *mut nvmlMemory_v2_t,
) -> c_int {
    let begun = begin("nvmlDeviceGetMemoryInfo_v2", device, "memory");
    let memory_info = begun.map(|(target, control)| {
        let used = match target.slot {
            None => control.value(target.index, "used"),
            Some(slot) => mig::used_bytes(&control, target.index, slot),
        };
        let used = used.unwrap_or(target.device().used_bytes);
        nvmlMemory_v2_t {
            version: (2 << 24) | size_of::<nvmlMemory_v2_t>() as c_uint,
            total: TOTAL_BYTES,
            reserved: 0,
            free: TOTAL_BYTES - used,
            used,
        }
    });
    // SAFETY: the caller vouches for the pointer.
    unsafe { finish(memory, memory_info) }
}
